"""Mean accuracies over the data sets of a role, and how they change over the steps."""

from collections.abc import Sequence
from typing import Any

from specialize_jax.report import roles

_Key = tuple[Any, ...]


def by_role(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the mean accuracy of each role, unweighted, over the steps.

    A mean that gains or loses a set between two steps compares nothing, so it is taken over the
    sets that are there at all of its steps. Sets of one split go together: `svamp_test` never with
    `asdiv_validation`.

    Args:
      found: of `accuracy.rows`.

    Returns:
      A row per run, role, format, split and extraction mode, in this order: `sets` that are
      averaged, those `left_out`, and `points` of step and accuracy, none where no set is shared.
    """
    groups: dict[_Key, dict[int | None, dict[str, float]]] = {}
    for row in found:
        key = (row["run"], row["role"], row["format"], row["split"], row["mode"])
        steps = groups.setdefault(key, {})
        steps.setdefault(row["step"], {})[row["data_set"]] = row["accuracy"]
    return [_series(key, steps) for key, steps in groups.items()]


def _series(key: _Key, steps: dict[int | None, dict[str, float]]) -> dict[str, Any]:
    """Returns one row of `by_role` from step -> data set -> accuracy."""
    measured = {name for by_set in steps.values() for name in by_set}
    shared = {name for name in measured if all(name in by_set for by_set in steps.values())}
    sets = sorted(shared, key=roles.data_set_order)
    return {
        **dict(zip(("run", "role", "format", "split", "mode"), key, strict=True)),
        "sets": sets,
        "left_out": sorted(measured - shared, key=roles.data_set_order),
        "points": [
            {"step": step, "accuracy": sum(steps[step][name] for name in sets) / len(sets)}
            for step in sorted(steps, key=lambda step: step or 0)
            if sets
        ],
    }


def distribution(means: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the roles side by side, for every step where at least two were measured.

    Args:
      means: of `by_role`.

    Returns:
      Rows with a mean accuracy or None under each key of `roles.WORDS`, and `sets`: role -> the
      names of what was averaged.
    """
    groups: dict[_Key, list[dict[str, Any]]] = {}
    for series in means:
        if series["role"] is not None and series["points"]:
            key = (series["run"], series["mode"], series["format"], series["split"])
            groups.setdefault(key, []).append(series)
    return [row for key, every in groups.items() for row in _side_by_side(key, every)]


def _side_by_side(key: _Key, every: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    at = {s["role"]: {p["step"]: p["accuracy"] for p in s["points"]} for s in every}
    sets = {series["role"]: series["sets"] for series in every}
    rows = []
    for step in sorted({step for steps in at.values() for step in steps}, key=lambda s: s or 0):
        shares = {role: at.get(role, {}).get(step) for role in roles.WORDS}
        there = [role for role, share in shares.items() if share is not None]
        if len(there) > 1:
            where = dict(zip(("run", "mode", "format", "split"), key, strict=True))
            rows.append({**where, "step": step, **shares, "sets": {r: sets[r] for r in there}})
    return rows


def with_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows of `distribution` with `newest`, and `first`: the row of its first step or None.

    Args:
      rows: of `distribution`, by step upwards.
    """
    groups: dict[_Key, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["run"], row["mode"], row["format"], row["split"]), []).append(row)
    return [
        {**row, "newest": row is group[-1], "first": group[0] if len(group) > 1 else None}
        for group in groups.values()
        for row in group
    ]
