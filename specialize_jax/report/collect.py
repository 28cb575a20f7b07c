"""Reads the folders of a run into plain Python: files alone, and on past what is damaged.

What a folder is, its files tell. A MODEL_DIR may hold an evaluation folder per step, and one
folder may be several things at once.

| file                                        | read as                                  |
|---------------------------------------------|------------------------------------------|
| `teacher_info.json`                         | teacher records                          |
| `alignment_info.json`                       | aligned examples                         |
| `packed_info.json`                          | packed rows                              |
| `metrics.jsonl`                             | training                                 |
| `checkpoints/config.json`                   | what the student is                      |
| `selected.json`                             | the checkpoint that was chosen           |
| `*.json`, `*.gin` beside `metrics.jsonl`    | its settings                             |
| `results_<time>.json`                       | an evaluation, in the harness' form      |
| `samples_<task>_<time>.jsonl`               | its samples                              |
| `eval/<step>/`, `<step>/` with such files   | evaluations of checkpoints               |
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from specialize_jax import schemas
from specialize_jax.report import evaluations, reading
from specialize_jax.report.evaluations import Evaluation
from specialize_jax.schemas import folders

_METRICS = "metrics.jsonl"
_CONFIG = "checkpoints/config.json"
_SELECTED = "selected.json"
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
class Runs(reading.Log):
    """Everything that was read, and what was met while reading.

    Attributes:
      sources: (folder as given, what was found in it).
      configs: label of a run -> its `checkpoints/config.json`.
      selected: label of a run -> its `selected.json`.
    """

    sources: list[tuple[str, list[str]]] = dataclasses.field(default_factory=list)
    teachers: list[Info] = dataclasses.field(default_factory=list)
    aligned: list[Info] = dataclasses.field(default_factory=list)
    packed: list[Info] = dataclasses.field(default_factory=list)
    training: list[Training] = dataclasses.field(default_factory=list)
    evaluations: list[Evaluation] = dataclasses.field(default_factory=list)
    configs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    selected: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


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
                info = reading.read_object(path, runs)
                place += [Info(label, info)] if info is not None else []
                if info is not None and info.get("version") != folders.VERSION:
                    version = info.get("version")
                    runs.notes.append(f"{path}: version {version!r}; shown is what is understood")
    if (folder / _METRICS).exists():
        found.append("training metrics")
        if _first_time(folder / _METRICS, seen):
            runs.training.append(_read_training(folder, label, runs))
    _read_run(folder, _run_name(folder, label), runs, seen)
    if count := _read_evaluations(folder, _run_name(folder, label), runs, seen):
        found.append(f"{count} evaluation{'s' * (count > 1)}")
    if not found:
        looked = [*sorted(_INFO_NAMES), _METRICS, "results_*.json", "samples_*.jsonl"]
        inside = sorted(path.name for path in folder.iterdir())[:8]
        raise schemas.SchemaError(
            f"nothing to report on in '{folder}': looked for {', '.join(looked)}, and the last two "
            f"under eval/<step>/; found {', '.join(inside) or 'an empty folder'}"
        )
    return found


def _read_evaluations(folder: epath.Path, label: str, runs: Runs, seen: set[str]) -> int:
    """Adds the evaluations in a folder, and returns how many there are.

    Answers are read of each task's last step and of the chosen one alone: those of all checkpoints
    of a long run do not fit into memory, and nothing of them is shown.
    """
    chosen = runs.selected.get(label, {}).get("step")
    there = list(evaluations.folders_in(folder))
    read: list[Evaluation] = []
    have: set[str] = set()
    for path, step in reversed(there):
        if _first_time(path, seen):
            skipped = set() if step is None or step == chosen else have
            read.append(evaluations.read(path, label, step, runs, skipped))
            have |= set(read[-1].samples)
    runs.evaluations += reversed(read)
    return len(there)


def _read_run(folder: epath.Path, label: str, runs: Runs, seen: set[str]) -> None:
    """Adds what a MODEL_DIR says of its student and of the checkpoint that was chosen."""
    for path, place in ((folder / _CONFIG, runs.configs), (folder / _SELECTED, runs.selected)):
        if path.exists() and _first_time(path, seen):
            value = reading.read_object(path, runs)
            if value is not None:
                place[label] = value


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


def _read_training(folder: epath.Path, label: str, runs: Runs) -> Training:
    """Reads the metrics and settings of a MODEL_DIR."""
    by_split: dict[str, dict[int, dict[str, Any]]] = {}
    for number, row in reading.read_lines(folder / _METRICS, runs):
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
        if path.name in {*_INFO_NAMES, _SELECTED} or path.name.startswith("results_"):
            continue
        if path.stat().length > _SETTINGS_BYTES:
            runs.notes.append(f"{path}: longer than {_SETTINGS_BYTES:,} bytes; not shown")
        elif path.name.endswith(".gin"):
            settings[path.name] = path.read_text()
        elif (value := reading.read_object(path, runs)) is not None:
            settings[path.name] = json.dumps(value, indent=2, ensure_ascii=False)
    return Training(label, rows, settings)
