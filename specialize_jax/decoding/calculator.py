"""Arithmetic as worked solutions write it: exact, bounded, and with a parser of its own.

An expression is made of numbers (`12`, `1,200`, `.5`, `$3`), `+ - * /` and their signs in print
(`−`, `×`, `÷`, `x` between numbers), brackets and signs. Anything else is no expression and is left
alone: powers, percentages (is 20% + 30% 50 or 0.5?), `2(3)`, digits of other scripts, division by
zero, what is longer than `MAX_LENGTH` or deeper than `MAX_DEPTH`. Within these bounds every result
is an exact rational of a few hundred digits at most, in time linear in the text.
"""

import operator
import re
from collections.abc import Callable
from fractions import Fraction

MAX_LENGTH = 200
"""Characters of an expression."""
MAX_DEPTH = 20
"""Brackets and signs within one another."""
MAX_DIGITS = 30
"""Characters of a number."""

NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|(?!0\d)\d+(?:\.\d+)?|\.\d+"
_TIMES = r"x(?=[ \t]*[\d$(.])"  # 3x4 and 3 x (1 + 1), but no x that is a letter: 3x - 5
_TOKEN = re.compile(
    rf"[ \t]*(?:(?P<number>\$?[ ]?(?:{NUMBER}))(?!(?!{_TIMES})[\w%.²³¹])"
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
