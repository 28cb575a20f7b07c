"""Alignment by bytes against the plain-Python one, and what holds of every path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment
from specialize_jax.alignment import reference
from specialize_jax.alignment.offsets import _offsets

INT32_MAX = 2**31 - 1


def spans_of(sizes):
    """Returns spans of these sizes, one behind the other."""
    ends = np.cumsum(sizes, dtype=int)
    return np.stack([ends - sizes, ends], axis=1) if len(sizes) else np.zeros((0, 2), int)


@st.composite
def any_spans(draw):
    """Draws spans that may be empty, overlap and leave bytes out."""
    places = st.integers(0, 9)
    size = draw(st.integers(0, 7))
    starts = sorted(draw(st.lists(places, min_size=size, max_size=size)))
    ends = sorted(draw(st.lists(places, min_size=size, max_size=size)))
    ends = np.maximum(np.array(starts, int), np.array(ends, int))
    return np.stack([np.array(starts, int), ends], axis=1)


# Tokens of one text: empty spans, but no overlap and no gap.
contiguous = st.lists(st.integers(0, 3), max_size=8).map(spans_of)
either = any_spans() | contiguous


def expected(teacher, student):
    return reference.offsets(*([tuple(span) for span in s.tolist()] for s in (teacher, student)))


def row(path, b, length):
    return list(
        zip(
            path.teacher_start[b, :length].tolist(),
            path.teacher_end[b, :length].tolist(),
            strict=True,
        )
    )


@settings(max_examples=400, deadline=None)
@given(either, either)
def test_equal_to_the_reference(teacher, student):
    path = alignment.offsets([teacher], [student])
    total, ranges = expected(teacher, student)
    assert (int(path.total_cost[0]), row(path, 0, len(student))) == (total, ranges)
    assert path.certified.all()


@settings(max_examples=400, deadline=None)
@given(either, either.filter(len))
def test_ranges_are_monotone_gap_free_and_not_empty(student, teacher):
    path = alignment.offsets([teacher], [student])
    starts, ends = path.teacher_start[0], path.teacher_end[0]
    assert np.all((0 <= starts) & (starts < ends) & (ends <= len(teacher)))
    assert np.all(np.diff(starts) >= 0) and np.all(np.diff(ends) >= 0)
    assert np.all(starts[1:] <= ends[:-1]) and np.all(starts[:1] == 0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=9), st.data())
def test_tokens_of_one_text_are_linked_where_they_share_bytes(sizes, data):
    teacher = spans_of(sizes)
    cuts = data.draw(st.sets(st.integers(1, int(sum(sizes)))))
    student = spans_of(np.diff([0, *sorted(cuts | {sum(sizes)})]))
    path = alignment.offsets([teacher], [student])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    assert row(path, 0, len(student)) == [(owner[b], owner[e - 1] + 1) for b, e in student]
    assert path.total_cost[0] == 0
    assert path.teacher_end[0, -1] == len(sizes)


@settings(max_examples=200, deadline=None)
@given(either.filter(len))
def test_equal_tokenisations_give_the_identity(spans):
    path = alignment.offsets([spans], [spans])
    assert row(path, 0, len(spans)) == [(i, i + 1) for i in range(len(spans))]
    assert path.total_cost[0] == 0


@pytest.mark.parametrize(
    ("teacher", "student", "total", "ranges"),
    [
        # T5's marker at the start of the text spans nothing.
        ([(0, 1)], [(0, 0), (0, 1)], 0, [(0, 1), (0, 1)]),
        ([(0, 0), (0, 1)], [(0, 1)], 0, [(0, 2)]),
        # Two pieces share a ligature, the teacher has its three bytes one by one.
        ([(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 3), (0, 3), (3, 4)], 0, [(0, 3), (0, 3), (3, 4)]),
        # The teacher ends with a newline, which T5 drops.
        ([(0, 2), (2, 3)], [(0, 2)], 1, [(0, 1)]),
        # ... and gives to its end-of-sequence token.
        ([(0, 2), (2, 3)], [(0, 2), (2, 3)], 0, [(0, 1), (1, 2)]),
        # An end-of-sequence token that spans nothing.
        ([(0, 2), (2, 3)], [(0, 3), (3, 3)], 0, [(0, 2), (1, 2)]),
        # Bytes that one side leaves out go to what follows.
        ([(0, 1), (1, 2), (2, 3)], [(0, 1), (2, 3)], 1, [(0, 1), (1, 3)]),
        ([(0, 1), (2, 3)], [(0, 1), (1, 2), (2, 3)], 1, [(0, 1), (1, 2), (1, 2)]),
        ([(0, 1)], [(0, 1), (5, 7)], 2, [(0, 1), (0, 1)]),
        ([], [], 0, []),
        ([], [(0, 1)], INT32_MAX, [(0, 0)]),
        ([(0, 1)], [], INT32_MAX, []),
    ],
)
def test_worked_examples(teacher, student, total, ranges):
    path = alignment.offsets([np.array(teacher)], [np.array(student)])
    assert (int(path.total_cost[0]), row(path, 0, len(student))) == (total, ranges)
    assert reference.offsets(teacher, student) == (total, ranges)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(either, either), min_size=1, max_size=5))
def test_neighbours_and_padding_change_nothing(pairs):
    teacher, student = (list(side) for side in zip(*pairs, strict=True))
    whole = alignment.offsets(teacher, student)
    sides = []
    for side, width in ((teacher, 8), (student, 9)):
        junk = np.random.default_rng(0).integers(-5, 99, (5, width, 2))  # no sorted spans either
        for b, spans in enumerate(side):
            junk[b, : len(spans)] = spans
        sides.append((junk, np.array([len(s) for s in side] + [0] * (5 - len(side)))))
    path = alignment.offsets(sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    for b, (one, other) in enumerate(pairs):
        total, ranges = expected(one, other)
        for result in (whole, path):
            assert int(result.total_cost[b]) == total
            assert row(result, b, len(other)) == ranges
            assert not np.any(result.teacher_end[b, len(other) :])


@pytest.mark.parametrize(("t", "s"), [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_narrow_arrays(t, s):
    teacher, student = (np.stack([spans_of([1] * n)] * 2) for n in (t, s))
    path = alignment.offsets(teacher, student)
    assert path.teacher_start.shape == (2, s)
    for b in range(2):
        total, ranges = expected(teacher[b], student[b])
        assert (int(path.total_cost[b]), row(path, b, s)) == (total, ranges)


def test_jit_and_vmap_agree():
    rng = np.random.default_rng(1)
    sides, lengths = [], []
    for width in (7, 6):
        sides.append(
            jnp.array([[spans_of(rng.integers(0, 4, width)) for _ in range(3)] for _ in range(2)])
        )
        lengths.append(jnp.array(rng.integers(0, width + 1, (2, 3))))
    mapped = jax.jit(jax.vmap(alignment.offsets))(*sides, *lengths)
    for n in range(2):
        path = alignment.offsets(sides[0][n], sides[1][n], lengths[0][n], lengths[1][n])
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, n=n: x[n], mapped), path)


def test_one_compilation_per_bucket_of_lists():
    _offsets.clear_cache()
    for count, size in ((3, 17), (4, 32), (3, 20)):
        alignment.offsets([spans_of([1] * size)] * count, [spans_of([2] * 3)] * count)
    assert _offsets._cache_size() == 1


def test_memory_is_linear():
    """No intermediate grows with the product of the two lengths."""
    n = 8192
    spans = jax.ShapeDtypeStruct((1, n, 2), jnp.int32)
    length = jax.ShapeDtypeStruct((1,), jnp.int32)
    compiled = _offsets.lower(spans, length, spans, length).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 200 * n


def test_long_texts():
    """8,192 tokens a side, against the bytes themselves."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 8192)
    total = sizes.sum()
    cuts = np.sort(rng.choice(np.arange(1, total), 8191, replace=False))
    student = spans_of(np.diff([0, *cuts, total]))
    path = alignment.offsets([spans_of(sizes)], [student])
    owner = np.repeat(np.arange(8192), sizes)
    np.testing.assert_array_equal(path.teacher_start[0], owner[student[:, 0]])
    np.testing.assert_array_equal(path.teacher_end[0], owner[student[:, 1] - 1] + 1)
    assert path.total_cost[0] == 0


