"""`expand` for many texts at once: Python for what is new, arrays for the rest.

What a candidate says depends on few things: the student's word so far, what was followed of the
teacher's tokens, the candidate and whether it ends the text (`expansion_cases`). The mass is summed
as arrays, in the order in which `expand` adds it, so that both agree to the last bit.

Letters: as `expansion_arrays`; `N` candidates of one round.
"""

import functools
from collections.abc import Callable

import numpy as np

from specialize_jax.schemas import Reason
from specialize_jax.tokenizers import expansion
from specialize_jax.tokenizers import expansion_cases as cases
from specialize_jax.tokenizers.expansion import DEPTH, Segmenter
from specialize_jax.tokenizers.expansion_arrays import Steps, Student, VoteColumns
from specialize_jax.tokenizers.files import load
from specialize_jax.tokenizers.sentencepiece_model import SentencePieceTokenizer

# Cases kept before the tables start anew, some hundred megabytes.
_MOST_KEPT = 1 << 21


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
        self.known = cases.Known(segmenter)

    def expand(self, steps: Steps, student: Student) -> VoteColumns:
        """Returns the votes of every student token, the same as `expand` of every text.

        Raises:
          ValueError: spans outside their text, a probability outside [0, 1] or NaN, a step whose
            mass exceeds 1 by more than rounding.
        """
        if len(self.known.cases) >= _MOST_KEPT:
            self.known = cases.Known(self.segmenter)
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
        everything = b"".join(student.texts)
        base = np.cumsum([0, *map(len, student.texts)])[text]
        is_inside = ~is_first & (begin < before_end)
        # The bytes from 0x80 to 0xBF go on with a character; behind a text there is none.
        padded = np.frombuffer(everything + b" ", np.uint8)
        goes_on = (begin < np.array([*map(len, student.texts)])[text]) & (
            padded[base + begin] & 0xC0 == 0x80
        )
        reason[is_inside | goes_on] = Reason.INSIDE_SEGMENT

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
        bounds = [first + base, begin + base, begin - cut + base, 4 * word, 4 * number]
        columns = [column[where].tolist() for column in bounds]
        ids = student.ids.astype(np.int32).tobytes()
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
            flags = np.where(self._is_behind[step][owner], cases.AT_END, 0)
            flags += np.where(sampled & self._may_end[step][owner], cases.SAMPLED_END, 0)
            case = self._known.cases_of(place[owner], self._strings[where], flags)
            known = self._known.cases.of(case)
            p = self._probabilities[where]
            if mass is None:
                kept = known != cases.NOT_KEPT
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
            self._add_open(position, found >> cases.FATE_BITS, mass * self._unlisted[step])

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
        fate, token = known & cases.FATE_MASK, known >> cases.FATE_BITS
        unknown = fate == cases.UNKNOWN
        goes_on = ~unknown & sampled & ((fate == cases.OPEN) | (fate == cases.OPEN_CONTRADICTS))
        followed = goes_on & ~is_last
        # The sampled string cannot contradict in the end: how it goes on is unknown.
        unknown |= goes_on & is_last & (fate != cases.OPEN)
        counted = ~unknown & ~followed
        contradicts = counted & ((fate == cases.CONTRADICTS) | (fate == cases.OPEN_CONTRADICTS))
        unknown |= counted & ~contradicts & (token == 0)
        voted = counted & ~contradicts & (token > 0)
        is_open = counted & ~unknown & ((fate == cases.OPEN) | (fate == cases.OPEN_CONTRADICTS))
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
