"""Reads the folders of a run into plain Python: files alone, and on past what is damaged.

What a folder is, its files tell. A MODEL_DIR may hold an evaluation folder per step, and one
folder may be several things at once.

| file                                        | read as                                  |
|---------------------------------------------|------------------------------------------|
| `teacher_info.json`                         | teacher records                          |
| `alignment_info.json`                       | aligned examples                         |
| `packed_info.json`                          | packed rows                              |
| `metrics.jsonl`                             | training                                 |
| `*.json`, `*.gin` beside `metrics.jsonl`    | its settings                             |
| `results_<time>.json`                       | an evaluation, in the harness' form      |
| `samples_<task>_<time>.jsonl`               | its samples                              |
| `eval/<step>/`, `<step>/` with such files   | evaluations of checkpoints               |
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from specialize_jax import schemas
from specialize_jax.schemas import folders

_METRICS = "metrics.jsonl"
_SETTINGS_BYTES = 200_000  # a longer settings file would drown the page
_INFO_NAMES = set(folders.INFO_FILES.values())


@dataclasses.dataclass(frozen=True)
class Info:
    """A folder described by one info file: `label` for people, `info` the parsed file."""

    label: str
    info: dict[str, Any]


@dataclasses.dataclass
class Training:
    """What training left behind.

    Attributes:
      label: name for people.
      rows: rows of `metrics.jsonl` by split, by step upwards; a step logged twice (before and after
        a resume) counts as logged last.
      settings: text of the JSON and gin files beside the metrics, by file name.
    """

    label: str
    rows: dict[str, list[dict[str, Any]]]
    settings: dict[str, str]


@dataclasses.dataclass
class Evaluation:
    """One evaluation folder.

    Attributes:
      label: of the run it belongs to.
      step: of the checkpoint; None where the folder does not say.
      results: task -> (metrics of that task, number of samples or None, file it was read from).
      samples: task -> lines of its samples file, in lm-evaluation-harness form.
      configs: task -> what defines it, as the results file says; tasks may be absent.
    """

    label: str
    step: int | None
    results: dict[str, tuple[dict[str, Any], int | None, str]]
    samples: dict[str, list[dict[str, Any]]]
    configs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Runs:
    """Everything that was read.

    Attributes:
      sources: (folder as given, what was found in it).
      problems: what could not be read, with file and line.
      notes: what was left out on purpose.
    """

    sources: list[tuple[str, list[str]]] = dataclasses.field(default_factory=list)
    teachers: list[Info] = dataclasses.field(default_factory=list)
    aligned: list[Info] = dataclasses.field(default_factory=list)
    packed: list[Info] = dataclasses.field(default_factory=list)
    training: list[Training] = dataclasses.field(default_factory=list)
    evaluations: list[Evaluation] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def read(paths: Sequence[epath.PathLike]) -> Runs:
    """Reads folders of any stage.

    Args:
      paths: folders, local or remote.

    Raises:
      schemas.SchemaError: a path is no folder, or holds nothing that is known.
    """
    runs = Runs()
    given = [epath.Path(path) for path in paths]
    seen: set[str] = set()
    for folder, label in zip(given, _labels(given), strict=True):
        if not folder.is_dir():
            raise schemas.SchemaError(f"expected a folder to report on, '{folder}' is none")
        found = _read_folder(folder, label, runs, seen)
        runs.sources.append((str(folder), found))
    return runs


def _read_folder(folder: epath.Path, label: str, runs: Runs, seen: set[str]) -> list[str]:
    """Adds to `runs` what one folder holds; returns what that was, in words."""
    found = []
    places = [
        ("teacher records", "teacher_records", runs.teachers),
        ("aligned examples", "aligned_examples", runs.aligned),
        ("packed rows", "packed_rows", runs.packed),
    ]
    for words, schema, place in places:
        path = folder / folders.INFO_FILES[schema]
        if path.exists():
            found.append(words)
            if _first_time(path, seen):
                info = _read_object(path, runs)
                place += [Info(label, info)] if info is not None else []
                if info is not None and info.get("version") != folders.VERSION:
                    version = info.get("version")
                    runs.notes.append(f"{path}: version {version!r}; shown is what is understood")
    if (folder / _METRICS).exists():
        found.append("training metrics")
        if _first_time(folder / _METRICS, seen):
            runs.training.append(_read_training(folder, label, runs))
    evaluations = list(_evaluation_folders(folder))
    for path, step in evaluations:
        if _first_time(path, seen):
            runs.evaluations.append(_read_evaluation(path, _run_name(folder, label), step, runs))
    if evaluations:
        found.append(f"{len(evaluations)} evaluation{'s' * (len(evaluations) > 1)}")
    if not found:
        looked = [*sorted(_INFO_NAMES), _METRICS, "results_*.json", "samples_*.jsonl"]
        inside = sorted(path.name for path in folder.iterdir())[:8]
        raise schemas.SchemaError(
            f"nothing to report on in '{folder}': looked for {', '.join(looked)}, and the last two "
            f"under eval/<step>/; found {', '.join(inside) or 'an empty folder'}"
        )
    return found


def _labels(given: Sequence[epath.Path]) -> list[str]:
    """Returns the last part of every path, or the path as given where that is ambiguous."""
    names = [path.name or str(path) for path in given]
    return [
        str(path) if names.count(name) > 1 else name
        for path, name in zip(given, names, strict=True)
    ]


def _run_name(folder: epath.Path, label: str) -> str:
    """Returns the MODEL_DIR's name where an `eval` folder, or a step in it, was given itself."""
    if folder.name == "eval":
        return folder.parent.name
    return folder.parent.parent.name if folder.parent.name == "eval" else label


