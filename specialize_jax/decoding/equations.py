r"""The equations that a solution writes, and what becomes of it when they are put right.

`correct` goes through a finished solution, computes the left side of every equation, mends the
right side where it is wrong, and carries what it mended into the equations that follow: the
calculator that [Wei et al. 2022](https://arxiv.org/abs/2201.11903) and after them 2212.08410 put
behind a model's chain of thought. The rules by which it carries on are ours, since neither paper
spells them out.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from specialize_jax.decoding import calculator

# What may stand in a left side; run to the sign, so that the tail is the longest.
_LEFT_SIDE = re.compile(r"[-+*/()−–×÷x$.,\d \t]*$", re.ASCII)
# Between two of them an expression may begin anew: "Day 1. 3 + 2 =".
_BREAK = re.compile(r"[.,][ \t]+")
_LEADING = re.compile(r"(?:[ \t]|[.,](?!\d))*")
_BETWEEN = re.compile(r"[\d)][ \t]*[-+*/−–×÷x]", re.ASCII)
# Is 25 / 1/3 a third of 25, or 25 thirds? The text knows, this file does not.
_TWO_DIVISIONS = re.compile(r"[/÷][^-+*×x()]*[/÷]")
# Before a leading sign, and before a fraction that may be part of "1 and 1/4".
_NOTHING_TO_ADD_TO = re.compile(r"(?:^|[\n:;=(<>,.])[ \t]*$")
_AND = re.compile(r"\d[ \t]+and[ \t]*$")
# A number by itself: no unit of letters, no "1 1/2", nothing that goes on computing.
_RIGHT_SIDE = re.compile(
    rf"[ \t]*(?P<number>-?\$?-?(?:{calculator.NUMBER}))"
    r"(?![.,]?[\w%]|[ ]?[-+*/−–×÷x][ ]?[\w(.$]|[ ]\d|[ ]and[ ]\d)",
    re.ASCII,
)
_CUE = re.compile(r"\banswer(?:\b is\b|:)|####|^A:", re.IGNORECASE | re.MULTILINE)
_AGAIN = re.compile(r">>\$?")  # GSM8K's <<48/2=24>>24
# With its sign, where nothing stands before it to subtract from: 3 * -10, but not 3 -10.
_ANY_NUMBER = re.compile(
    rf"(?:(?<![\w)])(?<![\d)] )-|(?<![\w.]))(?:{calculator.NUMBER})(?![\w%])", re.ASCII
)


class Equation(NamedTuple):
    """An equation that a text writes.

    Attributes:
      left: the expression before the sign, as written.
      value: of `left`.
      start: where the expression begins.
      right: where the number behind the sign stands, [start, end); None where none follows.
    """

    left: str
    value: Fraction
    start: int
    right: tuple[int, int] | None


def last_equation(text: str) -> Equation | None:
    """Returns the equation at whose sign a text ends: what a model is about to answer.

    >>> last_equation("She sold 48/2 =").value
    Fraction(24, 1)
    """
    stripped = text.rstrip(" \t")
    if not stripped.endswith("="):
        return None
    return _equation(stripped, len(stripped) - 1)


def equations(text: str) -> Iterator[Equation]:
    """Yields the equations of a text whose left side computes something, in order."""
    for sign in re.finditer("=", text):
        if found := _equation(text, sign.start()):
            yield found


def _equation(text: str, sign: int) -> Equation | None:
    low = max(0, sign - calculator.MAX_LENGTH)
    tail = _LEFT_SIDE.search(text, low, sign)
    assert tail is not None  # it matches nothing at least
    for start in [tail.start(), *(b.end() for b in _BREAK.finditer(text, tail.start(), sign))]:
        start += len(_LEADING.match(text, start)[0])  # type: ignore[index]  # it matches nothing
        left, before = text[start:sign].rstrip(" \t"), text[low:start]
        if low and not before.strip(" \t"):  # longer than what is looked at: this is its tail
            continue
        if before[-1:].isalnum() or _AND.search(before) or _is_half_a_number(before, left):
            continue
        if left[:1] in ("+", "-", "−", "–") and not _NOTHING_TO_ADD_TO.search(before):
            continue
        if (value := calculator.evaluate(left)) is not None and _computes(left):
            number = _RIGHT_SIDE.match(text, sign + 1)
            return Equation(left, value, start, number and number.span("number"))
    return None


def _is_half_a_number(before: str, left: str) -> bool:
    """Whether a left side starts within a number that a space divides: 6, 760 / 450."""
    return bool(re.search(r"\d,[ \t]$", before) and re.match(r"\d{3}(?!\d)", left))


def _computes(left: str) -> bool:
    """Whether an expression has an operator between two numbers, and means one thing."""
    return bool(_BETWEEN.search(left)) and not _TWO_DIVISIONS.search(left)


class Correction(NamedTuple):
    """A number that was put right.

    Attributes:
      at: where it stood in the text that was given.
      old: as written.
      new: what stands there now.
    """

    at: int
    old: str
    new: str


def correct(text: str) -> tuple[str, list[Correction]]:
    r"""Puts right what a finished solution computes.

    >>> correct("5 * 3 = 16 pens. 16 + 4 = 20 in all. The answer is 20.")[0]
    '5 * 3 = 15 pens. 15 + 4 = 19 in all. The answer is 19.'

    Equations are read in order. Where the right side is not the value of the left side, rounded to
    the decimals that it shows, it is replaced, and from there on the same number (the same text
    without `$` and commas) is replaced in the left sides that follow, and in the final answer,
    behind the last "answer is", "answer:", "A:" or `####`. Numbers elsewhere are left alone: they
    may be given and not computed. A replacement ends where the number is computed anew. Of a number
    that is written twice, `<<48/2=20>>20`, both are replaced.

    An equation is left alone where it is not plain what it says: with a letter or a mixed number
    among its numbers ("M + 4 + 2 = 8", "8 x 1 1/2 = 12"), with two divisions ("25 / 1/3 = 75"),
    where a division is rounded to whole things ("47 / 6 = 7 jars"), or where computing goes on
    behind it ("12 x 2 = 24 / 3"). Of GSM8K's 7,473 worked solutions this
    changes 20, of which most are wrong as they stand.

    Args:
      text: a solution.

    Returns:
      The text, and what was changed, in order.
    """
    renamed: dict[str, str] = {}
    edits: list[Correction] = []
    for found in equations(text):
        inside = _renamings(text, found.start, found.start + len(found.left), renamed)
        value = calculator.evaluate(_apply(found.left, inside, found.start))
        if value is None:  # with what was mended it would divide by zero
            continue
        edits += inside
        if found.right is None:
            continue
        old = text[slice(*found.right)]
        renamed.pop(_plain(old), None)
        if not _shows(old, value) and not _counts_wholes(found.left, old, value):
            new = in_the_form_of(old, value)
            edits.append(Correction(found.right[0], old, new))
            renamed[_plain(old)] = _plain(new)
        if again := _AGAIN.match(text, found.right[1]):
            edits += _renamings(text, again.end(), again.end() + len(old), renamed)
    cues = list(_CUE.finditer(text))
    if cues:
        line_end = text.find("\n", cues[-1].end())
        edits += _renamings(text, cues[-1].end(), len(text) if line_end < 0 else line_end, renamed)
    edits = sorted(set(edits))
    return _apply(text, edits, 0), edits


def _renamings(text: str, start: int, end: int, renamed: dict[str, str]) -> list[Correction]:
    """The numbers in text[start:end] that were put right before."""
    return [
        Correction(number.start(), number[0], renamed[_plain(number[0])])
        for number in _ANY_NUMBER.finditer(text, start, end)
        if _plain(number[0]) in renamed
    ]


def _apply(text: str, edits: list[Correction], origin: int) -> str:
    """The text, whose first character counts as `origin`, with the edits made."""
    for at, old, new in reversed(edits):
        at -= origin
        text = text[:at] + new + text[at + len(old) :]
    return text


def _plain(number: str) -> str:
    return number.replace("$", "").replace(",", "")


def _shows(number: str, value: Fraction) -> bool:
    """Whether a number is a value, or what is left of it at the decimals that the number has."""
    digits = _plain(number)
    places = len(digits.partition(".")[2])
    slack = Fraction(1, 2 * 10**places) if places else 0
    return abs(Fraction(digits) - value) <= slack


def _counts_wholes(left: str, number: str, value: Fraction) -> bool:
    """Whether a division that does not come out even was rounded to whole things, up or down."""
    divides = "/" in left or "÷" in left
    return divides and _plain(number).isdigit() and abs(int(_plain(number)) - value) < 1


def in_the_form_of(number: str, value: Fraction) -> str:
    """Returns a value with the currency sign and the grouping of a number, or of an expression.

    >>> in_the_form_of("$1,200", Fraction(2400))
    '$2,400'
    """
    digits = calculator.write(value)
    if "," in number:
        whole, point, rest = digits.partition(".")
        digits = f"{int(whole):,}{point}{rest}"
    sign = "-" if digits.startswith("-") else ""
    return f"{sign}$" + digits.removeprefix("-") if "$" in number else digits
