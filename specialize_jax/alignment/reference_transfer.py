"""The transfer rules in plain Python: the oracle of the tests, and the explanation.

Strings, lists and dicts, one example at a time. Letters: `T` teacher tokens, `S` student tokens.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from specialize_jax.alignment.reference import MARKER, align, as_piece, levenshtein
from specialize_jax.schemas import Reason


class Transferred(NamedTuple):
    """One student position: its distribution by piece, and why it is a one-hot if it is one."""

    probabilities: dict[str, float]
    reason: Reason


def one_to_one(
    teacher: Sequence[str],
    student: Sequence[str],
    candidates: Sequence[Sequence[tuple[str, float]]],
    vocabulary: Mapping[str, int],
) -> list[Transferred]:
    """Carries the teacher's distributions to student tokens by the rule of 2301.12726.

    A student token linked to exactly one teacher token that is the same string gets that token's
    candidates, without renormalisation; every other student token gets a one-hot.

    Args:
      teacher: `T` tokens with their spaces.
      student: `S` pieces with their space markers, without the end-of-sequence token.
      candidates: for each teacher token its candidates as (token, probability), the sampled one
        first; empty where nothing was recorded.
      vocabulary: the student's pieces.

    Returns:
      `S` distributions, pieces in the order of `candidates`.
    """

    def exact(token: str, is_first: bool) -> str | None:
        return piece if (piece := as_piece(token)) in vocabulary else None

    return _carry(teacher, student, candidates, exact, lambda listed: listed)


def soft(
    teacher: Sequence[str],
    student: Sequence[str],
    candidates: Sequence[Sequence[tuple[str, float]]],
    pieces: Sequence[str],
) -> list[Transferred]:
    """Carries the teacher's distributions to student tokens by FuseLLM's rule.

    As `one_to_one`, with the nearest piece in place of the exact one. The linked teacher token of
    the first student token has a marker put before it where the student token alone has one.

    Args:
      teacher: as for `one_to_one`.
      student: likewise.
      candidates: likewise.
      pieces: the student's, in order of their ids.

    Returns:
      As `one_to_one`, pieces by descending probability.
    """

    def taken_for(token: str, is_first: bool) -> str:
        piece = as_piece(token)
        if is_first and student[0].startswith(MARKER) and not piece.startswith(MARKER):
            piece = MARKER + piece
        return nearest_piece(piece, tuple(pieces))

    def most_probable_first(listed: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
        return sorted(listed, key=lambda entry: -entry[1])

    return _carry(teacher, student, candidates, taken_for, most_probable_first)


@functools.lru_cache(maxsize=1 << 16)
def nearest_piece(word: str, pieces: tuple[str, ...]) -> str:
    """Returns the first of the pieces at the least edit distance, markers included."""
    return min(pieces, key=lambda piece: levenshtein(word, piece))


def _carry(
    teacher: Sequence[str],
    student: Sequence[str],
    candidates: Sequence[Sequence[tuple[str, float]]],
    to_piece: Callable[[str, bool], str | None],
    in_order: Callable[[Sequence[tuple[str, float]]], Sequence[tuple[str, float]]],
) -> list[Transferred]:
    """Does what both rules share; the first of several candidates for one piece counts.

    `to_piece` says which piece a teacher token is taken for, and is told whether it is the linked
    token of the first student token.
    """
    linked = [range(*r) for r in align(teacher, student)]
    result = []
    for j, piece in enumerate(student):
        copied: dict[str, float] = {}
        is_same = len(linked[j]) == 1 and to_piece(teacher[linked[j][0]], j == 0) == piece
        if is_same:
            for token, probability in in_order(candidates[linked[j][0]]):
                if (known := to_piece(token, False)) is not None:
                    copied.setdefault(known, probability)
        reason = Reason.NONE if copied else _reason(j, linked, candidates, is_same)
        result.append(Transferred(copied or {piece: 1.0}, reason))
    return result


def _reason(
    j: int,
    linked: Sequence[range],
    candidates: Sequence[Sequence[tuple[str, float]]],
    is_same: bool,
) -> Reason:
    """Says why student token `j` gets a one-hot."""
    if not any(candidates[i] for i in linked[j]):
        return Reason.NO_LOGPROBS
    if len(linked[j]) > 1:
        return Reason.MANY_TEACHER_TOKENS
    if any(linked[j][0] in other for k, other in enumerate(linked) if k != j):
        return Reason.SHARED_TEACHER_TOKEN
    # The same string, of whose candidates no one is a student piece.
    return Reason.NO_LOGPROBS if is_same else Reason.DIFFERENT_STRING
