"""The jitted dynamic program against the plain-Python one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment
from specialize_jax.alignment import cells, dp, reference

LENGTHS = (0, 1, 2, 4, 8, 16)


def assert_equal_to_reference(path, costs, teacher_lengths, student_lengths):
    """Compares every example, and checks that positions behind the length are zero."""
    for b, (n, m) in enumerate(zip(teacher_lengths, student_lengths, strict=True)):
        total, ranges = reference.dtw(costs[b].tolist(), int(n), int(m))
        assert int(path.total_cost[b]) == total
        got = list(zip(path.teacher_start[b].tolist(), path.teacher_end[b].tolist(), strict=True))
        assert got == ranges + [(0, 0)] * (costs.shape[2] - int(m))
    assert np.all(path.certified)


@pytest.mark.parametrize("high", [1, 2, 12])  # 1: nothing but ties
def test_every_pair_of_lengths(high):
    lengths = np.array(list(itertools.product(LENGTHS, LENGTHS)))
    costs = np.random.default_rng(high).integers(0, high, (len(lengths), 16, 16))
    path = alignment.dtw(costs, lengths[:, 0], lengths[:, 1])
    assert_equal_to_reference(path, costs, lengths[:, 0], lengths[:, 1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=2 * 6 * 5, max_size=2 * 6 * 5),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=2, max_size=2),
)
def test_ties_and_ragged_lengths(values, lengths):
    costs = np.reshape(values, (2, 6, 5))
    teacher, student = np.transpose(lengths)
    assert_equal_to_reference(alignment.dtw(costs, teacher, student), costs, teacher, student)


@pytest.mark.parametrize(
    "shape", [(3, 0, 4), (3, 4, 0), (3, 0, 0), (0, 4, 4), (2, 1, 9), (2, 9, 1)]
)
def test_narrow_shapes(shape):
    costs = np.random.default_rng(0).integers(0, 3, shape)
    teacher, student = np.full(shape[0], shape[1]), np.full(shape[0], shape[2])
    path = alignment.dtw(costs, teacher, student)
    assert path.teacher_start.shape == (shape[0], shape[2])
    assert_equal_to_reference(path, costs, teacher, student)


def test_large_costs():
    costs = np.random.default_rng(0).integers(0, 2**24, (4, 12, 12))
    full = np.full(4, 12)
    assert_equal_to_reference(alignment.dtw(costs, full, full), costs, full, full)


def test_padding_and_neighbours_change_nothing():
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 5, (6, 7, 7))
    teacher, student = rng.integers(0, 8, 6), rng.integers(0, 8, 6)
    whole = alignment.dtw(costs, teacher, student)
    for b in range(6):
        junk = rng.integers(0, 1000, (3, 11, 13))
        junk[1, : teacher[b], : student[b]] = costs[b, : teacher[b], : student[b]]
        lengths = np.array([[11, teacher[b], 2], [13, student[b], 0]])
        path = alignment.dtw(junk, lengths[0], lengths[1])
        assert path.total_cost[1] == whole.total_cost[b]
        np.testing.assert_array_equal(path.teacher_start[1, :7], whole.teacher_start[b])
        np.testing.assert_array_equal(path.teacher_end[1, :7], whole.teacher_end[b])


def test_jit_and_vmap_agree():
    rng = np.random.default_rng(1)
    costs = jnp.asarray(rng.integers(0, 4, (2, 3, 5, 6)))
    teacher, student = (jnp.asarray(rng.integers(0, n + 1, (2, 3))) for n in (5, 6))
    mapped = jax.jit(jax.vmap(alignment.dtw))(costs, teacher, student)
    one_by_one = [alignment.dtw(*args) for args in zip(costs, teacher, student, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    jax.tree.map(np.testing.assert_array_equal, mapped, stacked)


def test_one_compilation_per_shape():
    costs = np.zeros((2, 3, 37), np.int32)  # a shape that no other test uses
    before = dp._dtw._cache_size()
    for lengths in ([0, 3], [1, 2], [3, 3]):
        alignment.dtw(costs + lengths[0], np.array(lengths), np.array(lengths))
    assert dp._dtw._cache_size() == before + 1


def test_int16_cells_equal_int32_up_to_their_limit():
    limit = cells.largest_cell(jnp.int16)
    width = 8
    costs = np.random.default_rng(2).integers(0, limit // (2 * width) + 1, (width, width, 5))
    costs[:, :, 0] = limit // (2 * width)
    lengths = jnp.full(5, width)
    narrow, wide = (
        dp.wavefront(jnp.asarray(costs), lengths, lengths, dtype)
        for dtype in (jnp.int16, jnp.int32)
    )
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)


def test_a_text_against_itself_is_the_identity():
    tokens = ["If", " Nat", "alia", " sold", " 48", " clips", "."]
    costs = alignment.edit_distance_costs([tokens], [tokens])
    path = alignment.dtw(costs, np.array([7]), np.array([7]))
    assert path.total_cost.tolist() == [0]
    assert path.teacher_start.tolist() == [list(range(7))]
    assert path.teacher_end.tolist() == [list(range(1, 8))]


def test_errors_say_what_came():
    costs, lengths = np.zeros((2, 3, 4), np.int32), np.array([1, 1])
    with pytest.raises(ValueError, match="band must be None .* got 0"):
        alignment.dtw(costs, lengths, lengths, band=0)
    with pytest.raises(TypeError, match="integers, got float32"):
        alignment.dtw(costs.astype(np.float32), lengths, lengths)
    with pytest.raises(ValueError, match=r"\[B, T, S\], got shape \(3, 4\)"):
        alignment.dtw(costs[0], lengths, lengths)
    with pytest.raises(ValueError, match=r"student_lengths must be \[B\] = \(2,\), got shape \(3,"):
        alignment.dtw(costs, lengths, np.zeros(3, int))


def test_costs_whose_sum_would_not_fit_are_refused():
    costs = np.zeros((2, 4, 4), np.int64)
    costs[1, 2, 3] = 1 << 40
    with pytest.raises(ValueError, match=r"at most 67108863, .* at \[b, i, j\] = \[1, 2, 3\]"):
        alignment.dtw(costs, np.array([4, 4]), np.array([4, 4]))
    assert alignment.dtw(costs, np.array([4, 2]), np.array([4, 4])).total_cost.tolist() == [0, 0]
    costs[1, 2, 3] = 67108863
    assert alignment.dtw(costs, np.array([4, 4]), np.array([4, 4])).total_cost.tolist() == [0, 0]
    path = alignment.dtw(np.full((1, 4, 4), 67108863), np.array([4]), np.array([4]))
    assert path.total_cost.tolist() == [4 * 67108863]