def _first_time(path: epath.Path, seen: set[str]) -> bool:
    """Says whether a file was not read yet: MODEL_DIR and MODEL_DIR/eval/100 may both be given."""
    key = str(path.resolve())
    fresh = key not in seen
    seen.add(key)
    return fresh


def _parse(text: str) -> Any:
    """Parses JSON; NaN and infinities, which Python writes and JSON lacks, become None."""
    value = json.loads(text, parse_constant=lambda _: None)
    if "\\ud" in text.lower():  # half of a surrogate pair, as a cut teacher text has, is no UTF-8
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _read_object(path: epath.Path, runs: Runs) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None after noting the problem."""
    try:
        value = _parse(path.read_text())
    except json.JSONDecodeError as error:
        runs.problems.append(
            f"{path}, line {error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
        )
    except (UnicodeDecodeError, OSError) as error:
        runs.problems.append(f"{path}: cannot be read: {error}")
    else:
        if isinstance(value, dict):
            return value
        runs.problems.append(f"{path}: expected a JSON object, got {type(value).__name__}")
    return None


def _read_lines(path: epath.Path, runs: Runs) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) for every good line of a JSON Lines file.

    A last line without a newline that does not parse is being written: a note, not a problem.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = _parse(line.decode())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                runs.notes.append(f"{path}: line {number}, the last, is half-written; left out")
            else:
                reason = str(error)
                if isinstance(error, json.JSONDecodeError):
                    reason = f"{error.msg} (column {error.colno})"
                runs.problems.append(f"{path}, line {number}: not valid JSON: {reason}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            got = type(value).__name__
            runs.problems.append(f"{path}, line {number}: expected a JSON object, got {got}")


def _read_training(folder: epath.Path, label: str, runs: Runs) -> Training:
    """Reads the metrics and settings of a MODEL_DIR."""
    by_split: dict[str, dict[int, dict[str, Any]]] = {}
    for number, row in _read_lines(folder / _METRICS, runs):
        step, split = row.get("step"), row.get("split", "train")
        if isinstance(step, bool) or not isinstance(step, int) or not isinstance(split, str):
            runs.problems.append(
                f"{folder / _METRICS}, line {number}: expected an integer 'step' and a string "
                f"'split', got {step!r} and {split!r}"
            )
            continue
        by_split.setdefault(split, {})[step] = row
    rows = {split: [steps[s] for s in sorted(steps)] for split, steps in by_split.items()}
    settings = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.gin")], key=lambda p: p.name):
        if path.name in _INFO_NAMES or path.name.startswith("results_"):
            continue
        if path.stat().length > _SETTINGS_BYTES:
            runs.notes.append(f"{path}: longer than {_SETTINGS_BYTES:,} bytes; not shown")
        elif path.name.endswith(".gin"):
            settings[path.name] = path.read_text()
        elif (value := _read_object(path, runs)) is not None:
            settings[path.name] = json.dumps(value, indent=2, ensure_ascii=False)
    return Training(label, rows, settings)


def _evaluation_folders(folder: epath.Path) -> Iterator[tuple[epath.Path, int | None]]:
    """Yields the evaluation folders in a folder, itself included, and their steps."""
    if _holds_evaluation(folder):
        yield folder, int(folder.name) if folder.name.isdigit() else None
    for parent in (folder, folder / "eval"):
        if parent.is_dir():
            steps = [path for path in parent.iterdir() if path.name.isdigit() and path.is_dir()]
            for path in sorted(steps, key=lambda path: int(path.name)):
                if _holds_evaluation(path):
                    yield path, int(path.name)


def _holds_evaluation(folder: epath.Path) -> bool:
    return any(any(folder.glob(p)) for p in ("results_*.json", "samples_*.jsonl"))


def _read_evaluation(folder: epath.Path, label: str, step: int | None, runs: Runs) -> Evaluation:
    """Reads results and samples; where a task was evaluated twice, the later file counts."""
    evaluation = Evaluation(label, step, {}, {})
    for path in sorted(folder.glob("results_*.json"), key=lambda path: path.name):
        report = _read_object(path, runs)
        if report is None:
            continue
        results = report.get("results")
        if not isinstance(results, dict):
            got = type(results).__name__
            runs.problems.append(f"{path}: expected an object under 'results', got {got}")
            continue
        for task, metrics in results.items():
            if isinstance(metrics, dict):
                count = _sample_count(report, task, metrics)
                evaluation.results[task] = (metrics, count, str(path))
                evaluation.configs[task] = _config(report, task)
    for path in sorted(folder.glob("samples_*.jsonl"), key=lambda path: path.name):
        named = re.fullmatch(r"samples_(.+?)(?:_\d{4}-\d\d-\d\dT[^_]*|_\d+)?\.jsonl", path.name)
        if named:
            evaluation.samples[named[1]] = [row for _, row in _read_lines(path, runs)]
    return evaluation


def _config(report: dict[str, Any], task: str) -> dict[str, Any]:
    """Returns what a results file says defines a task; empty where it says nothing."""
    configs = report.get("configs")
    config = configs.get(task) if isinstance(configs, dict) else None
    return config if isinstance(config, dict) else {}


def _sample_count(report: dict[str, Any], task: str, metrics: dict[str, Any]) -> int | None:
    """Returns how many samples a task had: `n-samples`, as the harness writes it, or beside it."""
    counts = report.get("n-samples")
    count = counts.get(task) if isinstance(counts, dict) else None
    if isinstance(count, dict):
        count = count.get("effective")
    count = metrics.get("sample_len") if count is None else count
    return count if isinstance(count, int) and not isinstance(count, bool) else None
