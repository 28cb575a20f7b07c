"""`expand` for many texts at once: Python for what is new, arrays for the rest.

What a candidate says depends on few things: the student's word so far, what was followed of the
teacher's tokens, the candidate and whether it ends the text. Each such case is asked of the
`Segmenter` once, and is a number from then on; the mass is summed as arrays, in the order in which
`expand` adds it, so that both agree to the last bit.

Letters: `R` texts, `T` teacher's steps of all texts, `C` candidates of all steps, `S` student
tokens of all texts, `V` votes of all student tokens.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from specialize_jax.schemas import Reason
from specialize_jax.tokenizers import expansion
from specialize_jax.tokenizers.base import MARKER
from specialize_jax.tokenizers.expansion import DEPTH, Fate, Recorded, Segmenter
from specialize_jax.tokenizers.files import load
from specialize_jax.tokenizers.sentencepiece_model import SentencePieceTokenizer

# Cases kept before the tables start anew, some hundred megabytes.
_MOST_KEPT = 1 << 21
# What a case says: the student's id plus one, and below it the number of a fate or one of these.
_FATES = (Fate.CLOSED, Fate.OPEN, Fate.CONTRADICTS, Fate.OPEN_CONTRADICTS)
_OPEN, _CONTRADICTS, _OPEN_CONTRADICTS, _NOT_KEPT, _UNKNOWN = range(1, 6)
_FATE_BITS, _FATE_MASK = 3, 7
# A case in 63 bits: its place, the candidate's string, and two flags.
_AT_END, _SAMPLED_END = 1, 2
_FLAG_BITS, _FLAG_MASK = 2, 3
_STRING_MASK, _PLACE_SHIFT = (1 << 30) - 1, 32
# How a string begins: with white space and a letter, or with a letter; here any printable ASCII.
_WORD, _LETTER = 1, 2
_SPACED, _LETTERS = re.compile(rb"[ \n][!-~]"), re.compile(rb"[!-~]")
_WHITE = (b"", b" ", b"\n")
_BEGINS_BITS, _BEGINS_MASK = 2, 3


class Steps(NamedTuple):
    """What a teacher wrote and recorded in `R` texts: `Recorded` as arrays.

    Every text has one step more than tokens: its last holds the candidates at the end.

    Attributes:
      strings: distinct byte strings; tokens and candidates are numbers of this list.
      tokens: [T] int32; the sampled token, -1 at the step behind the last token.
      offsets: [R + 1] int64; the steps of text `r` are `offsets[r]` to `offsets[r + 1]`.
      candidates: [C] int32; different within a step, the sampled one among them if it is known.
      probabilities: [C] float64.
      candidate_offsets: [T + 1] int64; the candidates of each step.
      has_terminal: [R] bool; whether the candidates at the end were recorded.
      ended: [R] bool; see `Recorded`.
      stops: `R` strings or None; see `Recorded`.
    """

    strings: Sequence[bytes]
    tokens: np.ndarray
    offsets: np.ndarray
    candidates: np.ndarray
    probabilities: np.ndarray
    candidate_offsets: np.ndarray
    has_terminal: np.ndarray
    ended: np.ndarray
    stops: Sequence[bytes | None]

    def recorded(self, r: int) -> Recorded:
        """Returns one text as `expand` reads it."""
        begin, end = self.offsets[r : r + 2].tolist()

        def listed(step: int) -> dict[bytes, float]:
            where = slice(*self.candidate_offsets[step : step + 2].tolist())
            names = [self.strings[number] for number in self.candidates[where].tolist()]
            return dict(zip(names, self.probabilities[where].tolist(), strict=True))

        return Recorded(
            [self.strings[number] for number in self.tokens[begin : end - 1].tolist()],
            [listed(step) for step in range(begin, end - 1)],
            listed(end - 1) if self.has_terminal[r] else None,
            self.stops[r],
            bool(self.ended[r]),
        )


class Student(NamedTuple):
    """`R` targets in the student's tokens.

    Attributes:
      texts: the targets' bytes.
      ids: [S] int32; end-of-sequence last where a target has one.
      spans: [S, 2] int32; bytes of its text per token; of end-of-sequence not read.
      offsets: [R + 1] int64; the tokens of each target.
    """

    texts: Sequence[bytes]
    ids: np.ndarray
    spans: np.ndarray
    offsets: np.ndarray


class VoteColumns(NamedTuple):
    """`expansion.Votes` of many targets, one behind the other and without unused slots.

    Attributes:
      ids: [V] int32; votes of one position together, most mass first.
      mass: [V] float64.
      offsets: [S + 1] int64; the votes of each position.
      tail: [S] float64.
      dropped: [S] float64.
      open_mass: [S] float64.
      reason: [S] int32.
    """

    ids: np.ndarray
    mass: np.ndarray
    offsets: np.ndarray
    tail: np.ndarray
    dropped: np.ndarray
    open_mass: np.ndarray
    reason: np.ndarray


class _Table(dict[Any, Any]):
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


class _Known:
    """Places, strings and cases of one student as numbers."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        tokenizer = segmenter.tokenizer
        self._places: list[_Place] = []
        self._strings: list[bytes] = []
        self.places = _Table(lambda place: _append(self._places, _Place(*place)))
        self.strings = _Table(self._string)
        self.elsewhere = _Table(self._elsewhere)
        self.cases = _Table(self._case)
        self.followed = _Table(self._follow)
        self.starts_word = _Table(lambda i: tokenizer.pieces([i])[0].startswith(MARKER))

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
            return _NOT_KEPT
        if place.cut and candidate == place.cut:
            return _UNKNOWN
        string = place.written + candidate[len(place.cut) :]
        over = expansion.ending(
            candidate,
            string,
            stop=place.stop,
            is_behind=bool(flags & _AT_END),
            is_sampled_end=bool(flags & _SAMPLED_END),
        )
        fate, token = self._segmenter.next_token(
            place.context.decode(),
            tuple(np.frombuffer(place.context_ids, np.int32).tolist()),
            string if over is None else over,
            ended=over is not None,
        )
        return (0 if token is None else token + 1) << _FATE_BITS | _FATES.index(fate)

    def _follow(self, case: int) -> int:
        """Returns the place behind a candidate."""
        place, candidate, _ = self._read(case)
        written = place.written + candidate[len(place.cut) :]
        return self.places[place._replace(cut=b"", written=written)]


