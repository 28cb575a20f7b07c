"""Wrong answers and the place where each first goes wrong, as far as its files tell.

| place       | what is known                                                                    |
|-------------|----------------------------------------------------------------------------------|
| `equation`  | the first equation whose right side is not the value of its left side            |
| `number`    | the first number that neither the question nor the gold solution has, where the  |
|             | set has gold solutions; another right way to the answer may have such a number   |
| `answer`    | the solution has no such place: its plan or its final answer is wrong            |
| `no_answer` | no answer was found in it                                                        |
| `empty`     | the model wrote nothing                                                          |
| `too_long`  | it was not asked: the prompt is longer than the model's limit                    |
"""

import collections
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from specialize_jax.report import coerce, roles, samples
from specialize_jax.report.evaluations import Evaluation
from specialize_jax.schemas import results

PLACES = {
    "equation": "at an equation",
    "number": "at a number",
    "answer": "in plan or final answer",
    "no_answer": "no answer found",
    "empty": "nothing written",
    "too_long": "too long to ask",
}
EACH = 3  # of a task, drawn by `SEED`
SEED = 0
_LONGEST = 700  # characters of a shown text
_BEFORE = 450  # of these before the mark, where a text is cut
_NUMBER = re.compile(r"(?<![\w.])\$?(\d(?:[\d,]*\d)?(?:\.\d+)?|\.\d+)(?!\w)", re.ASCII)
_CUE = re.compile(r"answer is|answer:|####", re.IGNORECASE)

_Span = tuple[int, int]


def gallery(
    evaluations: Sequence[Evaluation], shown: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the wrong answers of every task at its run's reported step.

    Args:
      evaluations: as read.
      shown: of `comparing.reported`.

    Returns:
      A row a task: its place, `mode` (the extraction that counts), `of` answers, `wrong`,
      `has_solutions` (whether the set has gold ones), `places` (how many of the wrong ones first go
      wrong where) and up to `EACH` `items` drawn by `SEED`.
    """
    rows = []
    for evaluation in evaluations:
        if shown.get(evaluation.label, {}).get("step", -1) != evaluation.step:
            continue
        for task, lines in evaluation.samples.items():
            merged = [one for one in samples.merge(lines) if one["modes"][0]["right"] is not None]
            wrong = [one for one in merged if not one["modes"][0]["right"]]
            if not wrong:
                continue
            found = [first_error(one) for one in wrong]
            counts = collections.Counter(place for place, _, _ in found)
            where = {"run": evaluation.label, "step": evaluation.step}
            where |= roles.place(task, evaluation.configs.get(task, {}))
            drawn = random.Random(f"{SEED}/{task}").sample(range(len(wrong)), min(EACH, len(wrong)))
            rows.append(
                {
                    **where,
                    "mode": wrong[0]["modes"][0]["mode"],
                    "of": len(merged),
                    "wrong": len(wrong),
                    "has_solutions": any(one["chain"] is not None for one in merged),
                    "places": {name: counts[name] for name in PLACES if counts[name]},
                    "items": [_item(wrong[i], *found[i]) for i in sorted(drawn)],
                }
            )
    return sorted(rows, key=samples.order)


def first_error(sample: Mapping[str, Any]) -> tuple[str, _Span | None, str | None]:
    """Returns where a wrong answer first goes wrong.

    Args:
      sample: of `samples.merge`.

    Returns:
      A key of `PLACES`, the characters [start, end) of the output where one is known, and what
      should stand there where that is known.
    """
    output = sample["output"] or ""
    if sample["too_long"]:
        return "too_long", None, None
    if not output.strip():
        return "empty", None, None
    # Here: it brings JAX along, which nothing else of a report needs.
    from specialize_jax.decoding import equations

    if corrections := equations.correct(output)[1]:
        first = corrections[0]  # what is carried on from it comes behind it
        return "equation", (first.at, first.at + len(first.old)), first.new
    if sample["chain"] is not None and (span := _strange_number(sample, output)):
        return "number", span, None
    extracted = sample["modes"][0]["extracted"]
    if extracted in (None, results.NOT_FOUND):
        return "no_answer", None, None
    return "answer", None, None


def _strange_number(sample: Mapping[str, Any], output: str) -> _Span | None:
    """Returns the first number before the final answer that question and solution lack."""
    known = _values(sample["question"] or "") | _values(sample["chain"])
    cues = list(_CUE.finditer(output))
    end = cues[-1].start() if cues else len(output)
    for number in _NUMBER.finditer(output, 0, end):
        if _value(number[1]) not in known:
            return number.span()
    return None


def _values(text: str) -> set[float]:
    return {_value(number[1]) for number in _NUMBER.finditer(text)}


def _value(digits: str) -> float:
    return float(digits.replace(",", ""))


def _item(
    sample: Mapping[str, Any], place: str, span: _Span | None, expected: str | None
) -> dict[str, Any]:
    output = sample["output"] or ""
    start, end = span or (len(output), len(output))
    low = max(0, start - _BEFORE) if len(output) > _LONGEST else 0
    high = min(len(output), low + _LONGEST)
    mode = sample["modes"][0]
    extracted = mode["extracted"]
    return {
        "id": sample["id"],
        "question": _cut(sample["question"]),
        "place": place,
        "before": ("…" if low else "") + output[low:start],
        "marked": output[start:end],
        "after": output[end:high] + ("…" if high < len(output) else ""),
        "expected": expected,
        "extracted": None if extracted == results.NOT_FOUND else coerce.text(extracted),
        "gold": _cut(sample["gold"]),
        "chain": _cut(sample["chain"]),
    }


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST:
        return text
    return text[:_LONGEST] + "…"
