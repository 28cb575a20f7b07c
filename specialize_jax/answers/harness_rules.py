r"""Answers as lm-evaluation-harness reads them, task by task and filter by filter.

Patterns, stop strings and what is left out of a comparison are those of
[EleutherAI/lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness) at commit
4e7e0d47f33bc71070c1d38394bafbb52b117163 (August 2026); the code around them is ours. They are here
so that one set of outputs can be reported beside others' numbers, so their faults are kept: the
pattern of `gsm8k_cot:strict-match` ends in a dot that stands for any character, and "The answer is
18" at the end of a text reads as 1; `bbh_cot_fewshot:get-answer` leaves off the last character of
the line, which is right only for a full stop.

A text is first cut at the earliest string at which the harness would have stopped the model. Left
out: `flexible-extract` of the zero-shot BBH and MMLU tasks, which looks for the question's own
choices or reads numbers in words, and whatever is scored by likelihood.

Every pattern here is linear in the text: none has two repetitions that can share characters, or
the shorter is tried once for a run of them.
"""

import collections
import itertools
import re
import string
from typing import NamedTuple


class Rule(NamedTuple):
    """One filter of one task.

    Attributes:
      pattern: of the answer, which is its first group that holds something; None takes the text.
      last: whether the last match counts, not the first.
      stops: strings at which the model would have been stopped.
      ignored: patterns taken out of answer and gold before they are compared, in this order.
      fold: whether both are then lowered.
      punctuation: ASCII punctuation that is then taken out.
      kinds: of answers that the task asks for.
    """

    pattern: str | None
    last: bool = False
    stops: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    fold: bool = False
    punctuation: str = ""
    kinds: tuple[str, ...] = ("number", "option", "boolean", "text")


_HASHES = r"(?s).*#### "
_END_OF_TURN = ("</s>", "<|im_end|>")
_QUESTION = ("Q:", *_END_OF_TURN)
_LLAMA = ("<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", *_QUESTION)

_MATHS = Rule(None, ignored=(",", r"\$", _HASHES, r"\.$"), fold=True, kinds=("number",))
_ANY_NUMBER = _MATHS._replace(pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", last=True)
_OPTION = Rule(None, fold=True, punctuation=string.punctuation, kinds=("option",))

_GSM8K = {
    "strict-match": _MATHS._replace(
        pattern=r"#### (\-?[0-9\.\,]+)", stops=("Question:", *_END_OF_TURN)
    ),
    "flexible-extract": _ANY_NUMBER._replace(stops=("Question:", *_END_OF_TURN)),
}
_GSM8K_COT = {
    "strict-match": _MATHS._replace(pattern=r"The answer is (\-?[0-9\.\,]+).", stops=_QUESTION),
    "flexible-extract": _ANY_NUMBER._replace(stops=_QUESTION),
}
_FINAL_ANSWER = {
    "strict-match": _MATHS._replace(
        pattern=r"The final answer is ((-?[$0-9.,]{2,})|(-?[0-9]+))", last=True, stops=_LLAMA
    ),
    "flexible-extract": _ANY_NUMBER._replace(stops=_LLAMA),
}

TASKS: dict[str, dict[str, Rule]] = {
    "gsm8k": _GSM8K,
    "gsm_plus": _GSM8K,
    "gsm8k_cot": _GSM8K_COT,
    "gsm8k_cot_zeroshot": _GSM8K_COT,
    "gsm8k_cot_llama": _FINAL_ANSWER,
    "asdiv_cot_llama": _FINAL_ANSWER,
    "gsm8k_cot_self_consistency": {
        "score-first": _MATHS._replace(
            pattern=r"The answer is (\-?[0-9\.\,]*[0-9]+)", stops=("Q:", "\n\n")
        )
    },
    "bbh_cot_fewshot": {
        "get-answer": Rule(r"(?<=the answer is )(.*)(?=.)", stops=("</s>", "Q", "\n\n"))
    },
    "bbh_cot_zeroshot": {
        "strict-match": Rule(
            r"((?<=The answer is )(.*)(?=.)|(?<=the answer is )(.*)(?=.)"
            r"|(?<=The answer: )(.*)(?=.)|(?<=The final answer: )(.*)(?=.))",
            stops=_QUESTION,
            ignored=(r"\.$", ",", r"\\", "\n", '"'),
            fold=True,
        )
    },
    "bbh_fewshot": {"none": Rule(None, stops=("</s>", "Q", "\n\n"))},
    "mmlu_flan_cot_fewshot": {
        "get-answer": _OPTION._replace(pattern=r"(?<=answer is )(.*)(?=.)", stops=("</s>",))
    },
    "mmlu_flan_cot_zeroshot": {
        "strict-match": _OPTION._replace(
            pattern=r"((?<=The answer is )(.*)(?=.)|(?<=answer is )(.*)(?=.)"
            r"|(?<=The answer: )(.*)(?=.)|(?<=The final answer: )(.*)(?=.))",
            stops=_QUESTION,
        )
    },
    # Its three filters come to this: the first line without the spaces around it.
    "mmlu_generative": {"get_response": _OPTION._replace(pattern="(.*)", stops=("</s>", "\n"))},
}
"""Task name -> filter name -> its rule, under the harness's own names."""

RULES = {f"{task}:{name}": rule for task, rules in TASKS.items() for name, rule in rules.items()}
"""Mode name, as "gsm8k_cot:strict-match" -> its rule."""


def modes_of(task: str) -> tuple[str, ...]:
    """Returns the modes of a task.

    Args:
      task: one of `TASKS`, or a sub-task of one of them, as "bbh_cot_fewshot_navigate".

    Raises:
      ValueError: unknown task; lists the choices.
    """
    if task not in TASKS:
        task = next((name for name in TASKS if task.startswith(f"{name}_")), task)
    if task not in TASKS:
        raise ValueError(f"unknown harness task '{task}'; choices: {', '.join(TASKS)}")
    return tuple(f"{task}:{name}" for name in TASKS[task])


def extract(text: str, rule: Rule) -> str | None:
    """Returns what a rule reads in a model's text; None for nothing ("[invalid]" there)."""
    for stop in rule.stops:
        text = text.partition(stop)[0]
    if rule.pattern is None:
        return text or None
    matches = re.finditer(rule.pattern, text)
    found = collections.deque(matches, 1) if rule.last else [*itertools.islice(matches, 1)]
    answer = next((group for group in found[0].groups() if group), "") if found else ""
    return answer.strip() or None


def reference(gold: str, rule: Rule) -> str | None:
    """Returns a gold answer as the rule's task gives it to the comparison.

    Of a number it leaves the worked solution before `#### ` out, and a unit behind it in brackets,
    as the harness's task for ASDiv does.
    """
    if rule.kinds == ("number",):
        gold = gold.rpartition("#### ")[2].partition(" (")[0]
    return gold or None


def equal(answer: str, gold: str, rule: Rule) -> bool:
    """Returns whether two answers are the same string when what the rule ignores is out."""
    return _compared(answer, rule) == _compared(gold, rule)


def _compared(answer: str, rule: Rule) -> str:
    for pattern in rule.ignored:
        if pattern == _HASHES:  # as a pattern it would be quadratic
            answer = answer.rpartition("#### ")[2]
        else:
            answer = re.sub(pattern, "", answer)
    if rule.fold:
        answer = answer.lower()
    return answer.translate(dict.fromkeys(map(ord, rule.punctuation)))
