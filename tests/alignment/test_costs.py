"""Vectorised edit distances against the plain-Python ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment
from specialize_jax.alignment import reference

# Every length class and its borders, characters outside ASCII, NUL, a lone surrogate, markers.
_TEXT = st.one_of(
    st.text(alphabet="ab \u2581é\0\U0001f600\ud800\n", max_size=12),
    st.sampled_from([4, 5, 8, 9, 16, 17, 32, 33, 130]).flatmap(
        lambda n: st.text(alphabet="ab", min_size=n, max_size=n)
    ),
)
_TOKEN = st.one_of(_TEXT, st.binary(max_size=6))


def _assert_equal_to_reference(teacher, student):
    costs = alignment.edit_distance_costs(teacher, student)
    assert costs.dtype == np.int32
    expected = np.zeros_like(costs)
    for b, (t, s) in enumerate(zip(teacher, student, strict=True)):
        expected[b, : len(t), : len(s)] = np.reshape(reference.costs(t, s), (len(t), len(s)))
    np.testing.assert_array_equal(costs, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(_TOKEN, max_size=4), st.lists(_TOKEN, max_size=4)), max_size=3))
def test_equal_to_reference(pairs):
    _assert_equal_to_reference([t for t, _ in pairs], [s for _, s in pairs])


def test_more_surfaces_than_a_tile(monkeypatch):
    monkeypatch.setattr("specialize_jax.alignment.costs._TILE_ROWS", 16)
    monkeypatch.setattr("specialize_jax.alignment.costs._TILE_COLUMNS", 32)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abc"), size=n)) for n in rng.integers(0, 20, size=90)]
    _assert_equal_to_reference([words[:50], words[20:60]], [words[30:], words[:45]])


def test_shapes_of_empty_batches():
    assert alignment.edit_distance_costs([], []).shape == (0, 0, 0)
    assert alignment.edit_distance_costs([[]], [["a"]]).shape == (1, 0, 1)


def test_different_numbers_of_lists():
    with pytest.raises(ValueError, match="got 1 and 2 lists"):
        alignment.edit_distance_costs([["a"]], [["a"], ["b"]])
