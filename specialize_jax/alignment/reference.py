"""The papers' alignment in plain Python: the oracle of the tests, and the explanation.

Strings, lists and dicts, one example at a time; no array library. The method is that of
https://arxiv.org/abs/2301.12726 (its dynamic program; its transfer rule stands in
`reference_transfer`). Letters: `T` teacher tokens, `S` student tokens.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

INT32_MAX = 2**31 - 1
MARKER = "\u2581"  # SentencePiece's, for a space
_INFINITY = float("inf")


def as_piece(token: str | bytes) -> str:
    """Returns a token's text as SentencePiece would spell it, U+2581 for every space.

    Args:
      token: text, or bytes read as UTF-8 with U+FFFD for what is not valid.

    Raises:
      TypeError: the token is neither, as an id.
    """
    text = token.decode("utf-8", errors="replace") if isinstance(token, bytes) else token
    if not isinstance(text, str):
        raise TypeError(f"tokens must be str or bytes, not ids, got {token!r}")
    return text.replace(" ", MARKER)


def surface(token: str | bytes) -> str:
    """Returns a token's text without space markers.

    Args:
      token: as for `as_piece`.

    Returns:
      The text with every U+0020 (space) and U+2581 (SentencePiece's marker) taken out. A newline
      stays: to the papers it is a character like another.
    """
    return as_piece(token).replace(MARKER, "")


def levenshtein(a: str, b: str) -> int:
    """Returns the least number of code points to insert, delete or replace to turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (char != other))
    return row[-1]


_cached_levenshtein = functools.lru_cache(maxsize=1 << 20)(levenshtein)


def costs(teacher: Sequence[str | bytes], student: Sequence[str | bytes]) -> list[list[int]]:
    """Returns the `T` x `S` edit distances between surfaces."""
    student_surfaces = [surface(token) for token in student]
    return [
        [_cached_levenshtein(teacher_surface, other) for other in student_surfaces]
        for teacher_surface in map(surface, teacher)
    ]


def dtw(
    cost: Sequence[Sequence[int]], teacher_length: int, student_length: int
) -> tuple[int, list[tuple[int, int]]]:
    """Aligns one example by dynamic time warping.

    `D[i][j] = cost[i][j] + min(D[i-1][j-1], D[i-1][j], D[i][j-1])`, then a walk back from the last
    cell along the smallest predecessor; ties prefer the diagonal, then `i - 1`, then `j - 1`.

    Args:
      cost: at least `teacher_length` rows of at least `student_length` costs; the rest is ignored.
      teacher_length: number of teacher tokens, >= 0.
      student_length: number of student tokens, >= 0.

    Returns:
      The cost of the path, and for each student token the half-open range of teacher tokens linked
      to it. An empty against a non-empty side has no path: `INT32_MAX` and empty ranges.
    """
    if teacher_length == 0 or student_length == 0:
        both_empty = teacher_length == student_length
        return (0 if both_empty else INT32_MAX), [(0, 0)] * student_length
    d = _fill(cost, teacher_length, student_length, lambda i, j: True)
    return int(d[-1][-1]), _walk_back(d)


class Banded(NamedTuple):
    """What `banded_dtw` found, and whether that is proven to be what `dtw` finds."""

    total_cost: int
    ranges: list[tuple[int, int]]
    certified: bool


def banded_dtw(
    cost: Sequence[Sequence[int]],
    teacher_length: int,
    student_length: int,
    band: int,
    teacher_bounds: Sequence[int] | None = None,
    student_bounds: Sequence[int] | None = None,
) -> Banded:
    """Is `dtw` over the cells near the diagonal only, with a certificate.

    Cells `(i, j)` with `|i - round((i + j) * (T - 1) / (T + S - 2))| <= band`, halves rounded up.
    The result is certified if a path that leaves the band is proven to cost more: for every cell
    and each of its successors outside the band, the cost up to the cell plus the larger of the
    remaining rows' and the remaining columns' lower bounds is above the total.

    Args:
      cost: as for `dtw`.
      teacher_length: number of teacher tokens, >= 0.
      student_length: number of student tokens, >= 0.
      band: >= 1.
      teacher_bounds: for each teacher token a number that none of its costs is below. None: the
        least of them.
      student_bounds: likewise.

    Returns:
      As `dtw`, and whether it is certified.
    """
    if teacher_length == 0 or student_length == 0:
        return Banded(*dtw(cost, teacher_length, student_length), True)
    rows = [row[:student_length] for row in cost[:teacher_length]]
    teacher_bounds = list(map(min, rows)) if teacher_bounds is None else teacher_bounds
    student_bounds = (
        list(map(min, zip(*rows, strict=True))) if student_bounds is None else student_bounds
    )
    steps = max(teacher_length + student_length - 2, 1)

    def is_inside(i: int, j: int) -> bool:
        centre = (2 * (i + j) * (teacher_length - 1) + steps) // (2 * steps)
        return abs(i - centre) <= band

    d = _fill(cost, teacher_length, student_length, is_inside)
    certified = True
    for i in range(teacher_length):
        for j in range(student_length):
            successors = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
            leaves = any(
                row < teacher_length and column < student_length and not is_inside(row, column)
                for row, column in successors
            )
            rest = max(
                sum(teacher_bounds[i + 1 : teacher_length]),
                sum(student_bounds[j + 1 : student_length]),
            )
            if is_inside(i, j) and leaves and d[i + 1][j + 1] + rest <= d[-1][-1]:
                certified = False
    return Banded(int(d[-1][-1]), _walk_back(d), certified)


