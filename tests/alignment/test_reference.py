"""The oracle itself, on cases small enough to check by hand."""

import doctest

import pytest

from specialize_jax import alignment
from specialize_jax.alignment import reference, reference_transfer
from specialize_jax.schemas import Reason


def test_docstring_examples():
    assert doctest.testmod(reference).failed == 0


def test_example_of_the_design():
    pairs = alignment.align(["If", " Nat", "alia"], ["▁If", "▁Nat", "alia"])
    assert pairs == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    "token, expected",
    [
        (" the", "the"),
        ("▁the", "the"),
        ("a b", "ab"),
        ("\n", "\n"),
        (b" caf\xc3\xa9", "café"),
        (b"\xc3", "\ufffd"),
        (b"\xe2\x96\x81", ""),
    ],
)
def test_surface(token, expected):
    assert reference.surface(token) == expected


@pytest.mark.parametrize(
    "a, b, expected",
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("é", "e\u0301", 2)],
)
def test_levenshtein(a, b, expected):
    assert reference.levenshtein(a, b) == expected
    assert reference.levenshtein(b, a) == expected


def test_ties_prefer_the_diagonal_then_the_teacher_then_the_student():
    # All costs 0: diagonals from the end, and what is left goes to the first token.
    assert reference.dtw([[0, 0], [0, 0], [0, 0]], 3, 2) == (0, [(0, 2), (2, 3)])
    assert reference.dtw([[0, 0, 0], [0, 0, 0]], 2, 3) == (0, [(0, 1), (0, 1), (1, 2)])
    # At the last cell above and left tie, below the diagonal: up to (1, 2), diagonal to (0, 1).
    costs = [[0, 0, 9], [0, 5, 0], [9, 0, 0]]
    assert reference.dtw(costs, 3, 3) == (0, [(0, 1), (0, 1), (1, 3)])


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ((0, 0), (0, [])),
        ((0, 2), (reference.INT32_MAX, [(0, 0), (0, 0)])),
        ((2, 0), (reference.INT32_MAX, [])),
    ],
)
def test_empty_sides(lengths, expected):
    assert reference.dtw([[5, 5], [5, 5]], *lengths) == expected


def test_one_to_one_copies_without_renormalising_and_drops_foreign_strings():
    candidates = [[(" a", 0.6), (" a", 0.6), (" b", 0.2), (" zz", 0.1)], [("c", 1.0)]]
    vocabulary = {"▁a": 5, "▁b": 6, "▁c": 7}
    first, second = reference_transfer.one_to_one([" a", "c"], ["▁a", "▁c"], candidates, vocabulary)
    assert first == ({"▁a": 0.6, "▁b": 0.2}, Reason.NONE)
    assert second == ({"▁c": 1.0}, Reason.DIFFERENT_STRING)


@pytest.mark.parametrize("align", [reference.align, lambda t, s: alignment.align_batch([t], [s])])
def test_ids_are_no_tokens(align):
    with pytest.raises(TypeError, match="tokens must be str or bytes, not ids, got 7"):
        align(["If", 7], ["If"])
