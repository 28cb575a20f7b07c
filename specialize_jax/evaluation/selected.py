"""`MODEL_DIR/selected.json`: which checkpoint of a run was chosen, why, and what it scores.

| key                | holds                                                                      |
|--------------------|----------------------------------------------------------------------------|
| `schema_version`   | `SCHEMA_VERSION`                                                           |
| `rule`             | `by`, `weights` (set -> share of the score), `mode`, `formats`,            |
|                    | `calculator`, `resamples`, `seed`, `confidence`                            |
| `step`             | of the chosen checkpoint                                                   |
| `checkpoint`       | its folder, from MODEL_DIR                                                 |
| `warning`          | why the choice is not sure; null where it is                               |
| `undecided`        | steps of the checkpoints that it cannot be told from                       |
| `checkpoints`      | of each: `step`, `score`, `best` (share of resamples that it wins), `lead` |
|                    | of the chosen one over it (null for itself), `sets` (set -> accuracy)      |
| `sets`             | of each that counts: `role`, `weight`, `questions`, `part` ("validation",  |
|                    | or "all" where the set has no split)                                       |
| `chosen`           | what the chosen checkpoint scores: `sets` and `roles`, with intervals, `n` |
|                    | and `held_out`: whether none of these questions took part in the choice    |
| `notes`            | what a reader should know                                                  |
| `files`            | path from MODEL_DIR -> SHA-256 of every file that was read                 |

Scores, leads and accuracies of `chosen` are `{"value", "low", "high"}`, shares of questions.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from specialize_jax import intervals
from specialize_jax.evaluation import scored, selection, splits
from specialize_jax.schemas import SchemaError, folders

NAME = "selected.json"
SCHEMA_VERSION = 1
_KEYS = ("rule", "step", "checkpoint", "undecided", "checkpoints", "sets", "chosen", "files")


def build(
    model_dir: epath.PathLike,
    *,
    by: str = "out_of_distribution",
    weights: Mapping[str, float] | None = None,
    mode: str = "corrected",
    formats: Sequence[str] | None = None,
    calculator: str | None = None,
    steps: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Returns what `selected.json` holds.

    Args:
      model_dir: a run with evaluations under `eval/<step>`.
      by: one of `selection.BY`.
      weights: of sets and roles, for "weighted".
      mode: extraction mode that counts.
      formats: in which the sets were asked, labels of `schemas.Format`; None for all there are. A
        question asked in several counts as the share of them that is right.
      calculator: that computed in the answers, of `decoding.calculating.KINDS`; None for none,
        or for the only one there is.
      steps: the checkpoints to choose from; None for all that were evaluated.
      resamples: of the bootstrap.
      seed: of the bootstrap.
      confidence: of the intervals.

    Raises:
      ValueError: nothing was evaluated, checkpoints cannot be compared, or a choice is unknown.
      SchemaError: a file is missing or malformed.
    """
    folder = epath.Path(model_dir)
    read, notes = scored.checkpoints(folder, steps=steps, formats=formats, calculator=calculator)
    roles = {t.data_set: t.role for checkpoint in read for t in checkpoint.tasks.values()}
    share = selection.weights(by, roles, weights)
    files = [path for checkpoint in read for path in checkpoint.files]
    parts: dict[str, scored.Grades] = {}
    for name in share:
        every, paths = scored.grades(name, read, mode, notes)
        parts[name] = every.part(_rows(read, name, "validation"))
        files += paths
    values = {name: part.values for name, part in parts.items()}
    draws: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    choice = selection.choose(values, share, **draws)
    chosen, more = _chosen(read[choice.index], share, mode, draws, notes)
    rule = {"by": by, "weights": share, "mode": mode, "formats": _formats(read)}
    rule |= {"calculator": _calculator(read), **draws}
    return {
        "schema_version": SCHEMA_VERSION,
        "rule": rule,
        "step": read[choice.index].step,
        "checkpoint": f"checkpoints/{read[choice.index].step}",
        "warning": _warning(choice, [checkpoint.step for checkpoint in read]),
        "undecided": [read[index].step for index in choice.undecided],
        "checkpoints": [_row(i, one.step, choice, values) for i, one in enumerate(read)],
        "sets": {
            name: {
                "role": roles[name],
                "weight": share[name],
                "questions": len(parts[name].rows),
                "part": "all" if _rows(read, name, "validation") is None else "validation",
            }
            for name in share
        },
        "chosen": chosen,
        "notes": notes,
        "files": {_inside(path, folder): folders.sha256(path) for path in {*files, *more}},
    }


def _rows(read: Sequence[scored.Checkpoint], name: str, part: str) -> frozenset[int] | None:
    """Returns the rows of a part of a set; None where the set has no split."""
    split = next((t.split for one in read for t in one.tasks_of(name)), None)
    return None if split is None else splits.rows(split, part)


def _formats(read: Sequence[scored.Checkpoint]) -> list[str]:
    return sorted({str(task.format) for one in read for task in one.tasks.values()})


def _calculator(read: Sequence[scored.Checkpoint]) -> str:
    return next(task.calculator for task in read[0].tasks.values())


