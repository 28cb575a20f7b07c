"""What each checkpoint of a run got right, question by question, from its evaluation files.

Reads `MODEL_DIR/eval/<step>/results_*.json` and the samples beside them, and nothing else. Where a
task was evaluated more than once, an evaluation counts that decoded as at every other checkpoint,
of several the one of the most questions, and of these the latest. Where there is none such, the
rest of that rule chooses: neither a vote of samples at the last checkpoint nor a look at a few
questions takes the greedy answers away.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from specialize_jax.evaluation import splits
from specialize_jax.schemas import SchemaError, results

NO_CALCULATOR = "none"


class Task(NamedTuple):
    """A set asked in one format.

    Attributes:
      name: of the task.
      data_set: what was asked.
      role: of the set, one of `readers.ROLES`; None where the file names none.
      format: how it was put.
      split: name of the set's split in `splits`; None where it has none.
      calculator: that computed in its answers, or `NO_CALCULATOR`.
      decoding: how they were decoded; equal texts for equal ways.
      questions: how many were scored.
      samples: the file of its answers.
    """

    name: str
    data_set: str
    role: str | None
    format: str | None
    split: str | None
    calculator: str
    decoding: str
    questions: int
    samples: epath.Path


class Checkpoint(NamedTuple):
    """A checkpoint that was evaluated: its step, tasks by name, and the results files read."""

    step: int
    tasks: Mapping[str, Task]
    files: tuple[epath.Path, ...]

    def tasks_of(self, data_set: str) -> list[Task]:
        """Returns the tasks that asked a set, one a format, by name."""
        return [task for _, task in sorted(self.tasks.items()) if task.data_set == data_set]


class Grades(NamedTuple):
    """Answers of several checkpoints to the same questions of a set.

    Attributes:
      rows: [n] places of the questions in their source file, upwards.
      values: [checkpoints, n] share of a question's formats that were answered rightly.
    """

    rows: np.ndarray
    values: np.ndarray

    def part(self, rows: Iterable[int] | None) -> "Grades":
        """Returns the questions among `rows`; None for all of them."""
        if rows is None:
            return self
        kept = np.isin(self.rows, sorted(rows))
        return Grades(self.rows[kept], self.values[:, kept])


def checkpoints(
    model_dir: epath.PathLike,
    *,
    steps: Sequence[int] | None = None,
    formats: Sequence[str] | None = None,
    calculator: str | None = None,
) -> tuple[list[Checkpoint], list[str]]:
    """Returns the evaluated checkpoints of a run, and notes on what was passed over.

    Args:
      model_dir: a folder that `train` wrote and `evaluate` added `eval/<step>` to.
      steps: which to read; None for all that have results.
      formats: labels of `schemas.Format` to read; None for all.
      calculator: only answers that this one computed in; None for those without, and where there
        are none, for the only one that was used.

    Raises:
      SchemaError: a results file breaks its schema.
      ValueError: nothing was evaluated, or not with a step, format or calculator that was asked
        for; or several calculators were used, and which one counts was not said.
    """
    folder = epath.Path(model_dir) / "eval"
    there = sorted(int(path.name) for path in _steps(folder))
    if steps is not None and (missing := sorted(set(steps) - set(there))):
        raise ValueError(f"no evaluation of steps {missing} in '{folder}'; choices: {there}")
    read = {step: _read(folder / str(step)) for step in (steps and sorted(set(steps))) or there}
    notes = [
        f"step {step} is left out: its evaluation has not finished"
        for step, (tasks, _) in read.items()
        if not tasks
    ]
    read = {step: found for step, found in read.items() if found[0]}
    if not read:
        raise ValueError(f"no finished evaluation in '{folder}': run `specialize-jax evaluate`")
    if calculator is None:
        calculator = _only_calculator({t.calculator for tasks, _ in read.values() for t in tasks})
    asked = {}
    for step, (tasks, _) in read.items():
        _check_asked(step, "calculator", {calculator}, {task.calculator for task in tasks})
        _check_asked(step, "format", set(formats or ()), {str(task.format) for task in tasks})
        asked[step] = [
            task
            for task in tasks
            if task.calculator == calculator and (formats is None or task.format in formats)
        ]
    ways = _common_ways(list(asked.values()))
    found = []
    for step, tasks in asked.items():
        last = {task.name: task for task in tasks}
        kept = {t.name: t for t in tasks if t.decoding == ways.get(t.name, t.decoding)}
        notes += [
            f"step {step}: {name} was evaluated again, decoded in another way than all; "
            "that is left out"
            for name in kept
            if kept[name] is not last[name]
        ]
        found.append(Checkpoint(step, kept, read[step][1]))
    return found, notes


def _common_ways(asked: Sequence[Sequence[Task]]) -> dict[str, str]:
    """Returns task -> the way of decoding that all checkpoints share which have the task.

    Of several the last one of the first checkpoint.

    Args:
      asked: of each checkpoint, as `_read` orders them.
    """
    ways: dict[str, list[str]] = {}
    for tasks in asked:
        for name in {task.name for task in tasks}:
            mine = [task.decoding for task in tasks if task.name == name]
            ways[name] = [way for way in ways.get(name, mine) if way in mine]
    return {name: shared[-1] for name, shared in ways.items() if shared}


def _only_calculator(used: set[str]) -> str:
    if NO_CALCULATOR in used:
        return NO_CALCULATOR
    if len(used) > 1:
        raise ValueError(f"answers of several calculators: name one of {', '.join(sorted(used))}")
    return next(iter(used))


def _check_asked(step: int, what: str, wanted: set[str], asked: set[str]) -> None:
    if missing := sorted(wanted - asked):
        raise ValueError(
            f"step {step} was not asked with {what} {', '.join(missing)}; choices: "
            f"{', '.join(sorted(asked))}"
        )


def _steps(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()]


def _read(folder: epath.Path) -> tuple[list[Task], tuple[epath.Path, ...]]:
    """Returns all tasks of all evaluations of a checkpoint, and the results files.

    Those of the most questions are the last, and of these the latest.
    """
    paths = sorted(folder.glob("results_*.json"), key=lambda path: path.name)
    tasks = []
    for path in paths:
        stamp = path.name.removeprefix("results_").removesuffix(".json")
        found = results.read_results(path)
        decoding = json.dumps(found["config"].get("gen_kwargs"), sort_keys=True)
        for name, config in found["configs"].items():
            scored = found["n-samples"][name]["effective"]
            samples = folder / f"samples_{name}_{stamp}.jsonl"
            tasks.append(_task(name, config, decoding, scored, samples))
    return sorted(tasks, key=lambda task: task.questions), tuple(paths)


def _task(
    name: str,
    config: Mapping[str, str | None],
    decoding: str,
    questions: int,
    samples: epath.Path,
) -> Task:
    data_set = config.get("dataset") or name
    split = config.get("validation_rows", data_set)
    return Task(
        name=name,
        data_set=data_set,
        role=config.get("role"),
        format=config.get("format"),
        split=split if split in splits.NAMES else None,
        calculator=config.get("calculator") or NO_CALCULATOR,
        decoding=decoding,
        questions=questions,
        samples=samples,
    )


def grades(
    data_set: str, read: Sequence[Checkpoint], mode: str, notes: list[str]
) -> tuple[Grades, list[epath.Path]]:
    """Returns what checkpoints answered to the questions of a set that all of them were asked.

    Args:
      data_set: asked of every checkpoint.
      read: the checkpoints.
      mode: extraction mode.
      notes: gets a line where the checkpoints were asked different questions.

    Returns:
      The grades, and the samples files that they are from.

    Raises:
      SchemaError: a samples file is missing or malformed.
      ValueError: a checkpoint was not asked this set, or in other formats or another way; or it was
        not scored under `mode`; or no question is common to all.
    """
    per_step = [_of_checkpoint(data_set, checkpoint, read[0], mode) for checkpoint in read]
    common = sorted(set.intersection(*(set(graded) for graded in per_step)))
    if not common:
        raise ValueError(f"no question of '{data_set}' was asked of every checkpoint")
    most = max(map(len, per_step))
    if most > len(common):
        notes.append(
            f"{data_set}: compared on the {len(common)} questions that every checkpoint was asked, "
            f"of up to {most}"
        )
    for checkpoint, graded in zip(read, per_step, strict=True):
        for row in common:
            if graded[row][1] != per_step[0][row][1]:
                raise ValueError(
                    f"'{data_set}', question {row}: steps {read[0].step} and {checkpoint.step} "
                    "differ in prompt, gold answer or decoding; evaluate both in the same way"
                )
    values = np.array([[graded[row][0] for row in common] for graded in per_step])
    paths = [task.samples for checkpoint in read for task in checkpoint.tasks_of(data_set)]
    return Grades(np.array(common), values), paths


def _of_checkpoint(
    data_set: str, checkpoint: Checkpoint, first: Checkpoint, mode: str
) -> dict[int, tuple[float, str]]:
    """Returns row -> (share of formats that are right, hash of what was asked)."""
    tasks, expected = checkpoint.tasks_of(data_set), first.tasks_of(data_set)
    if not tasks:
        found = sorted({task.data_set for task in checkpoint.tasks.values()})
        raise ValueError(
            f"step {checkpoint.step} was not asked '{data_set}', only {', '.join(found)}; evaluate "
            "it there, or name other steps by --steps"
        )
    if [task.name for task in tasks] != [task.name for task in expected]:
        raise ValueError(
            f"'{data_set}' was asked as {[task.name for task in expected]} at step {first.step} "
            f"and as {[task.name for task in tasks]} at step {checkpoint.step}; name --formats "
            "that both have"
        )
    graded = [_lines(task, mode) for task in tasks]
    if any(set(answers) != set(graded[0]) for answers in graded):
        raise ValueError(
            f"step {checkpoint.step}: the formats of '{data_set}' were asked different questions; "
            "name one by --formats"
        )
    return {
        row: (
            sum(answers[row][0] for answers in graded) / len(graded),
            "".join(answers[row][1] for answers in graded),
        )
        for row in graded[0]
    }


def _lines(task: Task, mode: str) -> dict[int, tuple[float, str]]:
    """Returns row -> (whether it is right, hash of what was asked) of one samples file."""
    lines = results.read_samples(task.samples)
    kept = [line for line in lines if line["filter"] == mode]
    if not kept:
        found = sorted({line["filter"] for line in lines})
        raise ValueError(f"'{task.samples}' has no answers under '{mode}'; choices: {found}")
    graded = {line["doc_id"]: (line[results.METRIC], _asked(line)) for line in kept}
    if len(graded) != len(kept):
        raise SchemaError(f"'{task.samples}': a question stands there twice under '{mode}'")
    return graded


def _asked(line: Mapping[str, object]) -> str:
    """Returns a hash of prompt, gold answer and decoding of a samples line."""
    return results.text_hash(json.dumps([line["arguments"], line["target"]], sort_keys=True))
