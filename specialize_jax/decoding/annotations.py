"""Calculations that a solution marks as such, and the forms of marking them.

| form          | text                   | who can write it                             |
|---------------|------------------------|----------------------------------------------|
| `annotations` | `48/2 = <<48/2=24>>24` | GSM8K's own; byte-level vocabularies (GPT-2) |
| `delimited`   | `48/2 = [48/2=24]24`   | T5 too, whose vocabulary has no `<`          |

Square brackets, because T5 has them as pieces of their own, never joined to a digit: `(` is also
in `(1` and `4)`, so that a calculation would be cut differently from case to case, and belongs to
expressions besides; `|` and `#` do not tell the start from the end. Of GSM8K's 7,473 solutions two
have a square bracket at all, and neither around anything with `=`.
"""

import re

DELIMITERS = {"annotations": ("<<", ">>"), "delimited": ("[", "]")}
"""Form -> what stands before and after a calculation."""

_SIDE = r"[^<>\[\]\n=A-Za-z]*"


def rewrite(text: str, form: str | None, *, source: str = "annotations") -> str:
    """Returns a solution with its calculations in another form.

    >>> rewrite("48/2 = $<<48/2=24>>24.", "delimited"), rewrite("48/2 = $<<48/2=24>>24.", None)
    ('48/2 = $[48/2=24]24.', '48/2 = $24.')

    Args:
      text: a solution, as GSM8K's gold ones.
      form: one of `DELIMITERS`; None leaves the calculations out.
      source: their form in the text. What stands between its delimiters and is no calculation (no
        digit, no `=`, or a letter) is left alone.

    Raises:
      ValueError: unknown form; lists the choices.
    """
    opening, closing = map(re.escape, delimiters(source))
    before, after = delimiters(form) if form is not None else ("", "")

    def rewritten(found: re.Match[str]) -> str:
        left, right = found[1], found[2]
        if not any(char.isdigit() for char in left):
            return found[0]
        return f"{before}{left}={right}{after}" if form is not None else ""

    return re.sub(f"{opening}({_SIDE})=({_SIDE}){closing}", rewritten, text)


def delimiters(form: str) -> tuple[str, str]:
    """Returns what stands before and after a calculation of a form.

    Raises:
      ValueError: unknown form; lists the choices.
    """
    if form not in DELIMITERS:
        raise ValueError(f"unknown form of calculations '{form}'; choices: {', '.join(DELIMITERS)}")
    return DELIMITERS[form]


def open_calculation(text: str, form: str) -> str | None:
    """Returns the left side of the calculation at whose `=` a text ends; None where there is none.

    >>> open_calculation("She sold 48/2 = <<48/2=", "annotations")
    '48/2'

    Raises:
      ValueError: unknown form; lists the choices.
    """
    opening, closing = delimiters(form)
    _, begun, calculation = text.rstrip(" ").rpartition(opening)
    left, sign, rest = calculation.partition("=")
    if not begun or not sign or rest or closing in calculation:
        return None
    return left
