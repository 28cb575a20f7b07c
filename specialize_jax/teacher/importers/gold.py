"""What others call the answer: gold answers, and the last lines of worked solutions."""

import re
from typing import Any, NamedTuple

from specialize_jax import answers
from specialize_jax.schemas import SchemaError

MARK = "#### "
"""What GSM8K's authors put before a final answer."""
_CALCULATOR_MARK = re.compile(r"<<[^>]*>>")


class Asked(NamedTuple):
    """A question as `teacher.collect.Question` has it.

    Attributes:
      id: unique.
      question: its text.
      answer: the gold answer; empty where there is none.
      kind: one of `answers.KINDS`.
      row: its place in the file, from 0.
    """

    id: str
    question: str
    answer: str
    kind: str
    row: int = 0


def gsm8k_parts(answer: str, where: str, mark: str = MARK) -> tuple[str, str]:
    """Splits a worked solution in GSM8K's form into its steps and the final answer.

    Args:
      answer: a solution with `<<3*2=6>>` marks and a last line `#### 6`.
      where: named in the error.
      mark: what the last line begins with.

    Returns:
      The solution without marks and trailing newlines, and the final answer as written.

    Raises:
      SchemaError: there is no final answer.
    """
    solution, found, gold = answer.rpartition(mark)
    if not found or not gold.strip():
        raise SchemaError(
            f"{where}: a question without a gold answer: expected a last line '{mark}<answer>', "
            f"got {answer[-40:]!r}"
        )
    return without_marks(solution), gold.strip()


def without_marks(solution: str) -> str:
    """Returns a solution without what GSM8K's authors wrote for a calculator: `<<3*2=6>>`."""
    return _CALCULATOR_MARK.sub("", solution).strip()


def with_answer(chain: str, final: str) -> str:
    """Returns a chain with the last line that every format of training expects."""
    return f"{chain.rstrip()}\nThe answer is {final}"


def check_kind(value: Any, where: str) -> str:
    """Returns a kind of answers that somebody's file names.

    Raises:
      SchemaError: it is none of `answers.KINDS`.
    """
    if value not in answers.KINDS:
        raise SchemaError(f"{where}: unknown kind {value!r}; choices: {', '.join(answers.KINDS)}")
    return value


def read_gold(value: Any, kind: str, where: str, mark: str = MARK) -> str:
    """Returns a gold answer as records keep it; empty for None and for blank text.

    Args:
      value: a text, of which GSM8K's own form gives what stands behind its mark; a number; or a
        truth value.
      kind: of `answers.KINDS`.
      where: named in the error.
      mark: as `gsm8k_parts`.

    Raises:
      SchemaError: it is something else, or holds no answer of its kind.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, str | int | float):
        raise SchemaError(f"{where}: expected a text or a number as gold answer, got {value!r}")
    gold = str(value)
    if mark in gold:
        gold = gsm8k_parts(gold, where, mark)[1]
    if answers.extract(gold, kind=kind) is None:
        raise SchemaError(
            f"{where}: expected a gold answer of kind '{kind}', got {gold[:80]!r}; kinds: "
            f"{', '.join(answers.KINDS)}"
        )
    return gold.strip()
