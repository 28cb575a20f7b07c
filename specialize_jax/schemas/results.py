"""Evaluation files in the form of lm-evaluation-harness, so that its readers read ours.

`results_<timestamp>.json`, one for an evaluation of any number of tasks:

| key                | holds                                                                |
|--------------------|----------------------------------------------------------------------|
| `schema_version`   | `SCHEMA_VERSION` (ours)                                              |
| `results`          | task -> `alias`, `exact_match,<mode>`, `exact_match_stderr,<mode>`,  |
|                    | and where k samples vote `maj@k,<mode>`, `maj@k_stderr,<mode>`       |
| `intervals` (ours) | task -> `<metric>,<mode>` -> `low`, `high`, and how they were found  |
| `configs`          | task -> what defines it (prompt, data, generation)                   |
| `versions`         | task -> version of its definition                                    |
| `n-shot`           | task -> number of exemplars in the prompt                            |
| `higher_is_better` | task -> metric -> true                                               |
| `n-samples`        | task -> `original` (questions in the set), `effective` (scored: the  |
|                    | denominator); ours: of these `without_gold` (no gold of their kind)  |
|                    | and `too_long` (prompts above the model's limit, not asked: wrong);  |
|                    | `empty` (texts without a word, of all samples of those asked)        |
| `config`           | what was run: model, batch size, ..., `packages`: name -> version    |
| `git_hash`, `date` | commit of the code or null; seconds since 1970                       |

With the same timestamp, `samples` says what the model wrote. There are no group averages: a mean
over tasks is a choice that the report makes and names. Version 1, still read, knew neither votes
nor `intervals`, `too_long` and `empty`.

Form: https://github.com/EleutherAI/lm-evaluation-harness (lm_eval/loggers, lm_eval/evaluator.py).
"""

import dataclasses
import datetime
import importlib.metadata
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax import __version__
from specialize_jax.schemas import folders
from specialize_jax.schemas.samples import (
    METRIC,
    NOT_FOUND,
    VOTE,
    arguments,
    build_sample,
    check_fields,
    check_name,
    json_line,
    prompt_of,
    read_samples,
    read_text,
    responses_of,
    text_hash,
    validate_sample,
    vote_name,
    write_samples,
)
from specialize_jax.schemas.targets import SchemaError

__all__ = [
    "METRIC",
    "NOT_FOUND",
    "SCHEMA_VERSION",
    "TaskResult",
    "arguments",
    "build_results",
    "build_sample",
    "json_line",
    "package_versions",
    "prompt_of",
    "read_results",
    "read_samples",
    "responses_of",
    "text_hash",
    "timestamp",
    "validate_results",
    "validate_sample",
    "vote_name",
    "write_results",
    "write_samples",
]

SCHEMA_VERSION = 2
READABLE = (1, 2)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")

_PER_TASK = ("configs", "versions", "n-shot", "higher_is_better", "n-samples")
_TOP = {
    "schema_version": int,
    "results": dict,
    **dict.fromkeys(_PER_TASK, dict),
    "config": dict,
    "git_hash": (str, type(None)),
    "date": (int, float),
}
_METRIC_KEY = re.compile(
    rf"(?P<metric>{METRIC}|{VOTE.pattern})(?P<stderr>_stderr)?,(?P<mode>[^,\s]+)", re.ASCII
)
_COUNTS = ("without_gold", "too_long")  # of questions, and of those that are scored


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """The scores of one task.

    Attributes:
      task: its name, as "gsm8k"; letters, digits and `_.-`, since file names carry it.
      scores: extraction mode -> (accuracy, its standard error), both in [0, 1].
      original: questions in the whole set.
      effective: questions scored, which is the denominator of the accuracy.
      without_gold: how many of these have no gold answer of their kind; they count as wrong.
      n_shot: exemplars in the prompt.
      version: of the task's definition.
      config: what defines the task; JSON values.
      votes: `vote_name` -> the same as `scores`, of the majority of the first k samples.
      intervals: "<metric>,<mode>" -> `low`, `high`, and how they were found.
      too_long: how many questions were not asked, since their prompt is longer than the model's
        limit; they count as wrong.
      empty: texts without a word, of all samples of the questions that were asked.
    """

    task: str
    scores: Mapping[str, tuple[float, float]]
    original: int
    effective: int
    without_gold: int = 0
    n_shot: int = 0
    version: int | str = 1
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    votes: Mapping[str, Mapping[str, tuple[float, float]]] = dataclasses.field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    too_long: int = 0
    empty: int = 0

    @property
    def metrics(self) -> dict[str, Mapping[str, tuple[float, float]]]:
        """Metric -> its scores."""
        return {METRIC: self.scores, **self.votes}