@pytest.mark.parametrize(
    ("teacher", "student", "lengths", "message"),
    [
        ([[(0, 1)]], [], (None, None), "number of examples, got 1 of the teacher and 0"),
        (
            [[(0, 1), (3, 2)]],
            [[]],
            (None, None),
            r"teacher_spans must .*\[\[0, 1\], \[3, 2\]\] up to token 1",
        ),
        ([[]], [[(0, 4), (1, 3)]], (None, None), r"student_spans must .*\[\[0, 4\], \[1, 3\]\]"),
        ([[(-1, 2)]], [[]], (None, None), r"must start at 0 or later.*\[\[-1, 2\]\]"),
        ([[(0, 1, 2)]], [[]], (None, None), r"teacher_spans must be \[tokens, 2\]"),
        (np.zeros((1, 3, 2), int), [[]], (None, None), "must be lists, or of both sides arrays"),
        ([[(0, 1)], [(5, 6), (4, 7)]], [[], []], (None, None), "up to token 1 of example 1"),
        ([[(0, 1)]], [[]], ([1], None), "lists of spans have their own"),
        (
            np.zeros((1, 2), int),
            np.zeros((1, 0, 2), int),
            (None, None),
            r"must be \[B, tokens, 2\], got .*\(1, 2\)",
        ),
        (
            np.zeros((1, 3, 2), int),
            np.zeros((1, 0, 2), int),
            ([4], None),
            r"must be in \[0, 3\], got 4 for example 0",
        ),
        (
            np.zeros((1, 3, 2), int),
            np.zeros((1, 0, 2), int),
            ([3, 3], None),
            r"must be \[B\] = \(1,\), got .*\(2,\)",
        ),
    ],
)
def test_bad_input(teacher, student, lengths, message):
    with pytest.raises(ValueError, match=message):
        alignment.offsets(teacher, student, *lengths)


@pytest.mark.parametrize("spans", [[[(0.0, 1.0)]], np.zeros((1, 3, 2))])
def test_spans_are_integers(spans):
    with pytest.raises(TypeError, match="teacher_spans must be integers, got float"):
        alignment.offsets(spans, spans)


def test_lists_of_very_different_lengths():
    rng = np.random.default_rng(0)
    sizes = [3, 700, 0, 20, 1, 33, 700]
    teacher, student = ([spans_of(rng.integers(0, 4, n)) for n in sizes[::d]] for d in (1, -1))
    path = alignment.offsets(teacher, student)
    assert path.teacher_start.shape == (7, 700)
    for b, (one, other) in enumerate(zip(teacher, student, strict=True)):
        alone = alignment.offsets(one[None], other[None])
        assert path.total_cost[b] == alone.total_cost[0]
        assert row(path, b, len(other)) == row(alone, 0, len(other))
        assert not path.teacher_end[b, len(other) :].any()


def test_no_examples():
    assert alignment.offsets([], []).teacher_start.shape == (0, 0)
