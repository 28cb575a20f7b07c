"""Accuracies out of results files, with intervals, and in- against out-of-distribution."""

import math
from collections.abc import Sequence
from typing import Any

from specialize_jax.report import coerce
from specialize_jax.report.collect import Evaluation

IN_DISTRIBUTION = "gsm8k"
OUT_OF_DISTRIBUTION = ("multiarith", "asdiv", "svamp")
METRICS = ("accuracy", "exact_match", "acc")  # the first that is there counts
_MODES = ("corrected", "fu2023")  # shown first, in this order


def wilson(accuracy: float, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion, 95% by default.

    Args:
      accuracy: share that was right, in [0, 1].
      count: of samples, at least 1.
      z: normal quantile of the interval.

    Source: E. B. Wilson, Probable inference (1927), https://doi.org/10.1080/01621459.1927.10502953.
    """
    centre = accuracy + z * z / (2 * count)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mode_order(mode: str) -> tuple[int, str]:
    """Returns the sort key of an extraction mode: ours first, then the paper's, then others."""
    return (_MODES.index(mode) if mode in _MODES else len(_MODES), mode)


def data_set_order(name: str) -> tuple[int, str]:
    """Returns the sort key of a data set: in-distribution, out-of-distribution, others by name."""
    known = (IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION)
    base = name.lower().partition("_")[0]
    return (known.index(base) if base in known else len(known), name)


def rows(evaluations: Sequence[Evaluation], problems: list[str]) -> list[dict[str, Any]]:
    """Returns a row per run, data set, extraction mode and step, in this order.

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
                low, high = wilson(share, n) if n else (None, None)
                where = {"run": evaluation.label, "step": evaluation.step, "data_set": task}
                value = {"n": n, "accuracy": share, "low": low, "high": high}
                found.append({**where, "mode": mode, "metric": metric, **value})
    return sorted(found, key=_order)


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["run"], data_set_order(row["data_set"]), mode_order(row["mode"]), row["step"] or 0


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
    """Returns the first mode's row of the last step, per run and data set.

    Args:
      found: of `rows`.
    """
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found:
        held = best.get((row["data_set"], row["run"]))
        if held is None or held["mode"] == row["mode"]:
            best[row["data_set"], row["run"]] = row
    return sorted(best.values(), key=_order)


def by_mode(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of a wide table: a run's data set at a step, with its modes side by side.

    Args:
      found: of `rows`.
    """
    wide: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in found:
        key = (row["run"], row["data_set"], row["step"])
        empty = {"run": key[0], "data_set": key[1], "step": key[2], "modes": {}}
        wide.setdefault(key, empty)["modes"][row["mode"]] = row
    newest: dict[tuple[Any, ...], int] = {}
    for run, data_set, step in wide:
        newest[run, data_set] = max(newest.get((run, data_set), 0), step or 0)
    return [
        {**row, "newest": (row["step"] or 0) == newest[row["run"], row["data_set"]]}
        for row in wide.values()
    ]


def distribution(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns in- against mean out-of-distribution accuracy where all four data sets are present.

    Args:
      found: of `rows`. `gsm8k_test` goes with `svamp_test`, never with `svamp_validation`.
    """
    groups: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in found:
        base, _, split = row["data_set"].lower().partition("_")
        key = (row["run"], row["step"], row["mode"], split)
        groups.setdefault(key, {})[base] = row["accuracy"]
    return [
        {
            "run": run,
            "step": step,
            "mode": mode,
            "split": split or None,
            "in_distribution": by_set[IN_DISTRIBUTION],
            "out_of_distribution": sum(by_set[s] for s in OUT_OF_DISTRIBUTION) / 3,
        }
        for (run, step, mode, split), by_set in groups.items()
        if {IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION} <= by_set.keys()
    ]
