"""What a calculator and votes of several samples add, and what the training formats decide."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from specialize_jax import intervals
from specialize_jax.report import coerce, roles
from specialize_jax.report.evaluations import Evaluation

_VOTE = re.compile(r"maj@([1-9]\d*),(.+)", re.ASCII)
_TRAINED = "loss/"  # training metrics have such a key for every format that was trained on
_PLACE = ("run", "step", "role", "data_set", "asked", "mode")


def calculators(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows of tasks that were asked with a calculator and without it, else in the same way.

    Args:
      rows: of `comparing.at_reported`.

    Returns:
      Rows with the place of the task, `calculator`, `n`, and `without`, `with` and `gain`.
    """
    plain = {_alike(row): row for row in rows if row["calculator"] is None}
    found = []
    for row in rows:
        before = plain.get(_alike(row))
        if row["calculator"] is not None and before is not None:
            shares = {"without": before["accuracy"], "with": row["accuracy"]}
            gain = row["accuracy"] - before["accuracy"]
            place = {key: row[key] for key in (*_PLACE, "calculator", "n")}
            found.append({**place, **shares, "gain": gain})
    return found


def _alike(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in (*_PLACE, "sampling", "n"))


def votes(
    rows: Sequence[Mapping[str, Any]], evaluations: Sequence[Evaluation]
) -> list[dict[str, Any]]:
    """Returns rows of tasks whose samples voted.

    Args:
      rows: of `comparing.at_reported`.
      evaluations: as read.

    Returns:
      Rows with the place of the task, `format`, `n`, `single` (one sample's accuracy), and `votes`:
      `k`, `accuracy`, its 95% interval `low` to `high`, and `gain` over one sample, by k.
    """
    read = {(one.label, one.step): one for one in evaluations}
    found = []
    for row in rows:
        metrics = read[row["run"], row["step"]].results[row["task"]][0]
        scored = [
            _vote(int(key[1]), share, row)
            for name, value in metrics.items()
            if (key := _VOTE.fullmatch(name)) and key[2] == row["mode"]
            if (share := coerce.number(value)) is not None and 0 <= share <= 1
        ]
        if scored:
            place = {key: row[key] for key in (*_PLACE, "format", "n")}
            scored.sort(key=lambda vote: vote["k"])
            found.append({**place, "single": row["accuracy"], "votes": scored})
    return found


def _vote(k: int, share: float, row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = intervals.wilson(share * row["n"], row["n"]) if row["n"] else (None, None)
    gain = share - row["accuracy"]
    return {"k": k, "accuracy": share, "low": low, "high": high, "gain": gain}


def trained_formats(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Returns the formats that a run was trained on, in short words, from its training metrics.

    Args:
      splits: split -> rows of `metrics.jsonl`.
    """
    keys = {key for row in splits.get("train", []) for key in row if key.startswith(_TRAINED)}
    words = [roles.format_words(key.removeprefix(_TRAINED)) for key in keys]
    return sorted(words, key=roles.format_order)


def ablation(
    compared: Sequence[Mapping[str, Any]], trained: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Returns a matrix for every role: formats trained on x format asked in.

    Args:
      compared: of `comparing.means`.
      trained: run -> formats, of `trained_formats`.

    Returns:
      Rows with `role`, `formats` (the columns) and `runs`: `run`, `trained`, and `accuracy` by
      format. None where all runs were trained on the same formats.
    """
    if len({tuple(formats) for formats in trained.values() if formats}) < 2:
        return []
    matrices = []
    for role in dict.fromkeys(row["role"] for row in compared):
        mine = [row for row in compared if row["role"] == role]
        columns = list(dict.fromkeys(row["format"] for row in mine if row["format"]))
        runs = [run for run in trained if trained[run] and any(run in row["runs"] for row in mine)]
        cells = {
            run: {row["format"]: row["runs"][run]["accuracy"] for row in mine if run in row["runs"]}
            for run in runs
        }
        if len({tuple(trained[run]) for run in runs}) > 1 and columns:
            entries = [
                {"run": run, "trained": list(trained[run]), "accuracy": cells[run]} for run in runs
            ]
            sets = sorted({name for row in mine for name in row["sets"]}, key=roles.data_set_order)
            matrices.append({"role": role, "formats": columns, "sets": sets, "runs": entries})
    return matrices
