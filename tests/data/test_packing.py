"""Packing loses, shifts and changes nothing, whatever the values inside an example are."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax.data import packing
from specialize_jax.data.packing import Example, Lengths
from specialize_jax.schemas import UNUSED_LOGPROB, Format, Kind, Reason, SparseTargets, batches

K = 3
LENGTHS = Lengths(inputs=12, targets=8)
VOCAB = 50


@st.composite
def examples(draw):
    """Examples full of what a packer that counts non-zeros would trip over."""
    n = draw(st.integers(1, LENGTHS.inputs))
    m = draw(st.integers(1, LENGTHS.targets))
    ints = st.integers(0, VOCAB - 1)
    numbers = st.sampled_from([0.0, -0.25, -3.5, UNUSED_LOGPROB])
    fmt = draw(st.sampled_from(list(Format)))
    kinds = [Kind.TRANSFERRED, Kind.ONE_HOT] if fmt.is_chain_of_thought else [Kind.ANSWER_ONLY]

    def array(values, count, dtype):
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype)

    soft = SparseTargets(
        ids=array(ints, m * K, np.int32).reshape(m, K),
        logprobs=array(numbers, m * K, np.float32).reshape(m, K),
        tail_logprob=array(numbers, m, np.float32),
        kind=array(st.sampled_from(kinds), m, np.int32),
        reason=np.zeros(m, np.int32),
    )
    return Example(array(ints, n, np.int32), array(ints, m, np.int32), soft, fmt)


def fingerprint(example):
    arrays = [example.inputs, example.targets, *example.soft]
    return (int(example.format), *(np.ascontiguousarray(a).tobytes() for a in arrays))


@settings(max_examples=150, deadline=None)
@given(st.lists(examples(), max_size=12), st.integers(1, 4))
def test_packed_rows_hold_the_same_examples(stream, window):
    rows = list(packing.pack(stream, LENGTHS, K, window=window))
    found = [example for row in rows for example in packing.unpack(row)]
    assert collections.Counter(map(fingerprint, found)) == collections.Counter(
        map(fingerprint, stream)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(examples(), min_size=1, max_size=8))
def test_packed_rows_satisfy_the_batch_contract_and_survive_storage(stream):
    layout = batches.fields(*LENGTHS, K, VOCAB)
    rows = list(packing.pack(stream, LENGTHS, K))
    stored = batches.decode_rows([batches.encode_row(row, layout) for row in rows], layout)
    batches.check_batch(stored, layout, "packed")
    for name, value in stored.items():
        np.testing.assert_array_equal(value, np.stack([row[name] for row in rows]), err_msg=name)


@settings(max_examples=50, deadline=None)
@given(st.lists(examples(), min_size=1, max_size=8))
def test_each_segment_starts_from_zero_and_sees_only_its_own_past(stream):
    for row in packing.pack(stream, LENGTHS, K):
        for segment in range(1, row["decoder_segment_ids"].max() + 1):
            there = row["decoder_segment_ids"] == segment
            targets = row["decoder_target_tokens"][there]
            expected = np.concatenate([[0], targets[:-1]])
            np.testing.assert_array_equal(row["decoder_input_tokens"][there], expected)


def example(n, m):
    targets = np.ones(m, np.int32)
    soft = packing.one_hot(targets, K, Kind.ONE_HOT, Reason.NO_LOGPROBS)
    return Example(np.ones(n, np.int32), targets, soft, Format.ZERO_SHOT_CHAIN_OF_THOUGHT)


def test_a_row_takes_what_leaves_the_least_room():
    stream = [example(6, 2), example(6, 7), example(5, 2), example(6, 6), example(1, 1)]
    rows = list(packing.pack(stream, LENGTHS, K))
    # Beside the first (6 + 2) the fourth fills the row; the second (6 + 7) has room for the last.
    assert [(row["decoder_segment_ids"] > 0).sum() for row in rows] == [8, 8, 2]


def test_a_window_of_one_gives_each_example_a_row_and_keeps_the_order():
    sizes = [(1, 2), (3, 1), (2, 2)]
    rows = list(packing.pack([example(*size) for size in sizes], LENGTHS, K, window=1))
    assert [tuple((row[f"{side}_segment_ids"] > 0).sum() for side in ("encoder", "decoder"))
            for row in rows] == sizes  # fmt: skip


def test_too_long_is_refused_and_named():
    targets = np.ones(2, np.int32)
    soft = packing.one_hot(targets, K, Kind.ONE_HOT, Reason.NO_LOGPROBS)
    long = Example(np.ones(13, np.int32), targets, soft, Format.ZERO_SHOT_CHAIN_OF_THOUGHT)
    assert packing.too_long(long, LENGTHS) == "inputs"
    with pytest.raises(ValueError, match="'inputs' of 13 tokens in a row of 12"):
        list(packing.pack([long], LENGTHS, K))
    assert packing.too_long(packing.truncate(long, LENGTHS), LENGTHS) is None


def test_truncation_keeps_the_question_at_the_end_of_the_inputs():
    targets = np.arange(10, dtype=np.int32)
    soft = packing.one_hot(targets, K, Kind.ONE_HOT, Reason.NO_LOGPROBS)
    example = Example(np.arange(20, dtype=np.int32), targets, soft, Format.IN_CONTEXT_ANSWER_ONLY)
    cut = packing.truncate(example, LENGTHS)
    assert cut.inputs.tolist() == list(range(8, 20))
    assert cut.targets.tolist() == list(range(8))
    assert len(cut.soft.ids) == 8


def test_keep_largest_moves_the_rest_to_the_tail():
    soft = SparseTargets(
        ids=np.array([[7, 3, 9]], np.int32),
        logprobs=np.log(np.array([[0.2, 0.5, 0.1]], np.float32)),
        tail_logprob=np.log(np.array([0.2], np.float32)),
        kind=np.array([1], np.int32),
        reason=np.array([0], np.int32),
    )
    kept = packing.keep_largest(soft, 1)
    assert kept.ids.tolist() == [[3]]
    np.testing.assert_allclose(np.exp(kept.logprobs), [[0.5]], rtol=1e-6)
    np.testing.assert_allclose(np.exp(kept.tail_logprob), [0.5], rtol=1e-6)
