"""Chooses answered questions to show, from samples files in lm-evaluation-harness form."""

import collections
import re
from collections.abc import Sequence
from typing import Any

from specialize_jax.report import accuracy, coerce, roles
from specialize_jax.report.collect import Evaluation

_FINAL = "####"  # before the final answer of GSM8K
_ANNOTATION = re.compile(r"<<[^<>]*>>")

EACH = 8  # of every verdict, the first in file order: nothing is picked for its looks


def choose(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Returns the first samples of every verdict, per task of each run's last evaluation."""
    last: dict[tuple[str, str], Evaluation] = {}
    for evaluation in evaluations:
        for task in evaluation.samples:
            held = last.get((evaluation.label, task))
            if held is None or (evaluation.step or 0) >= (held.step or 0):
                last[evaluation.label, task] = evaluation
    groups = []
    for (run, task), evaluation in last.items():
        samples = merge(evaluation.samples[task])
        verdicts: collections.Counter[str] = collections.Counter()
        items = []
        for sample in samples:
            verdicts[sample["verdict"]] += 1
            if verdicts[sample["verdict"]] <= EACH:
                items.append(sample)
        where = {"run": run, "step": evaluation.step}
        where |= roles.place(task, evaluation.configs.get(task, {}))
        groups.append({**where, "of": len(samples), "verdicts": dict(verdicts), "items": items})
    return sorted(groups, key=order)


def order(group: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the sort key of a task: by role, data set, format, run."""
    place = roles.role_order(group["role"]), roles.data_set_order(group["data_set"])
    return (*place, roles.format_order(group["format"]), group["run"])


def merge(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns samples by document: the harness writes one line for every extraction mode.

    A sample's verdict is `right`, `wrong`, `mixed` (the modes disagree) or `unknown`.
    """
    merged: dict[str, dict[str, Any]] = {}
    for position, line in enumerate(lines):
        key = str(line.get("doc_id", f"line {position}"))
        sample = merged.setdefault(key, _sample(key, line))
        right = next(
            (v for m in accuracy.METRICS if (v := coerce.number(line.get(m))) is not None), None
        )
        sample["modes"].append(
            {
                "mode": str(line.get("filter", "none")),
                "extracted": coerce.first(line.get("filtered_resps")),
                "right": None if right is None else right > 0,
            }
        )
    names = {True: "right", False: "wrong", None: "unknown"}
    for sample in merged.values():
        sample["modes"].sort(key=lambda mode: accuracy.mode_order(mode["mode"]))
        verdicts = {mode["right"] for mode in sample["modes"]}
        sample["verdict"] = names[verdicts.pop()] if len(verdicts) == 1 else "mixed"
    return list(merged.values())


def _sample(key: str, line: dict[str, Any]) -> dict[str, Any]:
    question, prompt = line.get("doc"), line.get("arguments")
    chain = None
    if isinstance(question, dict):
        chain = _chain(question)
        fields = ("question", "input", "problem")
        question = next((question[name] for name in fields if name in question), None)
    if isinstance(prompt, dict):  # newer harness: {"gen_args_0": {"arg_0": prompt, ...}}
        prompt = next(iter(prompt.values()), None)
        prompt = prompt.get("arg_0") if isinstance(prompt, dict) else prompt
    return {
        "id": key,
        "question": coerce.text(question),
        "prompt": coerce.first(prompt),
        "output": coerce.first(line.get("resps")),
        "gold": coerce.text(line.get("target")),
        "chain": chain,
        "too_long": line.get("too_long") is True,
        "modes": [],
    }


def _chain(row: dict[str, Any]) -> str | None:
    """Returns the gold solution of a row, without GSM8K's annotations; None where it has none."""
    answer, solution = row.get("answer"), row.get("solution")
    if isinstance(answer, str) and _FINAL in answer:
        solution = answer.partition(_FINAL)[0].strip()
    return _ANNOTATION.sub("", solution) if isinstance(solution, str) else None
