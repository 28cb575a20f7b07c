"""Accuracies out of results files, with intervals, and what each is an accuracy of."""

from collections.abc import Sequence
from typing import Any

from specialize_jax import intervals
from specialize_jax.report import coerce, roles
from specialize_jax.report.collect import Evaluation

METRICS = ("accuracy", "exact_match", "acc")  # the first that is there counts
_MODES = ("corrected", "fu2023")  # shown first, in this order


def mode_order(mode: str) -> tuple[int, str]:
    """Returns the sort key of an extraction mode: ours first, then the paper's, then others."""
    return (_MODES.index(mode) if mode in _MODES else len(_MODES), mode)


def shown_modes(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the extraction modes that tables begin with, and those that there is no room for.

    Args:
      found: of `rows`.
    """
    modes = sorted({row["mode"] for row in found}, key=mode_order)
    first = [mode for mode in modes if mode in _MODES] or modes
    return first, [mode for mode in modes if mode not in first]


def rows(evaluations: Sequence[Evaluation], problems: list[str]) -> list[dict[str, Any]]:
    """Returns a row per run, role, data set, format, extraction mode and step, in this order.

    Args:
      evaluations: as read.
      problems: gets a line for every task without an accuracy.
    """
    found = []
    for evaluation in evaluations:
        for task, (metrics, count, file) in evaluation.results.items():
            shares = _shares(metrics)
            if not shares:
                keys = ", ".join(sorted(map(str, metrics))) or "nothing"
                problems.append(f"{file}: no accuracy of '{task}' among its metrics ({keys})")
            for mode, (metric, share) in shares.items():
                n = count or _counted(evaluation.samples.get(task, []), mode)
                low, high = intervals.wilson(share * n, n) if n else (None, None)
                where = {"run": evaluation.label, "step": evaluation.step}
                where |= roles.place(task, evaluation.configs.get(task, {}))
                value = {"n": n, "accuracy": share, "low": low, "high": high}
                found.append({**where, "mode": mode, "metric": metric, **value})
    return sorted(found, key=_order)


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["run"],
        roles.role_order(row["role"]),
        roles.data_set_order(row["data_set"]),
        roles.format_order(row["format"]),
        mode_order(row["mode"]),
        row["step"] or 0,
    )


def _shares(metrics: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Returns mode -> (metric name, value) from keys such as `exact_match,corrected`."""
    found: dict[str, tuple[str, float]] = {}
    for metric in METRICS:
        for key, value in metrics.items():
            name, _, mode = str(key).partition(",")
            share = coerce.number(value)
            if name == metric and share is not None and 0 <= share <= 1:
                found.setdefault(mode or "none", (metric, float(share)))
    return found


def _counted(samples: Sequence[dict[str, Any]], mode: str) -> int | None:
    """Returns how many samples of a mode were read; None when there are none."""
    return sum(row.get("filter", "none") == mode for row in samples) or None


def last(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the first mode's row of the last step, per run and task.

    Args:
      found: of `rows`.
    """
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found:
        held = best.get((row["task"], row["run"]))
        if held is None or held["mode"] == row["mode"]:
            best[row["task"], row["run"]] = row
    return sorted(best.values(), key=_order)


def by_mode(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of a wide table: a run's task at a step, with its modes side by side.

    Args:
      found: of `rows`.

    Returns:
      Rows with `modes`: mode -> its row; `counts`: the n of these, each once; `newest`: whether the
      step is the task's last; and `first`: the row of its first step, None where it has no other.
    """
    tasks: dict[tuple[str, str], dict[int | None, dict[str, Any]]] = {}
    for row in found:
        steps = tasks.setdefault((row["run"], row["task"]), {})
        where = {key: row[key] for key in ("run", "task", "data_set", "format", "role", "step")}
        steps.setdefault(row["step"], {**where, "modes": {}})["modes"][row["mode"]] = row
    wide = []
    for steps in tasks.values():
        for row in steps.values():
            row["counts"] = list(dict.fromkeys(one["n"] for one in row["modes"].values()))
        ordered = sorted(steps, key=lambda step: step or 0)
        first = steps[ordered[0]] if len(ordered) > 1 else None
        wide += [{**steps[s], "newest": s == ordered[-1], "first": first} for s in ordered]
    return wide
