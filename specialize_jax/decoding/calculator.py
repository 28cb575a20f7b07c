r"""Arithmetic as worked solutions write it: exact, bounded, and with a parser of its own.

`evaluate` reads one expression. `correct` goes through a finished solution, computes the left side
of every equation, mends the right side where it is wrong, and carries what it mended into the
equations that follow: the calculator that [Wei et al. 2022](https://arxiv.org/abs/2201.11903) and
after them 2212.08410 put behind a model's chain of thought. The rules by which it carries on are
ours, since neither paper spells them out; see `correct`.

An expression is made of numbers (`12`, `1,200`, `.5`, `$3`), `+ - * /` and their signs in print
(`−`, `×`, `÷`, `x` between numbers), brackets and signs. Anything else is no expression and is left
alone: powers, percentages (is 20% + 30% 50 or 0.5?), `2(3)`, digits of other scripts, division by
zero, what is longer than `MAX_LENGTH` or deeper than `MAX_DEPTH`. Within these bounds every result
is an exact rational of a few hundred digits at most, in time linear in the text.
"""

import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

MAX_LENGTH = 200
"""Characters of an expression."""
MAX_DEPTH = 20
"""Brackets and signs within one another."""
MAX_DIGITS = 30
"""Characters of a number."""

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|(?!0\d)\d+(?:\.\d+)?|\.\d+"
_TIMES = r"x(?=[ \t]*[\d$(.])"  # 3x4 and 3 x (1 + 1), but no x that is a letter: 3x - 5
_TOKEN = re.compile(
    rf"[ \t]*(?:(?P<number>\$?[ ]?(?:{_NUMBER}))(?!(?!{_TIMES})[\w%.²³¹])"
    rf"|(?P<sign>[-+*/()−–×÷]|{_TIMES}))",
    re.ASCII,
)
_SIGNS = {"−": "-", "–": "-", "×": "*", "x": "*", "÷": "/"}
_OPERATORS: dict[str, tuple[int, Callable[[Fraction, Fraction], Fraction]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
}


def evaluate(expression: str) -> Fraction | None:
    """Returns the value of an arithmetic expression; None where it is none, or has none.

    >>> evaluate("$1,200 / 5 + .5"), evaluate("2 - 3 x 4"), evaluate("1 / 3")
    (Fraction(481, 2), Fraction(-10, 1), Fraction(1, 3))
    >>> evaluate("9**9**9"), evaluate("1 / (2 - 2)"), evaluate("two + 2")
    (None, None, None)

    Args:
      expression: any text; the module says what counts as an expression. A number alone is one.
    """
    tokens = _tokens(expression)
    if not tokens:
        return None
    try:
        parser = _Parser(tokens)
        value = parser.sum_of(1, 0)
        return value if parser.at_end else None
    except (_NotArithmeticError, ZeroDivisionError):
        return None


class _NotArithmeticError(ValueError):
    """The tokens are not an expression."""


def _tokens(text: str) -> list[str] | None:
    """Numbers and signs, in one spelling; None where something else stands among them."""
    text = text.strip(" \t")
    if len(text) > MAX_LENGTH:
        return None
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            return None
        at = found.end()
        if found["number"]:
            digits = found["number"].lstrip("$ ").replace(",", "")
            if len(digits) > MAX_DIGITS:
                return None
            tokens.append(digits)
        else:
            tokens.append(_SIGNS.get(found["sign"], found["sign"]))
    return tokens


class _Parser:
    """Precedence climbing over tokens; operators of one rank bind to the left."""

    def __init__(self, tokens: list[str]):
        self._tokens = tokens
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def _peek(self) -> str:
        return "" if self.at_end else self._tokens[self._at]

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def sum_of(self, rank: int, depth: int) -> Fraction:
        """The longest expression from here on whose operators are of this rank or above."""
        value = self._operand(depth)
        while (found := _OPERATORS.get(self._peek())) and found[0] >= rank:
            self._take()
            value = found[1](value, self.sum_of(found[0] + 1, depth))
        return value

    def _operand(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise _NotArithmeticError
        token = self._take()
        if token in ("-", "+"):
            value = self._operand(depth + 1)
            return -value if token == "-" else value
        if token == "(":
            value = self.sum_of(1, depth + 1)
            if self._take() != ")":
                raise _NotArithmeticError
            return value
        if token[:1].isdigit() or token[:1] == ".":
            return Fraction(token)
        raise _NotArithmeticError


def write(value: Fraction, *, places: int = 2) -> str:
    """Returns a value as a solution would write it.

    >>> write(Fraction(24)), write(Fraction(-5, 8)), write(Fraction(1, 3))
    ('24', '-0.625', '0.33')

    Args:
      value: any rational.
      places: decimals of a value that has no end in six; a value that has is written whole.
    """
    exact = value * 10**6
    if exact.denominator != 1:
        exact = Fraction(round(value * 10**places) * 10 ** (6 - places))
    sign = "-" if exact < 0 else ""
    whole, rest = divmod(abs(int(exact)), 10**6)
    return f"{sign}{whole}.{rest:06d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


# ---- equations in a solution ----

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
    rf"[ \t]*(?P<number>-?\$?-?(?:{_NUMBER}))"
    r"(?![.,]?[\w%]|[ ]?[-+*/−–×÷x][ ]?[\w(.$]|[ ]\d|[ ]and[ ]\d)",
    re.ASCII,
)
_CUE = re.compile(r"\banswer(?:\b is\b|:)|####|^A:", re.IGNORECASE | re.MULTILINE)
_AGAIN = re.compile(r">>\$?")  # GSM8K's <<48/2=24>>24
_ANY_NUMBER = re.compile(rf"(?<![\w.])(?:{_NUMBER})(?![\w%])")


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
    low = max(0, sign - MAX_LENGTH)
    tail = _LEFT_SIDE.search(text, low, sign)
    assert tail is not None  # it matches nothing at least
    for start in [tail.start(), *(b.end() for b in _BREAK.finditer(text, tail.start(), sign))]:
        start += len(_LEADING.match(text, start)[0])  # type: ignore[index]  # it matches nothing
        left, before = text[start:sign].rstrip(" \t"), text[low:start]
        if before[-1:].isalnum() or _AND.search(before):
            continue
        if left[:1] in ("+", "-", "−", "–") and not _NOTHING_TO_ADD_TO.search(before):
            continue
        if (value := evaluate(left)) is not None and _computes(left):
            number = _RIGHT_SIDE.match(text, sign + 1)
            return Equation(left, value, start, number and number.span("number"))
    return None


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
    among its numbers ("M + 4 + 2 = 8", "8 x 1 1/2 = 12"), with two divisions ("25 / 1/3 = 75"), or
    where computing goes on behind it ("12 x 2 = 24 / 3"). Of GSM8K's 7,473 worked solutions this
    changes 25, of which most are wrong as they stand.

    Args:
      text: a solution.

    Returns:
      The text, and what was changed, in order.
    """
    renamed: dict[str, str] = {}
    edits: list[Correction] = []
    for found in equations(text):
        inside = _renamings(text, found.start, found.start + len(found.left), renamed)
        value = evaluate(_apply(found.left, inside, found.start))
        if value is None:  # with what was mended it would divide by zero
            continue
        edits += inside
        if found.right is None:
            continue
        old = text[slice(*found.right)]
        renamed.pop(_plain(old), None)
        if not _shows(old, value):
            new = _in_the_form_of(old, value)
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


def _in_the_form_of(number: str, value: Fraction) -> str:
    """The value with the currency sign and the grouping of a number."""
    digits = write(value)
    if "," in number:
        whole, point, rest = digits.partition(".")
        digits = f"{int(whole):,}{point}{rest}"
    sign = "-" if digits.startswith("-") else ""
    return f"{sign}$" + digits.removeprefix("-") if "$" in number else digits