def _fill(
    cost: Sequence[Sequence[int]],
    teacher_length: int,
    student_length: int,
    is_inside: Callable[[int, int], bool],
) -> list[list[float]]:
    """Returns `D` over the cells that count; cell (i, j) of the text stands at [i + 1][j + 1]."""
    # Row 0 and column 0 are the borders.
    d: list[list[float]] = [[0] + [_INFINITY] * student_length]
    for i in range(teacher_length):
        above, row = d[-1], [_INFINITY]
        for j in range(student_length):
            best = min(above[j], above[j + 1], row[j])
            row.append(cost[i][j] + best if is_inside(i, j) else _INFINITY)
        d.append(row)
    return d


def _walk_back(d: list[list[float]]) -> list[tuple[int, int]]:
    """Returns each student token's range on the best path to the last cell."""
    i, j = len(d) - 1, len(d[0]) - 1
    ranges, end = [(0, 0)] * j, i
    while (i, j) != (0, 0):
        ranges[j - 1] = (i - 1, end)
        diagonal, up, left = d[i - 1][j - 1], d[i - 1][j], d[i][j - 1]
        if diagonal <= min(up, left):
            i, j, end = i - 1, j - 1, i - 1
        elif up <= left:
            i = i - 1
        else:
            j, end = j - 1, i
    return ranges


def align(teacher: Sequence[str | bytes], student: Sequence[str | bytes]) -> list[tuple[int, int]]:
    """Aligns the tokens of one example; plain Python in and out.

    >>> align(["If", " Nat", "alia"], ["▁If", "▁Nat", "alia"])
    [(0, 1), (1, 2), (2, 3)]

    Args:
      teacher: the teacher's tokens, with their spaces.
      student: the student's tokens of the same text, with their space markers.

    Returns:
      For each student token the half-open range of teacher tokens linked to it.
    """
    return dtw(costs(teacher, student), len(teacher), len(student))[1]


def offsets(
    teacher: Sequence[tuple[int, int]], student: Sequence[tuple[int, int]]
) -> tuple[int, list[tuple[int, int]]]:
    """Aligns one example by the bytes that its tokens span, by the rules of `alignment.offsets`.

    Args:
      teacher: half-open spans in the text; starts and ends never decrease.
      student: the same of the student.

    Returns:
      The number of bytes that just one side covers, and for each student token the half-open range
      of teacher tokens linked to it. An empty against a non-empty side: `INT32_MAX`, empty ranges.
    """
    if not teacher or not student:
        return (INT32_MAX if teacher or student else 0), [(0, 0)] * len(student)
    linked = []
    for j, span in enumerate(student):
        same = [i for i, other in enumerate(teacher) if other == span]
        fellows = [k for k, other in enumerate(student) if other == span]
        overlapping = [i for i, (b, e) in enumerate(teacher) if b < span[1] and e > span[0]]
        if len(same) == len(fellows):
            linked.append({same[fellows.index(j)]})
        elif overlapping:
            linked.append(set(overlapping))
        else:
            later = [i for i, (_, end) in enumerate(teacher) if end > span[0]]
            linked.append({later[0] if later else len(teacher) - 1})
    # A teacher token without a partner goes to the next student token.
    for i in range(len(teacher)):
        following = [j for j in range(len(student)) if max(linked[j]) >= i]
        if following and not any(i in range(min(r), max(r) + 1) for r in linked):
            linked[following[0]].add(i)
    # Ranges: starts and ends never decrease.
    starts = [min(min(r) for r in linked[j:]) for j in range(len(student))]
    ends = [max(max(r) for r in linked[: j + 1]) + 1 for j in range(len(student))]
    covered = [{byte for span in side for byte in range(*span)} for side in (teacher, student)]
    return len(covered[0] ^ covered[1]), list(zip(starts, ends, strict=True))
