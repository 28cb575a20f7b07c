"""Token lists to paths: slices, chunks and cell types change nothing."""

import numpy as np
import pytest

from specialize_jax import alignment
from specialize_jax.alignment import batch, reference


def _lists(seed, number, longest, words):
    rng = np.random.default_rng(seed)
    return [list(rng.choice(words, size=n)) for n in rng.integers(0, longest + 1, size=number)]


def _assert_equal_to_reference(teacher, student):
    path = alignment.align_batch(teacher, student)
    for b, (t, s) in enumerate(zip(teacher, student, strict=True)):
        total, ranges = reference.dtw(reference.costs(t, s), len(t), len(s))
        assert path.total_cost[b] == total
        got = list(zip(path.teacher_start[b].tolist(), path.teacher_end[b].tolist(), strict=True))
        assert got == ranges + [(0, 0)] * (path.teacher_start.shape[1] - len(s))
    assert path.certified.all()


def test_equal_to_reference_over_chunks_and_slices(monkeypatch):
    monkeypatch.setattr(batch, "_CHUNK", 30)
    monkeypatch.setattr(batch, "_LARGEST_SLICE", 16)
    words = ["a", " ab", "▁abc", "", "12", "▁1", "2.", "\n"]
    _assert_equal_to_reference(_lists(0, 45, 20, words), _lists(1, 45, 20, words))


def test_equal_to_the_two_functions_it_stands_for():
    teacher, student = _lists(2, 9, 7, ["a", "ab", "b"]), _lists(3, 9, 8, ["a", "ba", "b"])
    costs = alignment.edit_distance_costs(teacher, student)
    lengths = [np.array([len(tokens) for tokens in side]) for side in (teacher, student)]
    expected = alignment.dtw(costs, *lengths)
    path = alignment.align_batch(teacher, student)
    for name in ("total_cost", "teacher_start", "teacher_end", "certified"):
        np.testing.assert_array_equal(getattr(path, name), getattr(expected, name))


def test_costs_too_large_for_int16_cells_and_int8_distances():
    words = ["a", "b" * 1000, "c" * 7, "a" * 1200]
    _assert_equal_to_reference(_lists(4, 3, 9, words), _lists(5, 3, 9, words))


def test_long_examples_make_small_slices(monkeypatch):
    monkeypatch.setattr(batch, "_SLICE_CELLS", 64)
    _assert_equal_to_reference(_lists(6, 5, 9, ["a", "b"]), _lists(7, 5, 9, ["a", "b"]))


def test_one_compilation_per_length_bucket():
    """Ragged batches of 17 to 32 examples whose longest lists round to the same width."""
    rng = np.random.default_rng(8)
    words = [" a", "ab", "▁b", "2"]
    programs = batch._look_up, batch._wavefront
    for program in programs:
        program.clear_cache()
    for number, longest in ((17, 48), (32, 33), (20, 40), (25, 47)):
        teacher, student = (_lists(rng.integers(99), number, longest, words) for _ in "ts")
        teacher[3] = (words * 12)[:longest]
        alignment.align_batch(teacher, student)
    assert [program._cache_size() for program in programs] == [1, 1]


@pytest.mark.parametrize("number", [0, 2])
def test_nothing_to_align(number):
    path = alignment.align_batch([[]] * number, [[]] * number)
    assert path.total_cost.tolist() == [0] * number
    assert path.teacher_start.shape == (number, 0)


def test_different_numbers_of_lists():
    with pytest.raises(ValueError, match="got 2 and 1 lists"):
        alignment.align_batch([["a"], ["b"]], [["a"]])
