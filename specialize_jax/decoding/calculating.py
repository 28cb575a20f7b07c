"""A calculator at a model's side: which tokens call it, and what it makes the model write.

| kind          | when                | what it does                                               |
|---------------|---------------------|------------------------------------------------------------|
| `none`        |                     | nothing                                                    |
| `equations`   | while decoding      | behind `48/2 =` the model has to write ` 24`               |
| `annotations` | while decoding      | behind `<<48/2=` it has to write `24>>` (GSM8K's form)     |
| `delimited`   | while decoding      | behind `[48/2=` it has to write `24]` (a form for T5)      |
| `after`       | on finished answers | `equations.correct`: right sides are mended and carried on |

`equations` is for any student; `annotations` and `delimited` for one that was trained on solutions
in that form (`annotations.rewrite`). The first three stop a row at a token that ends in `=`, ask
the host, and force the tokens of its answer. `after` is the reading of 2212.08410 by way of
[Wei et al. 2022](https://arxiv.org/abs/2201.11903); annotations those of
[Cobbe et al. 2021](https://arxiv.org/abs/2110.14168), with exact arithmetic and a parser of its own
where their code evaluates Python.

The calculator answers only where it knows: a left side of `calculator.evaluate`, a result of
`MAX_RESULT` characters at most, and tokens that extend those written. Elsewhere the model goes on
by itself.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from specialize_jax.decoding import annotations, equations
from specialize_jax.decoding.calculator import evaluate, write

KINDS = ("none", "equations", *annotations.DELIMITERS, "after")
MAX_RESULT = 30
"""Characters of a result; a longer one would use up the tokens of an answer."""

Respond = Callable[[Sequence[int]], list[int]]
"""`respond(all tokens that a row wrote) -> tokens that it must write next`; empty: it goes on."""

_CALLING = re.compile(r"=[ \u2581]*$")
_BY_MONEY = re.compile(r"[/÷] ?\$")


def calculator(
    kind: str,
    *,
    encode: Callable[[str], list[int]],
    decode: Callable[[Sequence[int]], str],
    surfaces: Sequence[str],
) -> tuple[np.ndarray, Respond] | tuple[None, None]:
    """Returns which tokens stop a row, and what answers it.

    Args:
      kind: one of `KINDS`.
      encode: text -> ids, without end-of-sequence.
      decode: ids -> text.
      surfaces: the text of every entry of the vocabulary, `V` of them; U+2581 is a space.

    Returns:
      [V] bool, the tokens that call; and `respond`. Both None for kinds that do nothing while
      decoding.

    Raises:
      ValueError: unknown kind, or one whose signs the vocabulary cannot write; lists the choices.
    """
    check(kind)
    if kind in ("none", "after"):
        return None, None
    example = "2 + 2 ="
    if kind != "equations":
        opening, closing = annotations.delimiters(kind)
        example = f"{opening}2+2=4{closing}"
    if decode(encode(example)).strip() != example:
        raise ValueError(
            f"calculator '{kind}' needs '{example}', which this tokenizer writes as "
            f"'{decode(encode(example))}'; choices: {', '.join(KINDS)}"
        )
    halting = np.asarray([bool(_CALLING.search(surface)) for surface in surfaces])

    def respond(tokens: Sequence[int]) -> list[int]:
        text = decode(tokens)
        answer = result(text, kind)
        return _continuation(tokens, text, answer, encode, decode) if answer else []

    return halting, respond


def result(text: str, kind: str) -> str | None:
    """Returns what the calculator writes behind a text; None where it has nothing to say.

    >>> result("She sold 48/2 =", "equations"), result("48/2 = <<48/2=", "annotations")
    (' 24', '24>>')

    Args:
      text: of a row so far.
      kind: one that works while decoding.
    """
    if kind == "equations":
        equation = equations.last_equation(text)
        if equation is None:
            return None
        written = _in_the_form_of(equation.left, equation.value)
        space = " " if text.rstrip(" ")[-2:-1] == " " and not text.endswith(" ") else ""
        return _unless_long(written, space + written)
    left = annotations.open_calculation(text, kind)
    value = None if left is None else evaluate(left)
    if value is None:
        return None
    written = write(value)
    return _unless_long(written, written + annotations.delimiters(kind)[1])


def revised(text: str, kind: str) -> str:
    """Returns a finished answer as it is to be scored: put right for kind `after`, else as it is.

    Raises:
      ValueError: unknown kind; lists the choices.
    """
    check(kind)
    return equations.correct(text)[0] if kind == "after" else text


def while_decoding(kind: str) -> str:
    """Returns the kind that works while decoding: `none` where finished answers are put right."""
    check(kind)
    return "none" if kind == "after" else kind


def check(kind: str) -> None:
    """Raises a ValueError that lists the choices where a kind is unknown."""
    if kind not in KINDS:
        raise ValueError(f"unknown calculator '{kind}'; choices: {', '.join(KINDS)}")


def _unless_long(written: str, answer: str) -> str | None:
    return answer if len(written) <= MAX_RESULT else None


def _in_the_form_of(left: str, value: Fraction) -> str:
    """The value with the left side's currency sign and grouping; money by money has no sign."""
    like = left.replace("$", "") if _BY_MONEY.search(left) else left
    return equations.in_the_form_of(like, value)


def _continuation(
    tokens: Sequence[int],
    text: str,
    answer: str,
    encode: Callable[[str], list[int]],
    decode: Callable[[Sequence[int]], str],
) -> list[int]:
    """The tokens that make `text` into `text + answer`; none where they would change it.

    What counts is the cut that the tokenizer makes: where it would join the sign and the result in
    one token, a student never saw the two apart. A row may have cut earlier words in its own way.
    """
    before, after = encode(text), encode(text + answer)
    if after[: len(before)] != before:
        return []
    added = after[len(before) :]
    return added if decode([*tokens, *added]) == text + answer else []
