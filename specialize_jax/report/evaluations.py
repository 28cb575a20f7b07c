"""Reads evaluation folders: results and samples in the form of lm-evaluation-harness."""

import dataclasses
import re
from collections.abc import Collection, Iterator
from typing import Any

from etils import epath

from specialize_jax.report import coerce, reading

_SAMPLES = re.compile(r"samples_(.+?)(?:_(\d{4}-\d\d-\d\dT[^_]*|\d+))?\.jsonl")


@dataclasses.dataclass
class Evaluation:
    """One evaluation folder.

    Attributes:
      label: of the run it belongs to.
      step: of the checkpoint; None where the folder does not say.
      results: task -> (metrics of that task, number of samples or None, file it was read from).
      samples: task -> lines of its samples file, in lm-evaluation-harness form.
      configs: task -> what defines it, as the results file says; tasks may be absent.

    A task whose answers were written with a calculator, or not greedily, is kept beside the plain
    one, under a name of its own.
    """

    label: str
    step: int | None
    results: dict[str, tuple[dict[str, Any], int | None, str]]
    samples: dict[str, list[dict[str, Any]]]
    configs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def folders_in(folder: epath.Path) -> Iterator[tuple[epath.Path, int | None]]:
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


def read(
    folder: epath.Path,
    label: str,
    step: int | None,
    log: reading.Log,
    skipped: Collection[str] = (),
) -> Evaluation:
    """Reads results and samples; where a task was evaluated twice, the later file counts.

    Args:
      folder: with the files.
      label: of the run.
      step: of the checkpoint; None where it is not known.
      log: gets what cannot be read.
      skipped: tasks whose samples are not read, where the results say how many there are.
    """
    evaluation = Evaluation(label, step, {}, {})
    keys: dict[tuple[str, str], str] = {}  # (task, time) -> the key of its results
    for path in sorted(folder.glob("results_*.json"), key=lambda path: path.name):
        report = reading.read_object(path, log)
        if report is None:
            continue
        results = report.get("results")
        if not isinstance(results, dict):
            got = type(results).__name__
            log.problems.append(f"{path}: expected an object under 'results', got {got}")
            continue
        for task, metrics in results.items():
            if isinstance(metrics, dict):
                config = _config(report, task)
                key = _key(task, config)
                keys[task, path.name.removeprefix("results_").removesuffix(".json")] = key
                count = _sample_count(report, task, metrics)
                evaluation.results[key] = (metrics, count, str(path))
                evaluation.configs[key] = config
    for path in sorted(folder.glob("samples_*.jsonl"), key=lambda path: path.name):
        named = _SAMPLES.fullmatch(path.name)
        if named:
            key = keys.get((named[1], named[2] or ""), named[1])
            if key in skipped and evaluation.results.get(key, ({}, None, ""))[1] is not None:
                continue
            evaluation.samples[key] = [row for _, row in reading.read_lines(path, log)]
    return evaluation


def _key(task: str, config: dict[str, Any]) -> str:
    """Returns a task's name; with a calculator, or not greedily, it is a task of its own."""
    return " + ".join(part for part in (task, calculator(config), sampling(config)) if part)


def calculator(config: dict[str, Any]) -> str | None:
    """Returns what computed while a task's answers were written; None for nothing."""
    kind = coerce.name(config.get("calculator"))
    return None if kind == "none" else kind


def sampling(config: dict[str, Any]) -> str | None:
    """Returns in words how a task's answers were decoded; None for greedily, or where none says."""
    given = config.get("gen_kwargs")
    given = given if isinstance(given, dict) else {}
    if given.get("do_sample") is True:
        temperature = coerce.number(given.get("temperature"))
        return "sampling" if temperature is None else f"sampling at {temperature:g}"
    beams = coerce.number(given.get("num_beams")) or 1
    return f"{beams:g} beams" if beams > 1 else None


def _config(report: dict[str, Any], task: str) -> dict[str, Any]:
    """Returns what a results file says defines a task, how all were decoded among it."""
    every, configs = report.get("config"), report.get("configs")
    shared = {"gen_kwargs": every.get("gen_kwargs") if isinstance(every, dict) else None}
    config = configs.get(task) if isinstance(configs, dict) else None
    return shared | (config if isinstance(config, dict) else {})


def _sample_count(report: dict[str, Any], task: str, metrics: dict[str, Any]) -> int | None:
    """Returns how many samples a task had: `n-samples`, as the harness writes it, or beside it."""
    counts = report.get("n-samples")
    count = counts.get(task) if isinstance(counts, dict) else None
    if isinstance(count, dict):
        count = count.get("effective")
    count = metrics.get("sample_len") if count is None else count
    return count if isinstance(count, int) and not isinstance(count, bool) else None
