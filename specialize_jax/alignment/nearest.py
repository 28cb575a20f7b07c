"""Which student token each teacher string is taken for in the mode `soft`: the nearest.

Letters: `M` strings, `V` student tokens.
"""

from collections.abc import Sequence

import numpy as np

from specialize_jax.alignment.costs import fill_table, sorted_by_length, table_dtype
from specialize_jax.alignment.reference import MARKER, as_piece
from specialize_jax.alignment.types import VocabularyMap

# Strings per table of distances: 16 MB for a vocabulary of 32,000.
_BLOCK = 512


def nearest(strings: Sequence[str], pieces: Sequence[str]) -> np.ndarray:
    """Finds the piece at the least edit distance from each string.

    Distances count code points, markers included. The first of the nearest counts, so a string that
    is a piece is its own nearest. Costs `M * V` distances for the `M` strings that are no piece,
    in blocks; the tokens of a record are few, a whole vocabulary takes minutes.

    Args:
      strings: `M`.
      pieces: `V` >= 1, in order of their ids.

    Returns:
      [M] int32, places in `pieces`.

    Raises:
      ValueError: no pieces.
    """
    if not pieces:
        raise ValueError("expected at least one piece to be nearest, got none")
    known = dict(zip(reversed(pieces), range(len(pieces) - 1, -1, -1), strict=True))
    found = np.array([known.get(string, -1) for string in strings], np.int32)
    missing = np.flatnonzero(found < 0)
    order, texts = sorted_by_length(pieces)
    rank = np.argsort(order)
    for start in range(0, len(missing), _BLOCK):
        places = missing[start : start + _BLOCK]
        by_length, words = sorted_by_length([strings[place] for place in places])
        table: np.ndarray = np.empty((len(texts), len(words)), table_dtype(words, texts))
        fill_table(table, words, texts)
        # Rows back in the order of ids, so that `argmin` finds the first.
        found[places[by_length]] = table[rank].argmin(axis=0)
    return found


class SoftMap:
    """Finds the student token that each teacher string is taken for, and remembers it.

    A string that is no piece is taken for the nearest, the lowest id where several are; the whole
    vocabulary takes part, control pieces and extra ids too, as published.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        """Reads a vocabulary.

        Args:
          pieces: `V` tokens as `tokenizers.Tokenizer.pieces` gives them, in order of their ids.
        """
        self._pieces = list(map(as_piece, pieces))
        self._found: dict[str, int] = {}

    def __call__(self, strings: Sequence[str | bytes]) -> VocabularyMap:
        """Returns what each teacher string is taken for, inside a text and at its start.

        Args:
          strings: `M` tokens; bytes are read as UTF-8 with U+FFFD for what is not valid.
        """
        plain = list(map(as_piece, strings))
        # At the start a string without a space stands for one with it, before a marked token.
        marked = [word if word.startswith(MARKER) else MARKER + word for word in plain]
        student_id, marked_id = self._nearest(plain), self._nearest(marked)
        is_marked = np.array([piece.startswith(MARKER) for piece in self._pieces])
        first_id = [
            np.where(is_marked[marked_id], marked_id, -1),
            np.where(is_marked[student_id], -1, student_id),
        ]
        return VocabularyMap(student_id, np.stack(first_id, axis=1).astype(np.int32))

    def _nearest(self, strings: Sequence[str]) -> np.ndarray:
        new = [string for string in dict.fromkeys(strings) if string not in self._found]
        self._found.update(zip(new, nearest(new, self._pieces).tolist(), strict=True))
        return np.array([self._found[string] for string in strings], np.int32)