def _inside(path: epath.Path, folder: epath.Path) -> str:
    return path.relative_to(folder).as_posix()


def _row(
    index: int, step: int, choice: selection.Choice, values: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    lead = choice.leads[index]
    return {
        "step": step,
        "score": dataclasses.asdict(choice.scores[index]),
        "best": choice.best[index],
        "lead": None if lead is None else dataclasses.asdict(lead),
        "sets": {name: float(graded[index].mean()) for name, graded in values.items()},
    }


def _warning(choice: selection.Choice, steps: Sequence[int]) -> str | None:
    if choice.runner_up is None:
        return f"step {steps[choice.index]} is the only checkpoint that was evaluated"
    if not choice.within_noise:
        return None
    others = ", ".join(str(steps[index]) for index in choice.undecided)
    return (
        f"step {steps[choice.index]} leads within noise: these questions cannot tell it from "
        f"step{'s' * (len(choice.undecided) > 1)} {others}"
    )


def _chosen(
    checkpoint: scored.Checkpoint,
    share: Mapping[str, float],
    mode: str,
    draws: Mapping[str, Any],
    notes: list[str],
) -> tuple[dict[str, Any], list[epath.Path]]:
    """Returns what the chosen checkpoint scores on test questions, and the files read."""
    files: list[epath.Path] = []
    sets: dict[str, dict[str, Any]] = {}
    graded: dict[str, np.ndarray] = {}
    for name in sorted({task.data_set for task in checkpoint.tasks.values()}):
        try:
            every, paths = scored.grades(name, [checkpoint], mode, notes)
        except ValueError as error:
            notes.append(f"{name}: no score of the chosen checkpoint: {error}")
            continue
        files += paths
        rows = _rows([checkpoint], name, "test")
        test = every.part(rows).values
        if not test.size:
            notes.append(f"{name}: none of the questions that were asked is of its test part")
            continue
        graded[name] = test
        sets[name] = _accuracy(test[0], draws) | {
            "n": test.shape[1],
            "role": checkpoint.tasks_of(name)[0].role,
            "part": "all" if rows is None else "test",
            "held_out": rows is not None or name not in share,
        }
    if used := [name for name, found in sets.items() if not found["held_out"]]:
        notes.append(
            f"chosen and reported on the same questions, for want of a split: {', '.join(used)}"
        )
    return {"sets": sets, "roles": _roles(sets, graded, draws)}, files


def _roles(
    sets: Mapping[str, Mapping[str, Any]],
    graded: Mapping[str, np.ndarray],
    draws: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns role -> the unweighted mean of its sets."""
    found = {}
    for role in sorted({str(entry["role"]) for entry in sets.values()}):
        names = [name for name, entry in sets.items() if str(entry["role"]) == role]
        equal = dict.fromkeys(names, 1 / len(names))
        score = selection.choose({name: graded[name] for name in names}, equal, **draws).scores[0]
        held_out = all(sets[name]["held_out"] for name in names)
        found[role] = dataclasses.asdict(score) | {"sets": names, "held_out": held_out}
    return found


def _accuracy(values: np.ndarray, draws: Mapping[str, Any]) -> dict[str, float]:
    """Returns a mean with Wilson's interval of right and wrong, else the bootstrap's."""
    if np.isin(values, (0, 1)).all():
        low, high = intervals.wilson(
            float(values.sum()), len(values), confidence=draws["confidence"]
        )
    else:
        low, high = intervals.bootstrap(values, **draws)
    return {"value": float(values.mean()), "low": low, "high": high}


def write(model_dir: epath.PathLike, value: Mapping[str, Any]) -> epath.Path:
    """Writes `selected.json`, whole or not at all; returns its path."""
    path = epath.Path(model_dir) / NAME
    folders.write_json(path, value)
    return path


def read(model_dir: epath.PathLike) -> dict[str, Any]:
    """Reads `selected.json`.

    Raises:
      SchemaError: it is missing, not JSON, of another version, or lacks a key.
    """
    path = epath.Path(model_dir) / NAME
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SchemaError(f"'{path}': cannot be read: {error}") from error
    folders.check_keys(value, ("schema_version",), f"'{path}'")
    if value["schema_version"] != SCHEMA_VERSION:
        raise SchemaError(
            f"'{path}': this library reads schema_version {SCHEMA_VERSION}, "
            f"got {value['schema_version']!r}"
        )
    folders.check_keys(value, _KEYS, f"'{path}'")
    return value


def check(model_dir: epath.PathLike) -> dict[str, Any]:
    """Reads `selected.json` and checks that it follows from files that are still the same.

    Raises:
      SchemaError: it is malformed, a file that it was made from is missing or another one, or its
        step is not the first of the highest score.
    """
    value = read(model_dir)
    where = f"'{epath.Path(model_dir) / NAME}'"
    for name, digest in value["files"].items():
        folders.check_hash(epath.Path(model_dir) / name, {"sha256": digest})
    rows = value["checkpoints"]
    best = max(rows, key=lambda row: (row["score"]["value"], -row["step"]), default={"step": None})
    if best["step"] != value["step"]:
        raise SchemaError(
            f"{where}: step {value['step']} is chosen, but step {best['step']} scores best"
        )
    return value