def _append(values: list[Any], value: Any) -> int:
    values.append(value)
    return len(values) - 1


class Expander:
    """Expands many texts for one student; keeps what it has learned.

    Args:
      segmenter: of the student's tokenizer.
      depth: as `expand`.
      share: as `expand`.
      unlisted_votes: as `expand`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        depth: int = DEPTH,
        share: Callable[[bytes], float] | None = None,
        unlisted_votes: bool = True,
    ) -> None:
        if depth < 0:
            raise ValueError(f"depth must be at least 0, got {depth}")
        self.segmenter, self.depth, self.share = segmenter, depth, share
        self.unlisted_votes = unlisted_votes
        self.known = _Known(segmenter)

    def expand(self, steps: Steps, student: Student) -> VoteColumns:
        """Returns the votes of every student token, the same as `expand` of every text.

        Raises:
          ValueError: spans outside their text, a probability outside [0, 1] or NaN, a step whose
            mass exceeds 1 by more than rounding.
        """
        if len(self.known.cases) >= _MOST_KEPT:
            self.known = _Known(self.segmenter)
        _check(steps, student)
        return _Run(self, steps, student).votes()


class _Terms:
    """Amounts to add up by position, in the order given."""

    def __init__(self) -> None:
        self._positions: list[np.ndarray] = []
        self._amounts: list[np.ndarray] = []

    def add(self, positions: np.ndarray, amounts: np.ndarray) -> None:
        self._positions.append(positions)
        self._amounts.append(amounts)

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions or keys, and amounts."""
        if not self._positions:
            return np.zeros(0, np.int64), np.zeros(0)
        return np.concatenate(self._positions), np.concatenate(self._amounts)

    def sums(self, size: int) -> np.ndarray:
        """Returns [size] sums; `bincount` adds one after the other."""
        return np.bincount(*self.all(), minlength=size)


