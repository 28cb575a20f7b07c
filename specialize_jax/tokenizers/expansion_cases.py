"""What candidates say, each case asked of the `Segmenter` once and a number from then on."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from specialize_jax.tokenizers import expansion
from specialize_jax.tokenizers.base import MARKER
from specialize_jax.tokenizers.expansion import Fate, Segmenter

# What a case says: the student's id plus one, and below it the number of a fate or one of these.
_FATES = (Fate.CLOSED, Fate.OPEN, Fate.CONTRADICTS, Fate.OPEN_CONTRADICTS)
OPEN, CONTRADICTS, OPEN_CONTRADICTS, NOT_KEPT, UNKNOWN = range(1, 6)
FATE_BITS, FATE_MASK = 3, 7
# A case in 63 bits: its place, the candidate's string, and two flags.
AT_END, SAMPLED_END = 1, 2
_FLAG_BITS, _FLAG_MASK = 2, 3
_STRING_MASK, _PLACE_SHIFT = (1 << 30) - 1, 32
# How a string begins: with white space and a letter, or with a letter; here any printable ASCII.
_WORD, _LETTER = 1, 2
_SPACED, _LETTERS = re.compile(rb"[ \n][!-~]"), re.compile(rb"[!-~]")
_WHITE = (b"", b" ", b"\n")
_BEGINS_BITS, _BEGINS_MASK = 2, 3


class Table(dict[Any, Any]):
    """Key -> value, made by a function when first asked for."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __missing__(self, key: Any) -> Any:
        value = self[key] = self._make(key)
        return value

    def of(self, keys: np.ndarray) -> np.ndarray:
        """Returns the values [N] int64 of integer keys [N]; Python sees distinct keys only."""
        encoded = pa.array(keys).dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        values = np.fromiter(map(self.__getitem__, distinct), np.int64, len(distinct))
        return values[encoded.indices.to_numpy()]


class _Place(NamedTuple):
    """Where candidates are read: behind a context, and what was followed of the teacher's text."""

    context: bytes
    context_ids: bytes
    stop: bytes | None
    cut: bytes
    written: bytes = b""


class Known:
    """Places, strings and cases of one student as numbers."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        tokenizer = segmenter.tokenizer
        self._places: list[_Place] = []
        self._strings: list[bytes] = []
        self.places = Table(lambda place: _append(self._places, _Place(*place)))
        self.strings = Table(self._string)
        self.elsewhere = Table(self._elsewhere)
        self.cases = Table(self._case)
        self.followed = Table(self._follow)
        self.starts_word = Table(lambda i: tokenizer.pieces([i])[0].startswith(MARKER))

    def _string(self, string: bytes) -> int:
        """Returns a string's number, and in two bits below it how it begins."""
        begins = 0
        if self._segmenter.spaces_cut:
            begins = _WORD if _SPACED.match(string) else _LETTER if _LETTERS.match(string) else 0
        return _append(self._strings, string) << _BEGINS_BITS | begins

    def _elsewhere(self, place: int) -> int:
        """Returns where some candidates may be read as well, and in two bits below it which.

        White space that is followed by a letter cuts. So it does not matter behind which word the
        next one starts, nor which word comes next where the student's token stands before it.
        """
        here = self._places[place]
        if here.cut:
            return 0
        if _LETTERS.match(here.written[-1:]):
            return place << _BEGINS_BITS | _WORD
        if here.written not in _WHITE or not _LETTERS.match(here.context[-1:]):
            return 0
        ids = tuple(np.frombuffer(here.context_ids, np.int32).tolist())
        if not self._segmenter.is_own(here.context.decode(), ids):
            return 0
        there = self.places[b"", b"", here.stop, b"", here.written]
        return there << _BEGINS_BITS | (_LETTER if here.written else _WORD)

    def cases_of(self, place: np.ndarray, string: np.ndarray, flags: np.ndarray) -> np.ndarray:
        """Returns the cases [N] of candidates [N], which `cases` knows.

        Args:
          place: [N] int64.
          string: [N] int64, of `strings`.
          flags: [N] int64.
        """
        elsewhere = self.elsewhere.of(place)
        begins = string & _BEGINS_MASK
        moves = (begins > 0) & (begins == elsewhere & _BEGINS_MASK)
        elsewhere >>= _BEGINS_BITS
        is_any = moves & (elsewhere == place)
        candidate = ((string >> _BEGINS_BITS) << _FLAG_BITS) + flags
        any_word = (self.strings[b" a"] >> _BEGINS_BITS) << _FLAG_BITS
        return (np.where(moves, elsewhere, place) << _PLACE_SHIFT) + np.where(
            is_any, any_word, candidate
        )

    def _read(self, case: int) -> tuple[_Place, bytes, int]:
        place, string = case >> _PLACE_SHIFT, (case >> _FLAG_BITS) & _STRING_MASK
        return self._places[place], self._strings[string], case & _FLAG_MASK

    def _case(self, case: int) -> int:
        """Returns the student's id plus one (0: none), and in three bits below it what is known."""
        place, candidate, flags = self._read(case)
        if not candidate.startswith(place.cut):
            return NOT_KEPT
        if place.cut and candidate == place.cut:
            return UNKNOWN
        string = place.written + candidate[len(place.cut) :]
        over = expansion.ending(
            candidate,
            string,
            stop=place.stop,
            is_behind=bool(flags & AT_END),
            is_sampled_end=bool(flags & SAMPLED_END),
        )
        fate, token = self._segmenter.next_token(
            place.context.decode(),
            tuple(np.frombuffer(place.context_ids, np.int32).tolist()),
            string if over is None else over,
            ended=over is not None,
        )
        return (0 if token is None else token + 1) << FATE_BITS | _FATES.index(fate)

    def _follow(self, case: int) -> int:
        """Returns the place behind a candidate."""
        place, candidate, _ = self._read(case)
        written = place.written + candidate[len(place.cut) :]
        return self.places[place._replace(cut=b"", written=written)]


def _append(values: list[Any], value: Any) -> int:
    values.append(value)
    return len(values) - 1
