"""A packed folder that is filled unevenly is told which lengths have its proportion."""

import pytest

from specialize_jax.apps import pack


def _info(encoder, decoder, lengths=(1536, 384)):
    numbers = {
        "encoder_tokens": encoder,
        "decoder_tokens": decoder,
        "encoder_fill": encoder / (100 * lengths[0]),
        "decoder_fill": decoder / (100 * lengths[1]),
        "rows": 100,
        "examples": 300,
        "formats": {},
        "coverage": 0.5,
    }
    return {
        "splits": {"train": numbers},
        "lengths": dict(zip(("inputs", "targets"), lengths, strict=True)),
        "too_long": {},
        "on_too_long": "drop",
    }


@pytest.mark.parametrize(
    "encoder, decoder, better",
    [(150_000, 30_000, (1536, 304)), (150_000, 37_000, None), (60_000, 36_600, (632, 384))],
)
def test_better_lengths_are_named_where_a_side_stays_empty(encoder, decoder, better, capsys):
    info = _info(encoder, decoder)
    assert pack.better_lengths(info) == better
    pack.print_summary(info)
    printed = capsys.readouterr().out
    assert ("TASK_FEATURE_LENGTHS" in printed) == (better is not None)
    if better:
        assert f"{{'inputs': {better[0]}, 'targets': {better[1]}}}" in printed