class _Run:
    """One call of `Expander.expand`."""

    def __init__(self, expander: Expander, steps: Steps, student: Student) -> None:
        self._expander, self._known = expander, expander.known
        self._student, self._steps = student, steps
        self._counts = np.diff(steps.candidate_offsets)
        step_of = np.repeat(np.arange(len(self._counts)), self._counts)
        totals = np.bincount(step_of, steps.probabilities, len(self._counts))
        # Rounding may have lifted a step's mass above 1.
        self._probabilities = steps.probabilities / np.maximum(totals, 1.0)[step_of]
        self._unlisted = np.maximum(
            0.0, 1.0 - np.bincount(step_of, self._probabilities, len(self._counts))
        )
        strings = np.array([self._known.strings[string] for string in steps.strings], np.int64)
        self._strings = strings[steps.candidates]
        last = steps.offsets[1:] - 1
        self._is_behind = np.zeros(len(steps.tokens), bool)
        self._is_behind[last] = True
        self._may_end = np.zeros(len(steps.tokens), bool)
        ends = steps.ended & ~steps.has_terminal & (np.diff(steps.offsets) > 1)
        self._may_end[last[ends] - 1] = True
        # Nothing follows the last step of a text.
        self._is_followed = np.append(self._counts[1:] > 0, False) & ~self._is_behind
        self._votes, self._tail, self._dropped, self._open = (_Terms() for _ in range(4))

    def votes(self) -> VoteColumns:
        """Returns the votes."""
        reason, step, place, rho = self._positions()
        size = len(reason)
        reason[(reason == Reason.NONE) & (self._counts[step] == 0)] = Reason.NO_LOGPROBS
        where = np.flatnonzero(reason == Reason.NONE)
        self._expand(where, step[where], place[where], rho[where], reason)
        keys, amounts = self._votes.all()
        keys, inverse = np.unique(keys, return_inverse=True)
        mass = np.bincount(inverse, amounts, len(keys))
        position = keys >> 32
        voted = np.bincount(position, mass, size)
        # All contradicts, or of no string is it known where it leads.
        reason[(reason == Reason.NONE) & (voted < expansion.SMALLEST_SCALE)] = Reason.NO_MASS
        good = reason == Reason.NONE
        kept = good[position]
        keys, mass, position = keys[kept], mass[kept], position[kept]
        order = np.lexsort((-mass, position))
        return VoteColumns(
            (keys & 0xFFFFFFFF)[order].astype(np.int32),
            mass[order],
            np.concatenate([[0], np.cumsum(np.bincount(position, minlength=size))]),
            np.where(good, self._tail.sums(size), 0.0),
            np.where(good, self._dropped.sums(size), 0.0),
            np.where(good, self._open.sums(size), 0.0),
            reason,
        )

    def _positions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns for every student token [S] its reason, step, place and share of unlisted mass.

        Step, place and share are to be read where there is no reason.
        """
        student, steps = self._student, self._steps
        size = len(student.ids)
        number = np.arange(size)
        sizes = np.diff(student.offsets)
        text = np.repeat(np.arange(len(sizes)), sizes)
        row_start = student.offsets[text]
        is_first = number == row_start
        eos = self._expander.segmenter.tokenizer.eos_id
        is_end = (number == student.offsets[text + 1] - 1) & (student.ids == eos)
        before_end = np.concatenate([[0], student.spans[:, 1]])[:size]
        # White space that the normaliser strips from the start of the text leads here too.
        begin = np.where(is_first, 0, np.where(is_end, before_end, student.spans[:, 0]))
        begin = begin.astype(np.int64)
        reason = np.full(size, Reason.NONE, np.int32)
        reason[~is_first & (begin < before_end)] = Reason.INSIDE_SEGMENT

        # Bytes of all texts in one row of numbers, one more for the end of each.
        lengths = np.array([*map(len, steps.strings), 0], np.int64)[steps.tokens]
        lengths[self._is_behind] = 1
        starts = np.cumsum(lengths) - lengths
        step = np.searchsorted(starts, starts[steps.offsets[text]] + begin, side="right") - 1
        is_behind = self._is_behind[step] & ~steps.has_terminal[text] & (reason == Reason.NONE)
        reason[is_behind] = np.where(is_end, Reason.END_OF_SEQUENCE, Reason.NO_LOGPROBS)[is_behind]

        starts_word = self._known.starts_word.of(student.ids).astype(bool)
        word = np.maximum.accumulate(np.where(starts_word, number, -1))
        word = np.maximum(np.concatenate([[-1], word])[:size], row_start)
        first = np.where(word > row_start, student.spans[word, 0], 0)
        cut = begin - (starts[step] - starts[steps.offsets[text]])
        place, rho = np.zeros(size, np.int64), np.ones(size)
        where = np.flatnonzero(reason == Reason.NONE)
        base = np.cumsum([0, *map(len, student.texts)])[text]
        bounds = [first + base, begin + base, begin - cut + base, 4 * word, 4 * number]
        columns = [column[where].tolist() for column in bounds]
        everything, ids = b"".join(student.texts), student.ids.astype(np.int32).tobytes()
        stops = [steps.stops[r] for r in text[where].tolist()]
        numbers = self._known.places
        place[where] = [
            numbers[everything[a:b], ids[w:j], stop, everything[c:b], b""]
            for a, b, c, w, j, stop in zip(*columns, stops, strict=True)
        ]
        if self._expander.share is not None:
            for j in where[cut[where] > 0].tolist():
                end = base[j] + begin[j]
                rho[j] = self._expander.share(everything[end - cut[j] : end])
        return reason, step, place, rho

    def _expand(
        self,
        position: np.ndarray,
        step: np.ndarray,
        place: np.ndarray,
        rho: np.ndarray,
        reason: np.ndarray,
    ) -> None:
        """Adds up the candidates of positions; gives a reason to those without mass."""
        mass = None
        for depth in range(self._expander.depth + 1):
            owner, where = self._candidates(step)
            sampled = self._steps.candidates[where] == self._steps.tokens[step][owner]
            flags = np.where(self._is_behind[step][owner], _AT_END, 0)
            flags += np.where(sampled & self._may_end[step][owner], _SAMPLED_END, 0)
            case = self._known.cases_of(place[owner], self._strings[where], flags)
            known = self._known.cases.of(case)
            p = self._probabilities[where]
            if mass is None:
                kept = known != _NOT_KEPT
                tail = rho * self._unlisted[step]
                scale = np.bincount(owner[kept], p[kept], len(step)) + tail
                good = scale >= expansion.SMALLEST_SCALE
                reason[position[~good]] = Reason.NO_MASS
                mass = 1.0 / np.where(good, scale, 1.0)
                self._tail.add(position[good], (tail / np.where(good, scale, 1.0))[good])
                kept &= good[owner]
                owner, case, known, p, sampled = (
                    value[kept] for value in (owner, case, known, p, sampled)
                )
            is_last = (depth == self._expander.depth) | ~self._is_followed[step][owner]
            amount = mass[owner] * p
            followed = self._add(position[owner], known, amount, sampled, is_last)
            owner = owner[followed]
            if not len(owner):
                return
            position, step, mass = position[owner], step[owner] + 1, amount[followed]
            place = self._known.followed.of(case[followed])
            found = known[followed] if self._expander.unlisted_votes else np.zeros(len(owner), int)
            self._add_open(position, found >> _FATE_BITS, mass * self._unlisted[step])

    def _candidates(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns for the candidates of some steps which step each is of and where it stands."""
        counts = self._counts[step]
        owner = np.repeat(np.arange(len(step)), counts)
        before = np.cumsum(counts) - counts
        return owner, (self._steps.candidate_offsets[step] - before)[owner] + np.arange(len(owner))

    def _add(
        self,
        position: np.ndarray,
        known: np.ndarray,
        amount: np.ndarray,
        sampled: np.ndarray,
        is_last: np.ndarray,
    ) -> np.ndarray:
        """Counts candidates that are followed no further; returns [N] bool, which are followed."""
        fate, token = known & _FATE_MASK, known >> _FATE_BITS
        unknown = fate == _UNKNOWN
        goes_on = ~unknown & sampled & ((fate == _OPEN) | (fate == _OPEN_CONTRADICTS))
        followed = goes_on & ~is_last
        # The sampled string cannot contradict in the end: how it goes on is unknown.
        unknown |= goes_on & is_last & (fate != _OPEN)
        counted = ~unknown & ~followed
        contradicts = counted & ((fate == _CONTRADICTS) | (fate == _OPEN_CONTRADICTS))
        unknown |= counted & ~contradicts & (token == 0)
        voted = counted & ~contradicts & (token > 0)
        is_open = counted & ~unknown & ((fate == _OPEN) | (fate == _OPEN_CONTRADICTS))
        self._votes.add((position[voted] << 32) + token[voted] - 1, amount[voted])
        sums = (self._tail, unknown), (self._dropped, contradicts), (self._open, is_open)
        for terms, which in sums:
            terms.add(position[which], amount[which])
        return followed

    def _add_open(self, position: np.ndarray, token: np.ndarray, amount: np.ndarray) -> None:
        """Counts the unlisted mass of followed steps; `token` is an id plus one, or 0."""
        voted = token > 0
        self._votes.add((position[voted] << 32) + token[voted] - 1, amount[voted])
        self._open.add(position[voted], amount[voted])
        self._tail.add(position[~voted], amount[~voted])


