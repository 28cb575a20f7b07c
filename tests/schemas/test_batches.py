"""Rows of decoder-only students; packed rows of encoders and decoders are tested with packing."""

import numpy as np
import pytest

from specialize_jax.schemas import Kind, SchemaError, batches

LAYOUT = batches.decoder_only_fields(length=8, k=2, vocab_size=50257)


@pytest.fixture
def batch():
    """One row: a prompt of two tokens and a target of three, one of each, and padding.

    A target's last token is only predicted, so a segment is one shorter than its example.
    """
    zeros = {name: np.zeros((1, *field.shape), field.dtype) for name, field in LAYOUT.items()}
    segments = np.array([[1, 1, 1, 1, 2, 0, 0, 0]], np.int32)
    kinds = np.where(segments > 0, Kind.ANSWER_ONLY, Kind.PAD).astype(np.int32)
    return zeros | {
        "decoder_input_tokens": np.array([[11, 12, 21, 22, 13, 0, 0, 0]], np.int32),
        "decoder_target_tokens": np.array([[12, 21, 22, 23, 24, 0, 0, 0]], np.int32),
        "decoder_segment_ids": segments,
        "decoder_positions": np.array([[0, 1, 2, 3, 0, 0, 0, 0]], np.int32),
        "decoder_causal_attention": np.array([[1, 1, 0, 0, 1, 0, 0, 0]], np.int32),
        "decoder_loss_weights": np.array([[0, 1, 1, 1, 1, 0, 0, 0]], np.float32),
        "decoder_soft_kind": kinds,
    }


def test_a_row_is_stored_and_read(batch):
    batches.check_batch(batch, LAYOUT, "here")
    record = batches.encode_row({name: rows[0] for name, rows in batch.items()}, LAYOUT)
    again = batches.decode_rows([record], LAYOUT)
    for name, rows in batch.items():
        np.testing.assert_array_equal(again[name], rows, err_msg=name)
    assert batches.render_row(batch, 0).endswith("62% of the decoder filled")


@pytest.mark.parametrize(
    ("field", "position", "value", "message"),
    [
        ("decoder_causal_attention", 0, 2, "expected 0 or 1"),
        ("decoder_causal_attention", 6, 1, "a prompt on padding"),
        ("decoder_causal_attention", 3, 1, "a prompt does not start its segment"),
        ("decoder_loss_weights", 0, 1, "a weight on the prompt"),
    ],
)
def test_broken_rules_are_named(batch, field, position, value, message):
    batch[field][0, position] = value
    with pytest.raises(SchemaError, match=f"here: .*{message}"):
        batches.check_batch(batch, LAYOUT, "here")