def build_results(
    tasks: Sequence[TaskResult],
    *,
    config: Mapping[str, Any],
    git_hash: str | None = None,
    date: float | None = None,
) -> dict[str, Any]:
    """Returns a results object, validated.

    Args:
      tasks: the scores, one entry a task.
      config: what was run, as JSON values; `packages` is added unless it is there.
      git_hash: commit of the code that ran.
      date: seconds since 1970; now by default.

    Raises:
      SchemaError: a value is out of its range, or two entries have the same task.
    """
    names = [task.task for task in tasks]
    if len(set(names)) != len(names):
        raise SchemaError(f"expected every task once, got {sorted(names)}")
    results = {
        "schema_version": SCHEMA_VERSION,
        "results": {task.task: _metrics(task) for task in tasks},
        "intervals": {
            task.task: {key: dict(found) for key, found in task.intervals.items()} for task in tasks
        },
        "configs": {
            task.task: {"task": task.task, "num_fewshot": task.n_shot, **task.config}
            for task in tasks
        },
        "versions": {task.task: task.version for task in tasks},
        "n-shot": {task.task: task.n_shot for task in tasks},
        "higher_is_better": {task.task: dict.fromkeys(task.metrics, True) for task in tasks},
        "n-samples": {
            task.task: {
                name: getattr(task, name)
                for name in ("original", "effective", "without_gold", "too_long", "empty")
            }
            for task in tasks
        },
        "config": {"packages": package_versions(), **config},
        "git_hash": git_hash,
        "date": time.time() if date is None else date,
    }
    validate_results(results, "results")
    return results


def _metrics(task: TaskResult) -> dict[str, str | float]:
    metrics: dict[str, str | float] = {"alias": task.task}
    for metric, scores in task.metrics.items():
        for mode, (share, stderr) in scores.items():
            metrics[f"{metric},{mode}"] = share
            metrics[f"{metric}_stderr,{mode}"] = stderr
    return metrics


def validate_results(results: Any, where: str) -> None:
    """Checks a results object.

    Args:
      results: what a results file holds.
      where: what to call it in errors, as a path.

    Raises:
      SchemaError: says what was expected, what came, and under which key.
    """
    # First: a file of another version may lack whatever this one asks for.
    check_fields(results, {"schema_version": int}, where)
    if results["schema_version"] not in READABLE:
        raise SchemaError(
            f"{where}: this library reads schema_version {' and '.join(map(str, READABLE))}, "
            f"got {results['schema_version']!r}"
        )
    check_fields(results, _TOP, where)
    tasks = set(results["results"])
    for key in _PER_TASK:
        if set(results[key]) != tasks:
            raise SchemaError(
                f"{where}: expected the tasks of 'results' {sorted(tasks)} under '{key}', "
                f"got {sorted(results[key])}"
            )
    for task in tasks:
        check_name(task, where)
        _check_metrics(results["results"][task], f"{where}: results of '{task}'")
        _check_counts(results["n-samples"][task], f"{where}: n-samples of '{task}'")
    check_fields(results, {"intervals": dict} if results["schema_version"] > 1 else {}, where)
    for task, intervals in results.get("intervals", {}).items():
        _check_intervals(intervals, results["results"].get(task, {}), f"{where}: '{task}'")


