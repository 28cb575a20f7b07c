"""One checkpoint after the other is asked the same, and its results are written."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax.apps import (
    answering,
    evaluation_prompts,
    evaluation_sets,
    progress,
    provenance,
    student,
)
from specialize_jax.decoding import calculating
from specialize_jax.evaluation import readers, runner, scoring
from specialize_jax.schemas import SchemaError, folders, results
from specialize_jax.training import checkpoints

_COUNTED = {"too_long": "too long to ask", "empty": "empty"}


class GoneError(Exception):
    """A checkpoint is no longer there."""


@dataclasses.dataclass(frozen=True)
class Exam:
    """What every checkpoint is asked.

    Attributes:
      student: who is asked.
      answerer: the same, with how it is asked.
      tasks: what.
      votes: how samples vote; None where they do not.
      config: what results say of the run, besides.
      task_config: what they say of every task; `calculator` among it.
      trained_on: questions that were; None where that is not known.
    """

    student: student.Student
    answerer: answering.Answerer
    tasks: Sequence[evaluation_prompts.Asked]
    votes: runner.Voting | None
    config: Mapping[str, Any]
    task_config: Mapping[str, Any]
    trained_on: evaluation_sets.Found | None

    def sit(self, step: int) -> bool:
        """Scores a checkpoint; what was answered before is not asked again.

        Returns:
          Whether all of it was scored. Where the checkpoint vanished, only the tasks that had been
          answered before are; a line says so.
        """
        out, checkpoint = self.student.folder / "eval" / str(step), self._checkpoint(step)
        done, missing = {}, []
        # Read when something is missing, and then once.
        params = functools.cache(functools.partial(self._restore, step))
        try:
            check_same_checkpoint(out, checkpoint)
            for asked in self.tasks:
                try:
                    done[asked.name] = self._ask(asked, params, out, step)
                except GoneError:
                    missing.append(asked.name)
        except GoneError:
            missing = [asked.name for asked in self.tasks]
        if done:
            self._save(out, step, done)
        if missing:
            print(
                f"step {step}: skipped, the checkpoint '{checkpoint}' has vanished (a run removes "
                f"those that it does not keep); not scored: {', '.join(missing)}"
            )
        return not missing

    def _checkpoint(self, step: int) -> epath.Path:
        return self.student.checkpoints / str(step)

    def _restore(self, step: int) -> Any:
        try:
            return self.student.restore(step)
        except checkpoints.CheckpointError as error:
            if step in checkpoints.all_steps(self.student.checkpoints):
                raise
            raise GoneError from error

    def _ask(
        self, asked: evaluation_prompts.Asked, params: Callable[[], Any], out: epath.Path, step: int
    ) -> runner.Task:
        def stream(prompts: list[str], numbers: list[int]) -> Iterator[tuple[int, list[str]]]:
            return self.answerer.stream(params(), prompts, numbers)

        settings = self.answerer.settings
        predictions = runner.run(
            asked.questions,
            lambda question: asked.prompts[question.id],
            stream,
            modes=asked.modes,
            samples=settings.samples,
            voting=self.votes,
            revise=functools.partial(calculating.revised, kind=self.task_config["calculator"]),
            too_long=asked.too_long,
            progress=progress.counter(f"step {step}: {asked.name}", len(asked.questions)),
            journal=runner.journal_path(out, asked.name),
            generation=generation(settings),
        )
        config = {
            **asked.config,
            **self.task_config,
            "contaminated": count_in(asked.questions, self.trained_on, asked.set_name),
        }
        return runner.Task(predictions, original=asked.original, n_shot=asked.shots, config=config)

    def _save(self, out: epath.Path, step: int, done: Mapping[str, runner.Task]) -> None:
        before = runner.newest_results(out)
        config = {
            "model": self.student.config["name"],
            "model_args": self.student.config["model"],
            "checkpoint": str(self.student.folder),
            "step": step,
            "batch_size": self.answerer.batch_size,
            "gen_kwargs": generation(self.answerer.settings),
            **self.config,
        }
        if before is not None:
            try:
                results.read_results(before)
            except SchemaError as error:
                print(
                    f"note: {error}; it is left as it is, new results go beside it, and `select` "
                    "and `verify` stop there until it is moved away"
                )
        path = runner.save(out, done, config=config, git_hash=provenance.git_commit())
        if path != before:
            provenance.write(out, "evaluate", gin=True)
        print_results(step, results.read_results(path))
        print(f"{'scored before' if path == before else 'written'}: {path}")


def generation(settings: answering.Settings) -> dict[str, Any]:
    """Returns how answers are decoded, by lm-evaluation-harness's and Hugging Face's names.

    Only what has a say is in it: answers are used again where this is the same, so that greedy ones
    are whatever the seed is.
    """
    found: dict[str, Any] = {
        "max_gen_toks": settings.max_length,
        "do_sample": settings.temperature > 0,
    }
    if settings.temperature > 0:
        found |= {name: getattr(settings, name) for name in ("temperature", "top_k", "top_p")}
        found |= {"num_return_sequences": settings.samples, "seed": settings.seed}
    if settings.num_beams > 1:
        found["num_beams"] = settings.num_beams
    if settings.calculator != "none":
        found["calculator"] = settings.calculator
    return found


def count_in(
    rows: Sequence[readers.Question], trained_on: evaluation_sets.Found | None, name: str
) -> int | None:
    """Returns how many rows of a set were trained on; None where that is not known."""
    return None if trained_on is None else len({*rows} & {*trained_on[name]})


def check_same_checkpoint(out: epath.Path, checkpoint: epath.Path) -> None:
    """Marks an evaluation folder with its checkpoint, so that no other one's answers are reused.

    Raises:
      GoneError: the checkpoint is not there, and nothing was answered by it.
      SchemaError: the mark is damaged.
      ValueError: the folder holds answers of another checkpoint of the same step.
    """
    path = out / "checkpoint.json"
    try:
        # Orbax notes there when the checkpoint was written.
        mark = folders.sha256(checkpoint / "_CHECKPOINT_METADATA")
    except FileNotFoundError as error:
        if path.exists():
            return
        raise GoneError from error
    if path.exists():
        there = folders.parse_json(path.read_text(), f"'{path}'")
        folders.check_keys(there, ("sha256",), f"'{path}'")
        if there["sha256"] != mark:
            raise ValueError(
                f"'{out}' holds answers of another checkpoint than '{checkpoint}' is now; "
                "remove that folder, or move it away"
            )
        return
    folders.make_folder(out)
    folders.write_json(path, {"checkpoint": str(checkpoint), "sha256": mark})


def print_results(step: int, value: Mapping[str, Any]) -> None:
    """Prints a line for each task and metric: questions, and each mode with its 95% interval."""
    width = max(map(len, value["results"]))
    print(f"step {step}  {'task':<{width}}{'n':>7}")
    for task, row in value["results"].items():
        counts = value["n-samples"][task]
        noted = [f"{counts[name]} {words}" for name, words in _COUNTED.items() if counts.get(name)]
        start = f"{task:<{width}}{counts['effective']:>7}"
        for metric, cells in _cells(row, counts["effective"]).items():
            name = "" if metric == results.METRIC else f"{metric}  "
            print(f"{'':9}{start}  {name}{'  '.join([*cells, *noted])}")
            start, noted = " " * len(start), []


def _cells(row: Mapping[str, Any], n: int) -> dict[str, list[str]]:
    """Returns metric -> "mode share [interval]" of each mode."""
    cells: dict[str, list[str]] = {}
    for key, share in row.items():
        metric, _, mode = key.partition(",")
        if mode and not metric.endswith("_stderr"):
            low, high = scoring.wilson(round(share * n), n)
            cells.setdefault(metric, []).append(f"{mode} {share:.2%} [{low:.2%}, {high:.2%}]")
    return cells
