"""What `selected.json` of each run says, as the page shows it."""

from collections.abc import Mapping
from typing import Any

from specialize_jax.report import coerce, roles


def build(selected: Mapping[str, Mapping[str, Any]], problems: list[str]) -> list[dict[str, Any]]:
    """Returns a row for every run whose checkpoint was chosen.

    Args:
      selected: run -> what its `selected.json` holds.
      problems: gets a line for every one that cannot be shown.

    Returns:
      Rows with `run`, `step`, `by`, `mode`, `warning`, `sets` (what counted), `checkpoints` (step,
      score, best, lead), `chosen` (what it scores on other questions, sets and then roles) and
      `notes`.
    """
    rows = []
    for run, value in selected.items():
        try:
            rows.append(_row(run, value))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{run}: selected.json is left out: {reason}")
    return rows


def _row(run: str, value: Mapping[str, Any]) -> dict[str, Any]:
    chosen = value["chosen"]
    return {
        "run": run,
        "step": int(value["step"]),
        "by": str(value["rule"]["by"]),
        "mode": str(value["rule"]["mode"]),
        "warning": coerce.text(value["warning"]),
        "sets": [
            {"name": str(name), "weight": float(one["weight"]), "questions": int(one["questions"]),
             "part": str(one["part"])}
            for name, one in value["sets"].items()
        ],
        "checkpoints": [
            {
                "step": int(row["step"]),
                "score": _interval(row["score"]),
                "best": float(row["best"]),
                "lead": None if row["lead"] is None else _interval(row["lead"]),
            }
            for row in value["checkpoints"]
        ],
        "chosen": [
            {
                "name": str(name),
                "is_mean": kind == "roles",
                "n": coerce.number(one.get("n")),
                "part": coerce.text(one.get("part")),
                "held_out": bool(one["held_out"]),
                **_interval(one),
            }
            for kind in ("sets", "roles")
            for name, one in sorted(chosen[kind].items(), key=_order)
        ],
        "notes": [str(note) for note in value.get("notes", [])],
    }  # fmt: skip


def _interval(found: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(found[key]) for key in ("value", "low", "high")}


def _order(entry: tuple[str, Mapping[str, Any]]) -> tuple[Any, ...]:
    """Returns the sort key of a set, or of a role itself: by role, then data set."""
    name, one = entry
    role = name if name in roles.WORDS else one.get("role")
    return roles.role_order(role if role in roles.WORDS else None), roles.data_set_order(name)