def _check_metrics(metrics: Any, where: str) -> None:
    if not isinstance(metrics, dict):
        raise SchemaError(f"{where}: expected an object, got {metrics!r:.80}")
    modes: dict[bool, set[tuple[str, str]]] = {False: set(), True: set()}
    for key, value in metrics.items():
        found = _METRIC_KEY.fullmatch(key)
        if found:
            modes[bool(found["stderr"])].add((found["metric"], found["mode"]))
            if not _is_share(value):
                raise SchemaError(f"{where}: expected '{key}' in [0, 1], got {value!r}")
        elif key != "alias":
            raise SchemaError(
                f"{where}: expected keys '{METRIC},<mode>', '{METRIC}_stderr,<mode>', the same of "
                f"'maj@<k>', and 'alias', got '{key}'"
            )
    is_scored = any(metric == METRIC for metric, _ in modes[False])
    if not is_scored or modes[False] != modes[True]:
        raise SchemaError(
            f"{where}: expected at least one mode, each with '{METRIC},<mode>' and "
            f"'{METRIC}_stderr,<mode>', got {sorted(metrics)}"
        )


def _is_share(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= 1


def _check_counts(counts: Any, where: str) -> None:
    check_fields(counts, {"original": int, "effective": int}, where)
    if not 0 < counts["effective"] <= counts["original"]:
        raise SchemaError(f"{where}: expected 0 < effective <= original, got {counts}")
    for name in _COUNTS:
        count = counts.get(name, 0)
        if not (isinstance(count, int) and 0 <= count <= counts["effective"]):
            raise SchemaError(f"{where}: expected 0 <= {name} <= effective, got {counts}")
    empty = counts.get("empty", 0)
    if not (isinstance(empty, int) and empty >= 0):
        raise SchemaError(f"{where}: expected empty >= 0, got {counts}")


def _check_intervals(intervals: Any, metrics: Mapping[str, Any], where: str) -> None:
    if not isinstance(intervals, dict):
        raise SchemaError(f"{where}: expected an object under 'intervals', got {intervals!r:.80}")
    for key, interval in intervals.items():
        ends: Any = interval if isinstance(interval, dict) else {}
        low, high = ends.get("low"), ends.get("high")
        if not (_is_share(low) and _is_share(high)) or low > high:
            raise SchemaError(
                f"{where}: expected an interval 'low' <= 'high' in [0, 1] of '{key}', "
                f"got {interval!r:.80}"
            )
        if key not in metrics:
            raise SchemaError(f"{where}: an interval of '{key}', which 'results' does not have")


def timestamp(date: float | None = None) -> str:
    """Returns a time as file names carry it, as `2026-01-31T09-05-07.123456` (local time).

    Args:
      date: seconds since 1970; now by default.
    """
    moment = datetime.datetime.fromtimestamp(time.time() if date is None else date)
    return moment.isoformat(timespec="microseconds").replace(":", "-")


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Returns the installed version of each package and ours; those not installed are left out."""
    versions = {"specialize_jax": __version__}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write_results(
    folder: epath.PathLike, results: Mapping[str, Any], stamp: str | None = None
) -> epath.Path:
    """Writes `results_<timestamp>.json`, whole or not at all.

    Args:
      folder: created where it is missing.
      results: from `build_results`.
      stamp: from `timestamp`; of the results' date by default.

    Returns:
      The path written.
    """
    validate_results(results, "results")
    path = folders.make_folder(folder) / f"results_{stamp or timestamp(results['date'])}.json"
    folders.write_json(path, results)
    return path


def read_results(path: epath.PathLike) -> dict[str, Any]:
    """Reads and checks a results file.

    Raises:
      SchemaError: it is missing, not JSON, or breaks the schema.
    """
    results = folders.parse_json(read_text(path), str(path))
    validate_results(results, str(path))
    return results