def _check(steps: Steps, student: Student) -> None:
    sizes = np.array([*map(len, student.texts)], np.int64)
    counts = np.diff(student.offsets)
    is_end = np.zeros(len(student.ids), bool)
    is_end[student.offsets[1:][counts > 0] - 1] = True
    wrong = (student.spans < 0) | (student.spans > np.repeat(sizes, counts)[:, None])
    if (bad := np.flatnonzero(wrong.any(-1) & ~is_end)).size:
        raise ValueError(f"token {bad[0]}: span {student.spans[bad[0]]} outside its text")
    p = steps.probabilities
    step_of = np.repeat(np.arange(len(steps.tokens)), np.diff(steps.candidate_offsets))
    if (bad := np.flatnonzero(~((p >= 0.0) & (p <= 1.0 + 1e-6)))).size:
        raise ValueError(
            f"step {step_of[bad[0]]}: expected probabilities in [0, 1], got {p[bad[0]]} for "
            f"{steps.strings[steps.candidates[bad[0]]]!r}"
        )
    totals = np.bincount(step_of, p)
    if (bad := np.flatnonzero(totals > expansion.MOST_MASS)).size:
        raise ValueError(
            f"step {bad[0]}: expected candidates of mass 1 at most, got {totals[bad[0]]:.4f}"
        )


def expand_in_process(
    path: str, extra_ids: int, sha256: str, steps: Steps, student: Student
) -> VoteColumns:
    """Is `Expander.expand` for a pool of processes: each keeps its own expander.

    Args:
      path: of the student's SentencePiece model.
      extra_ids: as `load`.
      sha256: of the model.
      steps: as `Expander.expand`.
      student: as `Expander.expand`.
    """
    return _expander(path, extra_ids, sha256).expand(steps, student)


@functools.lru_cache(maxsize=1)
def _expander(path: str, extra_ids: int, sha256: str) -> Expander:
    tokenizer = load(path, extra_ids=extra_ids)
    if tokenizer.sha256 != sha256:
        raise ValueError(
            f"{path!r} was changed: expected {sha256:.16}…, got {tokenizer.sha256:.16}…"
        )
    assert isinstance(tokenizer, SentencePieceTokenizer)
    return Expander(Segmenter(tokenizer))
