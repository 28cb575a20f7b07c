"""Votes to sparse targets: the jitted arrays part against plain Python."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment, tokenizers
from specialize_jax.alignment import Votes
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason
from tests.fixtures.greedy import Greedy


def _transfer(votes, student_ids, **options):
    targets = alignment.transfer(None, votes, None, student_ids, mode="marginal", **options)
    return jax.tree.map(np.asarray, targets)


def _entries(targets, row, position):
    used = targets.logprobs[row, position] > UNUSED_LOGPROB
    ids, logprobs = (value[row, position][used] for value in (targets.ids, targets.logprobs))
    assert not targets.ids[row, position][~used].any()
    assert list(logprobs) == sorted(logprobs, reverse=True)
    return dict(zip(ids.tolist(), np.exp(logprobs), strict=True))


def test_docstring_example():
    student = Greedy(
        ["\u2581In", "\u2581Indeed", "\u2581He", "\u2581total", "\u2581", "\u25811", "2", "20", "."]
    )
    recorded = tokenizers.Recorded(
        [b"In", b" total", b" 12", b".", b"\n\n"],
        [
            {b"In": 0.6, b"He": 0.3},
            {b" total": 0.8, b"deed": 0.1},
            {b" 12": 1.0},
            {b".": 0.5, b"0": 0.5},
            {b"\n\n": 1.0},
        ],
        stop=b"\n\n",
    )
    ids, spans = student.encode_with_spans("In total 12.")
    ids.append(student.eos_id)
    assert student.pieces(ids) == ["\u2581In", "\u2581total", "\u25811", "2", ".", "</s>"]
    found = tokenizers.expand(recorded, ids, spans, tokenizers.Segmenter(student))
    assert found.dropped == pytest.approx([0, 0.1, 0, 0, 0.5, 0])
    votes = Votes(*(getattr(found, name)[None] for name in Votes._fields))
    targets = _transfer(votes, np.array([ids]), k_out=3)
    shown = [
        {student.pieces([token])[0]: mass for token, mass in _entries(targets, 0, j).items()}
        for j in range(6)
    ]
    expected = [
        {"\u2581In": 0.54, "\u2581He": 0.3, "\u2581Indeed": 0.06},
        {"\u2581total": 0.8 / 0.9},
        {"\u25811": 1.0},
        {"2": 0.5, "20": 0.5},
        {".": 1.0},
        {"</s>": 1.0},
    ]
    for position, (got, wanted) in enumerate(zip(shown, expected, strict=True)):
        assert got == pytest.approx(wanted, rel=1e-5), position
    tail = np.exp(targets.tail_logprob[0])
    np.testing.assert_allclose(tail, [0.1, 0.1 / 0.9, 0, 0, 0, 0], atol=1e-6)
    assert np.all(targets.kind == Kind.TRANSFERRED) and not targets.reason.any()


def _plain(ids, mass, tail, dropped, k_out):
    """The rule, one position, in plain Python: entries and the tail."""
    summed = {}
    for token, value in zip(ids, mass, strict=True):
        if value > 0:
            summed[token] = summed.get(token, 0.0) + value
    best = sorted(summed.items(), key=lambda item: -item[1])[:k_out]
    entries = {token: value / (1 - dropped) for token, value in best}
    return entries, 1 - math.fsum(entries.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), min_size=4, max_size=4),
            st.integers(1, 99),
            st.integers(0, 99),
            st.sampled_from([0, 0, 0, Reason.NO_MASS, Reason.INSIDE_SEGMENT]),
        ),
        min_size=5,
        max_size=5,
    ),
    st.integers(0, 5),
    st.integers(1, 6),
)
def test_equals_the_plain_rule(positions, length, k_out):
    pairs = np.array([[pair for pair in votes] for votes, *_ in positions], float)
    totals = pairs[..., 1].sum(-1) + [t + d for _, t, d, _ in positions]
    votes = Votes(
        ids=pairs[..., 0].astype(np.int32)[None],
        mass=(pairs[..., 1] / totals[:, None])[None],
        tail=np.array([[t for _, t, _, _ in positions]]) / totals,
        dropped=np.array([[d for _, _, d, _ in positions]]) / totals,
        reason=np.array([[r for *_, r in positions]], np.int32),
    )
    student_ids = np.arange(7, 12)[None]
    targets = _transfer(votes, student_ids, k_out=k_out, student_lengths=np.array([length]))
    for j in range(5):
        reason = int(votes.reason[0, j]) if j < length else 0
        assert targets.reason[0, j] == reason
        kind = Kind.PAD if j >= length else Kind.ONE_HOT if reason else Kind.TRANSFERRED
        assert targets.kind[0, j] == kind
        entries = _entries(targets, 0, j)
        tail = np.exp(targets.tail_logprob[0, j])
        if kind == Kind.TRANSFERRED:
            expected, left = _plain(*(v[0, j] for v in votes[:4]), k_out)
            # Which of several equal ids is kept is open; their masses are not.
            assert sorted(entries.values()) == pytest.approx(sorted(expected.values()), rel=1e-5)
            ids, mass = votes.ids[0, j], votes.mass[0, j]
            for token, value in entries.items():
                kept = mass[ids == token].sum() / (1 - votes.dropped[0, j])
                assert value == pytest.approx(kept, rel=1e-5)
            assert tail == pytest.approx(left, abs=2e-6)
        else:
            assert entries == ({} if kind == Kind.PAD else {int(student_ids[0, j]): 1.0})
            assert targets.tail_logprob[0, j] == UNUSED_LOGPROB


def test_padding_and_batch_neighbours_change_nothing():
    votes = Votes(
        ids=np.array([[[3, 4]], [[5, 0]]], np.int32),
        mass=np.array([[[0.5, 0.25]], [[0.5, 0.0]]]),
        tail=np.array([[0.25], [0.5]]),
        dropped=np.zeros((2, 1)),
        reason=np.zeros((2, 1), np.int32),
    )
    together = _transfer(votes, np.array([[3], [5]]), k_out=2)
    wide = Votes(*(np.pad(v, [(0, 0), (0, 2)] + [(0, 3)] * (v.ndim - 2)) for v in votes))
    padded = _transfer(wide, np.array([[3, 0, 0], [5, 0, 0]]), k_out=2, student_lengths=[1, 1])
    for one, other in zip(together, padded, strict=True):
        np.testing.assert_array_equal(one, other[:, :1])
    for row in range(2):
        alone = _transfer(Votes(*(v[row : row + 1] for v in votes)), [[3 + 2 * row]], k_out=2)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], other[row])


def test_runs_inside_jit():
    votes = Votes(
        ids=np.array([[[3, 3, 4]]], np.int32),
        mass=np.array([[[0.25, 0.25, 0.25]]]),
        tail=np.array([[0.0]]),
        dropped=np.array([[0.25]]),
        reason=np.array([[0]], np.int32),
    )
    inside = jax.jit(lambda votes: _raw(votes, np.array([[3]])))(jax.tree.map(np.float32, votes))
    outside = _transfer(votes, np.array([[3]]), k_out=2)
    assert _entries(outside, 0, 0) == pytest.approx({3: 2 / 3, 4: 1 / 3})
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def _raw(votes, student_ids):
    votes = votes._replace(ids=votes.ids.astype(int), reason=votes.reason.astype(int))
    return alignment.transfer(None, votes, None, student_ids, mode="marginal", k_out=2)


def test_errors_say_what_came():
    good = Votes(
        ids=np.array([[[3]]], np.int32),
        mass=np.array([[[0.5]]]),
        tail=np.array([[0.5]]),
        dropped=np.array([[0.0]]),
        reason=np.array([[0]], np.int32),
    )
    with pytest.raises(ValueError, match="needs Votes for candidates, got VocabularyMap"):
        _transfer(alignment.VocabularyMap(good.ids), np.array([[3]]))
    with pytest.raises(ValueError, match=r"with \[B, S\] = \(1, 2\)"):
        _transfer(good, np.array([[3, 3]]))
    with pytest.raises(ValueError, match="row 0, position 0: expected votes.*got 0.9000000"):
        _transfer(good._replace(tail=np.array([[0.4]])), np.array([[3]]))
    with pytest.raises(ValueError, match="row 0, position 0: expected votes.*got nan"):
        _transfer(good._replace(tail=np.array([[math.nan]])), np.array([[3]]))
    with pytest.raises(ValueError, match="mode 'one_to_one' needs a path"):
        alignment.transfer(None, good, None, np.array([[3]]))
