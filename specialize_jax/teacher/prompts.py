"""How a question is put to a teacher: plain text with placeholders.

| placeholder   | stands for                                                   |
|---------------|--------------------------------------------------------------|
| `{question}`  | the question; every prompt has it                            |
| `{answer}`    | the gold answer, as a hint                                   |
| `{exemplars}` | worked questions, from a file of their own                   |

| form                                      | what it is                                         |
|-------------------------------------------|----------------------------------------------------|
| `complex`, `simple`, `original`, `direct` | few-shot prompts of 2301.12726's code              |
| `hint`                                    | `original` with the gold answer after each         |
|                                           | question, as 2212.08410 describes; not its prompt  |
| `decomposition`                           | sub-questions and their answers (2212.00193), in   |
|                                           | the layout of its first author's public prompts    |
"""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

STEP_BY_STEP = "Let's think step by step"
_PLACEHOLDER = re.compile(r"\{(question|answer|exemplars)\}")

# One worked problem of ours; the papers' own prompt of this kind is not public.
_DECOMPOSED = """\
I answer the sub-questions of a problem one after the other, keeping the problem and the earlier \
answers in mind.

Problem: A bakery packs 6 rolls into a bag. On Monday it sells 14 bags and 9 single rolls. How \
many rolls does it sell on Monday?
Q: How many rolls are in the bags that it sells?
A: 14 bags of 6 rolls are 14 * 6 = <<14*6=84>>84 rolls. The answer is 84
Q: How many rolls does it sell on Monday?
A: 84 rolls in bags and 9 single ones are 84 + 9 = <<84+9=93>>93 rolls. The answer is 93
"""


class Form(NamedTuple):
    """A way of asking.

    Attributes:
      template: the text with its placeholders.
      exemplars: the file of `cot_prompts/` whose content `{exemplars}` stands for; None for none.
      stop: sequences at which the teacher is to stop.
      answer_line: whether an answer ends with its first line that says "answer is".
    """

    template: str
    exemplars: str | None = None
    stop: tuple[str, ...] = ()
    answer_line: bool = True


_FEW_SHOT = "{exemplars}\nQuestion: {question}"
_STOP = ("\nQuestion:",)
FORMS: dict[str, Form] = {
    **{
        name: Form(f"{_FEW_SHOT}\n{STEP_BY_STEP}", f"prompt_{name}.txt", _STOP)
        for name in ("complex", "simple", "original")
    },
    "direct": Form(_FEW_SHOT, "prompt_direct.txt", _STOP),
    "hint": Form(
        f"{_FEW_SHOT}\nThe answer is {{answer}}.\n{STEP_BY_STEP}", "prompt_original.txt", _STOP
    ),
    "decomposition": Form(
        f"{_DECOMPOSED}\nProblem: {{question}}\nQ:", None, ("\nProblem:",), answer_line=False
    ),
}


class Worked(Protocol):
    """A worked question; `data.formats.Exemplar` is one."""

    @property
    def question(self) -> str:
        """Its text."""

    @property
    def chain(self) -> str:
        """Its solution, which ends in "The answer is ..."."""

    @property
    def answer(self) -> str:
        """Its final answer."""


def hinted(exemplars: Sequence[Worked]) -> str:
    """Returns the text of exemplars that tell the answer before the steps."""
    return "\n".join(
        f"Question: {e.question}\nThe answer is {e.answer}.\n{STEP_BY_STEP}\n{e.chain}\n"
        for e in exemplars
    )


def check(template: str, where: str, *, exemplars: str | None) -> None:
    """Checks the placeholders of a template.

    Args:
      template: the text of a prompt file.
      where: named in the error.
      exemplars: what `{exemplars}` stands for; None where nobody gave any.

    Raises:
      ValueError: `{question}` is missing, or `{exemplars}` and the exemplars do not go together.
    """
    found = set(_PLACEHOLDER.findall(template))
    if "question" not in found:
        raise ValueError(
            f"{where}: expected the placeholder {{question}}, found "
            f"{', '.join(f'{{{name}}}' for name in sorted(found)) or 'none'}; a file of worked "
            "questions alone goes to --exemplars, with a --prompt that holds {exemplars}"
        )
    if ("exemplars" in found) != (exemplars is not None):
        missing = "has no {exemplars}" if exemplars is not None else "needs --exemplars"
        raise ValueError(f"{where}: the prompt {missing}")


def fill(template: str, *, question: str, answer: str, exemplars: str | None = None) -> str:
    """Returns a prompt.

    Placeholders are replaced once: braces in a question stay as they are.
    """
    values = {"question": question, "answer": answer, "exemplars": exemplars or ""}
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def digest(template: str, exemplars: str | None) -> str:
    """Returns the SHA-256 of a prompt without its question, in hexadecimal."""
    text = fill(template, question="{question}", answer="{answer}", exemplars=exemplars)
    return hashlib.sha256(text.encode()).hexdigest()
