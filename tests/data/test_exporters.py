"""Exported rows mean to the other trainer what the aligned examples mean to ours."""

import numpy as np
import pytest

from specialize_jax import losses, tokenizers
from specialize_jax.data import exporters, formats
from specialize_jax.schemas import UNUSED_LOGPROB, Format, Kind, Reason, SchemaError, SparseTargets
from tests.fixtures import world
from tests.losses import dense

UNUSED = exporters.PADDING_LOGPROB


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.load(world.TOKENIZER)


def example(targets, soft):
    return {
        "example_id": "a/1",
        "sample_id": 0,
        "question": "Ann has 3 pens?",
        "targets": np.array(targets, np.int32),
        "soft": soft,
    }


def soft(ids, probabilities, tail):
    used = np.array(probabilities) > 0
    logs = np.where(used, np.log(np.where(used, probabilities, 1)), UNUSED_LOGPROB)
    is_soft = np.array(tail) >= 0
    return SparseTargets(
        ids=np.array(ids, np.int32),
        logprobs=logs.astype(np.float32),
        tail_logprob=np.log(np.maximum(tail, 1e-30)).astype(np.float32).clip(UNUSED_LOGPROB),
        kind=np.where(is_soft, Kind.TRANSFERRED, Kind.ONE_HOT).astype(np.int32),
        reason=np.where(is_soft, Reason.NONE, Reason.NO_LOGPROBS).astype(np.int32),
    )


# A token with the teacher's distribution, and one without (tail -1).
EXAMPLE = example([7, 1], soft([[7, 9], [1, 0]], [[0.6, 0.2], [1.0, 0.0]], [0.2, -1]))


@pytest.mark.parametrize(("tail", "first"), [("renormalize", [0.75, 0.25]), ("drop", [0.6, 0.2])])
def test_a_row_token_by_token(tokenizer, tail, first):
    done = exporters.to_axolotl([EXAMPLE], tokenizer, tail=tail, bos_id=5)
    (row,) = done.table.to_pylist()
    prompt = [5, *tokenizer.encode("Q: Ann has 3 pens?\nLet's think step by step")]
    before = len(prompt) - 1  # rows that predict tokens of the prompt
    assert row["input_ids"] == [*prompt, 7, 1]
    assert row["attention_mask"] == [1] * (len(prompt) + 2)
    assert row["labels"] == [-100] * len(prompt) + [7, 1]
    assert row["target_token_ids"] == [[0, 0]] * before + [[7, 9], [1, 0], [0, 0]]
    assert row["target_mask"] == [[0, 0]] * before + [[1, 1], [1, 0], [0, 0]]
    assert row["target_logprobs"][:before] == [[UNUSED, UNUSED]] * before
    assert np.exp(row["target_logprobs"][before]) == pytest.approx(first, rel=1e-6)
    assert row["target_logprobs"][before + 1 :] == [[0.0, UNUSED], [UNUSED, UNUSED]]
    assert (done.transferred, done.one_hots, round(done.tail, 6)) == (1, 1, 0.2)


def their_loss(row, logits):
    """Axolotl's forward KL of a row, entry by entry: row `t` against the logits at `t`."""
    total = 0.0
    for t, log_q in enumerate(map(dense.log_softmax, logits)):
        fields = (row[f"target_{name}"][t] for name in ("token_ids", "logprobs", "mask"))
        for token, log_p, is_used in zip(*fields, strict=True):
            total += is_used * np.exp(log_p) * (log_p - log_q[token]) if is_used else 0.0
    return total


@pytest.mark.parametrize("tail", exporters.TAILS)
def test_their_loss_is_ours(tokenizer, tail):
    rng = np.random.default_rng(0)
    targets, drawn = dense.random_targets(rng, 24, 40, 5)
    kept = drawn.kind != Kind.PAD
    targets, drawn = targets[kept], SparseTargets(*(value[kept] for value in drawn))
    is_soft = drawn.kind == Kind.TRANSFERRED
    ids = np.where(is_soft[:, None], drawn.ids, 0)
    ids[:, 0] = np.where(is_soft, ids[:, 0], targets)
    logprobs = np.where(is_soft[:, None], drawn.logprobs, UNUSED_LOGPROB)
    logprobs[:, 0] = np.where(is_soft, logprobs[:, 0], 0.0)
    drawn = drawn._replace(ids=ids, logprobs=logprobs)
    row = exporters.to_axolotl([example(targets, drawn)], tokenizer, tail=tail).table.to_pylist()[0]
    logits = rng.normal(size=(len(row["input_ids"]), 40))
    first = len(row["input_ids"]) - len(targets) - 1
    rule = losses.Rule(tail=tail)
    ours = sum(
        dense.token_loss(logits[first + s], targets[s], drawn, s, rule) for s in range(len(targets))
    )
    # Ours adds 1e-10 inside the logarithms where the tail is dropped.
    assert their_loss(row, logits) == pytest.approx(ours, rel=1e-5)
    assert their_loss(row, np.roll(logits, 1, axis=0)) != pytest.approx(ours, rel=1e-2)


def test_the_prompt_is_that_of_the_mixture(tokenizer):
    (row,) = exporters.to_axolotl([EXAMPLE], tokenizer).table.to_pylist()
    shown = formats.render_inputs(Format.ZERO_SHOT_CHAIN_OF_THOUGHT, EXAMPLE["question"])
    assert row["input_ids"][:-2] == tokenizer.encode(shown)


def test_no_rows_make_an_empty_table(tokenizer):
    done = exporters.to_axolotl([], tokenizer)
    assert done.table.num_rows == 0 and done.table.schema == exporters.AXOLOTL_SCHEMA


def test_bad_settings_say_what_was_expected(tokenizer):
    with pytest.raises(ValueError, match="renormalize, drop, got 'bucket'"):
        exporters.to_axolotl([EXAMPLE], tokenizer, tail="bucket")
    with pytest.raises(ValueError, match=r"bos_id must be in \[0, 128\), got 128"):
        exporters.to_axolotl([EXAMPLE], tokenizer, bos_id=128)


def test_a_prompt_without_tokens_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "encode", lambda text: [])
    with pytest.raises(SchemaError, match="a/1/0: the prompt has no tokens"):
        exporters.to_axolotl([EXAMPLE], tokenizer)
