"""Runs side by side, each at one step: mean accuracies of each role, and what they are means of."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from specialize_jax.report import accuracy, coerce, roles


def reported(
    found: Sequence[dict[str, Any]], selected: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Returns run -> the `step` that comparisons show, and whether it was `chosen`.

    The chosen checkpoint where there is one that was evaluated, else the last.

    Args:
      found: of `accuracy.rows`.
      selected: run -> what its `selected.json` holds.
    """
    steps: dict[str, set[int | None]] = {}
    for row in found:
        steps.setdefault(row["run"], set()).add(row["step"])
    shown = {}
    for run, there in steps.items():
        step = coerce.number(selected.get(run, {}).get("step"))
        chosen = step is not None and step in there
        shown[run] = {
            "step": step if chosen else max(there, key=lambda s: -1 if s is None else s),
            "chosen": chosen,
        }
    return shown


def at_reported(
    found: Sequence[dict[str, Any]], shown: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the rows of each run's reported step, in the extraction mode that is shown first.

    Args:
      found: of `accuracy.rows`.
      shown: of `reported`.
    """
    modes = {row["mode"] for row in found}
    if not modes:
        return []
    mode = min(modes, key=accuracy.mode_order)
    return [r for r in found if r["mode"] == mode and r["step"] == shown[r["run"]]["step"]]


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the mean accuracy of each role and format for every run, over the sets all runs had.

    Args:
      rows: of `at_reported`.

    Returns:
      Rows with `role`, `format`, `sets`, `left_out` and `runs`: run -> `accuracy` and `stderr`,
      which is that of the questions alone (None where a number of questions is not known). Runs
      without a role's sets are not in its row.
    """
    groups: dict[tuple[Any, ...], dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        if row["role"] is not None:
            key = (row["role"], row["format"], row["split"])
            groups.setdefault(key, {}).setdefault(row["run"], {})[row["data_set"]] = row
    compared = []
    for (role, name, split), runs in groups.items():
        shared = set.intersection(*map(set, runs.values()))
        every = set().union(*runs.values())
        sets = sorted(shared, key=roles.data_set_order)
        if sets:
            compared.append(
                {
                    "role": role,
                    "format": name,
                    "split": split,
                    "sets": sets,
                    "left_out": sorted(every - shared, key=roles.data_set_order),
                    "runs": {run: _mean([of[name] for name in sets]) for run, of in runs.items()},
                }
            )
    return sorted(
        compared,
        key=lambda row: (roles.role_order(row["role"]), roles.format_order(row["format"])),
    )


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    shares = [row["accuracy"] for row in rows]
    stderr = None
    if all(row["n"] and row["n"] > 1 for row in rows):
        # Of right and wrong answers: the sample variance over n.
        variances = [row["accuracy"] * (1 - row["accuracy"]) / (row["n"] - 1) for row in rows]
        stderr = math.sqrt(sum(variances)) / len(rows)
    return {"accuracy": sum(shares) / len(shares), "stderr": stderr}
