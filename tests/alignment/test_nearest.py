"""The nearest piece of a vocabulary against the plain-Python search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment, tokenizers
from specialize_jax.alignment import nearest, reference_transfer
from tests.real_data import data_dir

# Short alphabets, so that distances tie; every length class and beyond.
_WORD = st.one_of(
    st.text(alphabet="ab\u2581é\n", max_size=10),
    st.sampled_from([4, 9, 17, 33, 40]).flatmap(
        lambda n: st.text(alphabet="ab", min_size=n, max_size=n)
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(_WORD, max_size=7), st.lists(_WORD, min_size=1, max_size=12))
def test_equal_to_the_plain_search(strings, pieces):
    found = nearest.nearest(strings, pieces)
    assert found.dtype == np.int32 and found.shape == (len(strings),)
    expected = [reference_transfer.nearest_piece(string, tuple(pieces)) for string in strings]
    # Places, not pieces: a piece that stands twice is found at its first place.
    assert found.tolist() == [pieces.index(piece) for piece in expected]


def test_more_strings_than_a_block(monkeypatch):
    monkeypatch.setattr(nearest, "_BLOCK", 16)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abc"), size=n)) for n in rng.integers(0, 20, size=70)]
    strings, pieces = words[:50], words[40:]
    expected = [reference_transfer.nearest_piece(string, tuple(pieces)) for string in strings]
    assert [pieces[k] for k in nearest.nearest(strings, pieces)] == expected


def test_a_vocabulary_without_pieces():
    with pytest.raises(ValueError, match="expected at least one piece"):
        nearest.nearest(["a"], [])


def test_soft_map_by_hand():
    pieces = ["</s>", "▁If", "▁In", "If", "12", "▁", "é"]
    found = alignment.SoftMap(pieces)([b" If", "If", b"In", b"\n", b"\xc3\xa9", b"x12"])
    assert found.student_id.tolist() == [1, 3, 2, 5, 6, 4]
    # At the start: ` If` and `If` meet `▁If`; `▁x12` is nearest to `12`, which has no marker.
    assert found.first_id[:, 0].tolist() == [1, 1, 2, 5, 5, -1]
    assert found.first_id[:, 1].tolist() == [-1, 3, -1, -1, 6, 4]


def test_soft_map_looks_for_a_string_once(monkeypatch):
    asked = []

    def count(strings, pieces):
        asked.extend(strings)
        return nearest_of_all(strings, pieces)

    nearest_of_all = nearest.nearest
    monkeypatch.setattr(nearest, "nearest", count)
    soft_map = alignment.SoftMap(["▁a", "b"])
    first, again = soft_map([b" a", b"c"]), soft_map([b"c", b" a", b"c"])
    assert sorted(asked) == ["c", "▁a", "▁c"]
    assert again.student_id.tolist() == first.student_id[[1, 0, 1]].tolist()


def test_t5():
    """As the authors' `find_best_mapping` says; the last two are its faults."""
    t5 = tokenizers.load(data_dir() / "tokenizer_t5" / "spiece.model")
    pieces = t5.pieces(range(t5.vocab_size))
    strings = ["▁the", "▁mentions", "▁Brah", "730", "Sum", "\n", "~~~~"]
    found = [pieces[k] for k in nearest.nearest(strings, pieces)]
    assert found == ["▁the", "▁mention", "▁Bra", "▁30", "um", "▁", "</s>"]
