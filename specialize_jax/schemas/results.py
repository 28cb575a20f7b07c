"""Evaluation files in the form of lm-evaluation-harness, so that its readers read ours.

`results_<timestamp>.json`, one for an evaluation of any number of tasks:

| key                | holds                                                                |
|--------------------|----------------------------------------------------------------------|
| `schema_version`   | `SCHEMA_VERSION` (ours)                                              |
| `results`          | task -> `alias`, `exact_match,<mode>`, `exact_match_stderr,<mode>`   |
| `configs`          | task -> what defines it (prompt, data, generation)                   |
| `versions`         | task -> version of its definition                                    |
| `n-shot`           | task -> number of exemplars in the prompt                            |
| `higher_is_better` | task -> metric -> true                                               |
| `n-samples`        | task -> `original` (questions in the set), `effective` (scored: the  |
|                    | denominator), `without_gold` (ours: of these, no gold of their kind) |
| `config`           | what was run: model, batch size, ..., `packages`: name -> version    |
| `git_hash`, `date` | commit of the code or null; seconds since 1970                       |

`samples_<task>_<timestamp>.jsonl`: one line for every question and extraction mode (`filter`),
with the same timestamp. An answer that was not found is `NOT_FOUND`. There are no group averages:
a mean over tasks is a choice that the report makes and names.

Form: https://github.com/EleutherAI/lm-evaluation-harness (lm_eval/loggers, lm_eval/evaluator.py).
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax import __version__
from specialize_jax.schemas import folders
from specialize_jax.schemas.targets import SchemaError

SCHEMA_VERSION = 1
METRIC = "exact_match"
NOT_FOUND = "[invalid]"
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
_SAMPLE = {
    "doc_id": int,
    "doc": dict,
    "target": str,
    "arguments": dict,
    "resps": list,
    "filtered_resps": list,
    "filter": str,
    "metrics": list,
    "doc_hash": str,
    "prompt_hash": str,
    "target_hash": str,
    METRIC: float,
}
_METRIC_KEY = re.compile(rf"{METRIC}(?P<stderr>_stderr)?,(?P<mode>[^,\s]+)")


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
    """

    task: str
    scores: Mapping[str, tuple[float, float]]
    original: int
    effective: int
    without_gold: int = 0
    n_shot: int = 0
    version: int | str = 1
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
        "configs": {
            task.task: {"task": task.task, "num_fewshot": task.n_shot, **task.config}
            for task in tasks
        },
        "versions": {task.task: task.version for task in tasks},
        "n-shot": {task.task: task.n_shot for task in tasks},
        "higher_is_better": {task.task: {METRIC: True} for task in tasks},
        "n-samples": {
            task.task: {
                "original": task.original,
                "effective": task.effective,
                "without_gold": task.without_gold,
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
    for mode, (accuracy, stderr) in task.scores.items():
        metrics[f"{METRIC},{mode}"] = accuracy
        metrics[f"{METRIC}_stderr,{mode}"] = stderr
    return metrics


def validate_results(results: Any, where: str) -> None:
    """Checks a results object.

    Args:
      results: what a results file holds.
      where: what to call it in errors, as a path.

    Raises:
      SchemaError: says what was expected, what came, and under which key.
    """
    _check_fields(results, _TOP, where)
    if results["schema_version"] != SCHEMA_VERSION:
        raise SchemaError(
            f"{where}: this library reads schema_version {SCHEMA_VERSION}, "
            f"got {results['schema_version']!r}"
        )
    tasks = set(results["results"])
    for key in _PER_TASK:
        if set(results[key]) != tasks:
            raise SchemaError(
                f"{where}: expected the tasks of 'results' {sorted(tasks)} under '{key}', "
                f"got {sorted(results[key])}"
            )
    for task in tasks:
        _check_name(task, where)
        _check_metrics(results["results"][task], f"{where}: results of '{task}'")
        _check_counts(results["n-samples"][task], f"{where}: n-samples of '{task}'")


def _check_metrics(metrics: Any, where: str) -> None:
    if not isinstance(metrics, dict):
        raise SchemaError(f"{where}: expected an object, got {metrics!r:.80}")
    modes: dict[bool, set[str]] = {False: set(), True: set()}
    for key, value in metrics.items():
        found = _METRIC_KEY.fullmatch(key)
        if found:
            modes[bool(found["stderr"])].add(found["mode"])
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 <= value <= 1):
                raise SchemaError(f"{where}: expected '{key}' in [0, 1], got {value!r}")
        elif key != "alias":
            raise SchemaError(
                f"{where}: expected keys '{METRIC},<mode>', '{METRIC}_stderr,<mode>' and 'alias', "
                f"got '{key}'"
            )
    if not modes[False] or modes[False] != modes[True]:
        raise SchemaError(
            f"{where}: expected at least one mode, each with '{METRIC},<mode>' and "
            f"'{METRIC}_stderr,<mode>', got {sorted(metrics)}"
        )


def _check_counts(counts: Any, where: str) -> None:
    _check_fields(counts, {"original": int, "effective": int}, where)
    without_gold = counts.get("without_gold", 0)
    if not 0 < counts["effective"] <= counts["original"]:
        raise SchemaError(f"{where}: expected 0 < effective <= original, got {counts}")
    if not (isinstance(without_gold, int) and 0 <= without_gold <= counts["effective"]):
        raise SchemaError(f"{where}: expected 0 <= without_gold <= effective, got {counts}")


def build_sample(
    *,
    doc_id: int,
    doc: Mapping[str, Any],
    target: str,
    prompt: str,
    generation: Mapping[str, Any],
    response: str,
    mode: str,
    answer: str | None,
    correct: bool,
) -> dict[str, Any]:
    """Returns one line of a samples file.

    Args:
      doc_id: row of the question in its source file, from 0.
      doc: that row.
      target: the gold answer as text.
      prompt: what the model was given.
      generation: how it was decoded; JSON values.
      response: what it wrote.
      mode: the extraction mode.
      answer: what was extracted; None for nothing.
      correct: whether it equals the gold answer.
    """
    return {
        "doc_id": doc_id,
        "doc": dict(doc),
        "target": target,
        "arguments": arguments(prompt, generation),
        "resps": [[response]],
        "filtered_resps": [NOT_FOUND if answer is None else answer],
        "filter": mode,
        "metrics": [METRIC],
        "doc_hash": text_hash(json.dumps(dict(doc), indent=2, ensure_ascii=False)),
        "prompt_hash": text_hash(prompt),
        "target_hash": text_hash(target),
        METRIC: float(correct),
    }


def arguments(prompt: str, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `arguments` field: one request, of a prompt and how to decode it."""
    return {"gen_args_0": {"arg_0": prompt, "arg_1": dict(generation)}}


def validate_sample(sample: Any, where: str) -> None:
    """Checks one line of a samples file.

    Args:
      sample: the parsed line.
      where: what to call it in errors, as a path and line number.

    Raises:
      SchemaError: says what was expected, what came, and in which field.
    """
    _check_fields(sample, _SAMPLE, where)
    if sample["doc_id"] < 0:
        raise SchemaError(f"{where}: expected doc_id >= 0, got {sample['doc_id']}")
    if sample[METRIC] not in (0.0, 1.0):
        raise SchemaError(f"{where}: expected {METRIC} 0.0 or 1.0, got {sample[METRIC]!r}")
    prompt = prompt_of(sample, where)
    for field, text in (("prompt_hash", prompt), ("target_hash", sample["target"])):
        if sample[field] != text_hash(text):
            raise SchemaError(
                f"{where}: '{field}' is not the SHA-256 of its text: expected {text_hash(text)}, "
                f"got {sample[field]!r}"
            )
    for field in ("resps", "filtered_resps"):
        if len(sample[field]) != 1:
            raise SchemaError(
                f"{where}: expected one entry in '{field}', got {sample[field]!r:.80}"
            )
    response_of(sample, where)
    if not isinstance(sample["filtered_resps"][0], str):
        raise SchemaError(
            f"{where}: expected text in 'filtered_resps', got {sample['filtered_resps']!r:.80}"
        )


def prompt_of(sample: Mapping[str, Any], where: str) -> str:
    """Returns the prompt of a sample.

    Raises:
      SchemaError: `arguments` has another form.
    """
    try:
        prompt = sample["arguments"]["gen_args_0"]["arg_0"]
    except (KeyError, TypeError):
        prompt = None
    if not isinstance(prompt, str):
        raise SchemaError(
            f"{where}: expected 'arguments' {{'gen_args_0': {{'arg_0': prompt, ...}}}}, "
            f"got {sample.get('arguments')!r:.120}"
        )
    return prompt


def response_of(sample: Mapping[str, Any], where: str) -> str:
    """Returns the model's text in a sample.

    Raises:
      SchemaError: `resps` has another form.
    """
    match sample.get("resps"):
        case [[str(response)]]:
            return response
    raise SchemaError(f"{where}: expected 'resps' [[text]], got {sample.get('resps')!r:.120}")


def _check_fields(value: Any, fields: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise SchemaError(f"{where}: expected an object, got {type(value).__name__}")
    missing = [name for name in fields if name not in value]
    if missing:
        raise SchemaError(f"{where}: missing {missing}; has {sorted(value)}")
    for name, types in fields.items():
        types = types if isinstance(types, tuple) else (types,)
        found = value[name]
        # bool is an int to Python, not to a reader of the file; NaN is no number to JSON.
        wrong = isinstance(found, bool) or not isinstance(found, types)
        if wrong or (isinstance(found, float) and not math.isfinite(found)):
            expected = " or ".join(type_.__name__ for type_ in types)
            raise SchemaError(f"{where}: expected '{name}' as {expected}, got {found!r:.80}")


def _check_name(task: str, where: str) -> None:
    if not re.fullmatch(r"[\w.-]+", task, re.ASCII):
        raise SchemaError(
            f"{where}: expected a task name of letters, digits, '_', '.', '-', got {task!r}"
        )


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


def text_hash(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
    results = _parse(_read_text(path), str(path))
    validate_results(results, str(path))
    return results


def write_samples(
    folder: epath.PathLike, task: str, samples: Iterable[Mapping[str, Any]], stamp: str
) -> epath.Path:
    """Writes `samples_<task>_<timestamp>.jsonl`, whole or not at all; returns its path."""
    _check_name(task, "samples")
    lines = []
    for number, sample in enumerate(samples, start=1):
        validate_sample(sample, f"samples of '{task}', line {number}")
        lines.append(json_line(sample))
    path = folders.make_folder(folder) / f"samples_{task}_{stamp}.jsonl"
    folders.write_bytes(path, "".join(lines).encode())
    return path


def read_samples(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads and checks a samples file.

    Raises:
      SchemaError: names the file and the line.
    """
    samples = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line:
            samples.append(_parse(line, f"{path}, line {number}"))
            validate_sample(samples[-1], f"{path}, line {number}")
    return samples


def json_line(value: Mapping[str, Any]) -> str:
    """Returns a value as one line of JSON, newline included."""
    # A lone surrogate (a model's half character) cannot be UTF-8; escaped it survives.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return text + "\n"


def _read_text(path: epath.PathLike) -> str:
    try:
        return epath.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"cannot read '{path}': {error}") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f"{where}: expected JSON: {error}") from error
