"""Prompts of BIG-Bench Hard's tasks, and the kinds of their answers; text in, text out.

The published prompt of a task is two header lines (a canary), what the task is, and three questions
worked step by step. From it are made, for the in-context formats:

| mode        | chain of thought                   | answer only (direct)                          |
|-------------|------------------------------------|-----------------------------------------------|
| `corrected` | task and exemplars, without header | task and the exemplars' questions and answers |
| `fu2023`    | the whole file, header included    | header, task, one direct exemplar, and one    |
|             |                                    | with its chain, cut before its answer         |

`fu2023` is what test_bbh.py of https://github.com/FranxYao/FlanT5-CoT-Specialization makes, faults
and all. Its score is a mode of `answers`, `fu2023_bbh`.
"""

import functools
import re
from typing import NamedTuple

KINDS = {
    "boolean_expressions": "boolean",
    "causal_judgement": "boolean",
    "date_understanding": "option",
    "disambiguation_qa": "option",
    "dyck_languages": "text",
    "formal_fallacies": "text",
    "geometric_shapes": "option",
    "hyperbaton": "option",
    "logical_deduction_five_objects": "option",
    "logical_deduction_seven_objects": "option",
    "logical_deduction_three_objects": "option",
    "movie_recommendation": "option",
    "multistep_arithmetic_two": "number",
    "navigate": "boolean",
    "object_counting": "number",
    "penguins_in_a_table": "option",
    "reasoning_about_colored_objects": "option",
    "ruin_names": "option",
    "salient_translation_error_detection": "option",
    "snarks": "option",
    "sports_understanding": "boolean",
    "temporal_sequences": "option",
    "tracking_shuffled_objects_five_objects": "option",
    "tracking_shuffled_objects_seven_objects": "option",
    "tracking_shuffled_objects_three_objects": "option",
    "web_of_lies": "boolean",
    "word_sorting": "text",
}
"""Task -> kind of its answers, of `answers.KINDS`."""
SHOTS = 3
_CUE = "the answer is"
_STEP_BY_STEP = "A: Let's think step by step."
_HEADER = re.compile(r"\A[^\n]*canary[^\n]*\n-----\n")
_EXEMPLAR = re.compile(
    r"Q: (?P<question>.+?)\nA: (?P<chain>Let's think step by step\..*?"
    r"So the answer is (?P<answer>[^\n]+?)\.)\Z",
    re.DOTALL,
)


class _Prompt(NamedTuple):
    description: str
    exemplars: list[dict[str, str]]


def prompt(text: str, question: str, label: str, mode: str, where: str) -> str:
    """Returns an in-context prompt.

    Args:
      text: the published prompt of the task.
      question: an `input` of the task.
      label: "in_context_chain_of_thought" or "in_context_answer_only".
      mode: "corrected" or "fu2023".
      where: named in errors.

    Raises:
      ValueError: the text is not of the published form, or there is no such prompt; lists the
        choices.
    """
    builders = {"corrected": _CORRECTED, "fu2023": _FU2023}
    if mode not in builders or label not in builders[mode]:
        raise ValueError(
            f"no BBH prompt of mode '{mode}' in format '{label}'; modes: {', '.join(builders)}; "
            f"formats: {', '.join(_CORRECTED)}"
        )
    return builders[mode][label](text, question, where)


@functools.lru_cache(maxsize=64)
def _parse(text: str, where: str) -> _Prompt:
    header = _HEADER.match(text)
    description, *blocks = re.split(r"\n\n(?=Q: )", text[header.end() :] if header else text)
    found = [_EXEMPLAR.match(block.strip()) for block in blocks]
    exemplars = [match.groupdict() for match in found if match is not None]
    if len(exemplars) != SHOTS or len(found) != SHOTS:
        raise ValueError(
            f"'{where}': expected what the task is and {SHOTS} exemplars 'Q: ...', "
            f"'{_STEP_BY_STEP} ... So the answer is ...', got {len(exemplars)} of {len(found)}"
        )
    return _Prompt(description, exemplars)


def _chain(text: str, question: str, where: str) -> str:
    parsed = _parse(text, where)
    shown = [f"Q: {e['question']}\nA: {e['chain']}\n\n" for e in parsed.exemplars]
    return f"{parsed.description}\n\n{''.join(shown)}Q: {question}\n{_STEP_BY_STEP}\n"


def _direct(text: str, question: str, where: str) -> str:
    parsed = _parse(text, where)
    # As the four formats put it, whose answers begin with "The answer is".
    shown = [f"Q: {e['question']}\nA: The answer is {e['answer']}.\n\n" for e in parsed.exemplars]
    return f"{parsed.description}\n\n{''.join(shown)}Q: {question}\nA:"


def _fu2023_chain(text: str, question: str, where: str) -> str:
    return f"{text}\n\nQ: {question}\n{_STEP_BY_STEP}\n"


def _fu2023_direct(text: str, question: str, where: str) -> str:
    first_question = text.split("A:")[0]
    _, *after = text.split(f"{_CUE} ")
    if not after:
        raise ValueError(f"'{where}': expected '{_CUE} ...', got none")
    return f"{first_question}A: {_CUE} {after[0]}\n\nQ: {question}\nA: {_CUE} "


_CORRECTED = {"in_context_chain_of_thought": _chain, "in_context_answer_only": _direct}
_FU2023 = {"in_context_chain_of_thought": _fu2023_chain, "in_context_answer_only": _fu2023_direct}
