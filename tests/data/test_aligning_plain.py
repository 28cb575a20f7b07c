"""The per-part function of the offline job, mode `marginal`, on made-up and on real records."""

import numpy as np
import pytest
from etils import epath

from specialize_jax import tokenizers
from specialize_jax.data.aligning import plain
from specialize_jax.schemas import Kind, Reason, aligned
from specialize_jax.teacher import importers
from tests.real_data import data_dir

_COLUMNS = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")


@pytest.fixture(scope="module")
def data():
    return epath.Path(data_dir())


@pytest.fixture(scope="module")
def t5(data):
    return tokenizers.load(data / "tokenizer_t5" / "spiece.model")


@pytest.fixture(scope="module")
def rows(data):
    found = importers.SOURCES["codex_top5_steps"].rows(data)
    return [row for row in found if not isinstance(row, str)]


def test_marginal_rows_hold_what_expand_says(rows, t5):
    examples = plain.align_rows(rows[:5], t5, mode="marginal", k_out=40)
    segmenter = tokenizers.Segmenter(t5)
    for row, example in zip(rows[:5], examples, strict=True):
        aligned.check_soft(example.soft, example.targets, "here")
        ids, spans = t5.encode_with_spans(example.text["targets_pretokenized"])
        votes = tokenizers.expand(plain.recorded(row), [*ids, 1], spans, segmenter)
        assert example.targets.tolist() == [*ids, 1]
        assert np.all(example.soft.kind == Kind.TRANSFERRED)
        np.testing.assert_allclose(
            np.exp(example.soft.tail_logprob), votes.tail / (1 - votes.dropped), atol=1e-6
        )
        # Each student token's range of teacher tokens holds its bytes, the last one the end's.
        tokens = row["token_bytes"][row["target_token_start"] : row["target_token_end"]]
        for (start, end), (begin, stop) in zip(example.ranges, spans, strict=False):
            text = b"".join(tokens)
            first = len(b"".join(tokens[:start]))
            assert text[begin:stop] in b"".join(tokens[start:end])
            assert first <= begin < stop <= len(b"".join(tokens[:end]))


def test_end_of_sequence_is_transferred_and_a_cut_text_has_none(rows, t5):
    whole = plain.align_rows(rows[:1], t5, mode="marginal", k_out=8)[0]
    assert whole.targets[-1] == t5.eos_id == whole.soft.ids[-1, 0]
    assert whole.soft.kind[-1] == Kind.TRANSFERRED
    cut = rows[0] | {"finish_reason": "length"}
    example = plain.align_rows([cut], t5, mode="marginal", k_out=8)[0]
    assert example.targets.tolist() == whole.targets.tolist()[:-1]


def test_terminal_candidates_serve_where_the_end_was_not_written(rows, t5):
    row = rows[0]
    end = row["target_token_end"]
    short = row | {name: row[name][:end] for name in _COLUMNS}
    short["completion"] = b"".join(short["token_bytes"]).decode()
    example = plain.align_rows([short], t5, mode="marginal", k_out=8)[0]
    assert example.soft.kind[-1] == Kind.TRANSFERRED and example.soft.ids[-1, 0] == t5.eos_id
    none = short | {"terminal_bytes": None, "terminal_logprobs": None}
    example = plain.align_rows([none], t5, mode="marginal", k_out=8)[0]
    assert example.soft.reason[-1] == Reason.END_OF_SEQUENCE


def test_a_last_token_that_holds_the_end_votes_for_it(rows, t5):
    """`.` and two newlines in one token: what follows the full stop is the end of the text."""
    row = rows[0]
    end = row["target_token_end"]
    columns = {name: [*row[name][: end - 1], row[name][end - 1]] for name in _COLUMNS}
    last = b".\n\n"
    columns["token_bytes"][-1] = last
    columns["topk_bytes"][-1], columns["topk_logprobs"][-1] = [last, b".\n"], [-0.1, -3.0]
    columns["token_logprobs"][-1] = -0.1
    row = row | columns | {"terminal_bytes": None, "terminal_logprobs": None}
    row["completion"] = b"".join(columns["token_bytes"]).decode()
    example = plain.align_rows([row], t5, mode="marginal", k_out=8)[0]
    assert (example.soft.kind[-1], example.soft.ids[-1, 0]) == (Kind.TRANSFERRED, t5.eos_id)
    # `.` and one newline may go on.
    ends = np.exp(-0.1), np.exp(-3.0)
    assert np.exp(example.soft.logprobs[-1, 0]) == pytest.approx(ends[0], rel=1e-5)


def test_a_record_without_logprobs_stays_a_one_hot(rows, t5):
    row = rows[0]
    bare = row | {name: [] for name in ("topk_bytes", "topk_logprobs", "token_bytes")}
    bare |= {"token_logprobs": [], "target_token_start": 0, "target_token_end": 0}
    example = plain.align_rows([bare], t5, mode="marginal", k_out=8)[0]
    assert np.all(example.soft.reason == Reason.NO_LOGPROBS)


def test_marginal_needs_a_sentencepiece_student(rows, data):
    gpt = tokenizers.load(data / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    with pytest.raises(ValueError, match="needs a SentencePiece student, got 'p50k_base'"):
        plain.align_rows(rows[:1], gpt, mode="marginal", k_out=8)
