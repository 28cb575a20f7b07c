"""Predictions, and the files in lm-evaluation-harness form (`schemas.results`) that they end in."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax.evaluation import scoring
from specialize_jax.evaluation.readers import Question
from specialize_jax.evaluation.scoring import Score
from specialize_jax.schemas import SchemaError, results

_BOOTSTRAP = {"resamples": 1000, "seed": 0}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model answered to a question.

    Attributes:
      question: what was asked.
      prompt: how it was put.
      responses: the model's texts, one a sample; one empty text where it was not asked.
      scores: extraction mode -> score of the first text.
      votes: "maj@k" -> extraction mode -> score of the vote.
      generation: how it was decoded.
      too_long: whether it was not asked, since the prompt is too long.
    """

    question: Question
    prompt: str
    responses: Sequence[str]
    scores: Mapping[str, Score]
    votes: Mapping[str, Mapping[str, Score]] = dataclasses.field(default_factory=dict)
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    too_long: bool = False

    @property
    def metrics(self) -> dict[str, Mapping[str, Score]]:
        """Metric -> extraction mode -> score."""
        return {results.METRIC: self.scores, **self.votes}

    @property
    def empty(self) -> int:
        """How many texts say nothing, though they were asked for."""
        return 0 if self.too_long else sum(not text.strip() for text in self.responses)


@dataclasses.dataclass(frozen=True)
class Task:
    """The predictions of one task, and what its results say about it.

    Attributes:
      predictions: from `run`.
      original: questions in the whole set; by default as many as were predicted.
      n_shot: exemplars in the prompt.
      version: of the task's definition.
      config: what defines it; JSON values.
    """

    predictions: Sequence[Prediction]
    original: int | None = None
    n_shot: int = 0
    version: int | str = 1
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def save(
    folder: epath.PathLike,
    tasks: Mapping[str, Task],
    *,
    config: Mapping[str, Any],
    git_hash: str | None = None,
    date: float | None = None,
) -> epath.Path:
    """Writes `samples_<task>_<timestamp>.jsonl` for every task, then `results_<timestamp>.json`.

    The results come last: where they are, the samples are complete. Where the newest results there
    say the same already, nothing is written.

    Args:
      folder: an evaluation folder, created where it is missing.
      tasks: name -> task.
      config: what was run (model, checkpoint, batch size); JSON values.
      git_hash: commit of the code that ran.
      date: seconds since 1970; now by default.

    Returns:
      The path of the results file.

    Raises:
      ValueError: a task has no predictions.
      SchemaError: a value does not fit the schema, or the folder cannot be written.
    """
    built = results.build_results(
        [_task_result(name, task) for name, task in tasks.items()],
        config=config,
        git_hash=git_hash,
        date=date,
    )
    if (path := newest_results(folder)) is not None and _says_the_same(path, built):
        return path
    stamp = results.timestamp(built["date"])
    for name, task in tasks.items():
        results.write_samples(folder, name, _samples(task.predictions), stamp)
    return results.write_results(folder, built, stamp)


def newest_results(folder: epath.PathLike) -> epath.Path | None:
    """Returns the path of the last results file in an evaluation folder; None for none."""
    return max(epath.Path(folder).glob("results_*.json"), default=None, key=lambda path: path.name)


def _says_the_same(path: epath.Path, built: Mapping[str, Any]) -> bool:
    """Returns whether a file says what was found now, whenever and by whatever commit it did."""
    try:
        there = results.read_results(path)
    except SchemaError:  # of another version, or damaged: it stays, a new one goes beside it
        return False
    passing = dict.fromkeys(("date", "git_hash"))
    one, other = ({**value, **passing} for value in (there, built))
    for value in (one, other):
        value["config"] = {**value["config"], "packages": None}
    return one == other


def _task_result(name: str, task: Task) -> results.TaskResult:
    if not task.predictions:
        raise ValueError(f"task '{name}' has no predictions to save")
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    intervals = {}
    for metric, modes in task.predictions[0].metrics.items():
        for mode in modes:
            found = [prediction.metrics[metric][mode] for prediction in task.predictions]
            summary = scoring.summarize(found)
            scores.setdefault(metric, {})[mode] = summary.accuracy, summary.stderr
            low, high = scoring.bootstrap([score.correct for score in found], **_BOOTSTRAP)
            interval = {"low": low, "high": high, "method": "bootstrap", **_BOOTSTRAP}
            intervals[f"{metric},{mode}"] = interval
    count = len(task.predictions)
    return results.TaskResult(
        task=name,
        scores=scores.pop(results.METRIC),
        votes=scores,
        intervals=intervals,
        original=count if task.original is None else task.original,
        effective=count,
        without_gold=sum(not prediction.question.has_gold for prediction in task.predictions),
        too_long=sum(prediction.too_long for prediction in task.predictions),
        empty=sum(prediction.empty for prediction in task.predictions),
        n_shot=task.n_shot,
        version=task.version,
        config=task.config,
    )


def _samples(predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
    """Yields the lines of a samples file: mode by mode, as the harness writes them."""
    for mode in predictions[0].scores:
        for prediction in predictions:
            yield results.build_sample(
                doc_id=prediction.question.row,
                doc={"question": prediction.question.question, **prediction.question.source},
                target=prediction.question.answer,
                prompt=prediction.prompt,
                generation=prediction.generation,
                responses=prediction.responses,
                mode=mode,
                answer=prediction.scores[mode].answer,
                correct=prediction.scores[mode].correct,
                votes={
                    name: (of_k[mode].answer, of_k[mode].correct)
                    for name, of_k in prediction.votes.items()
                },
                too_long=prediction.too_long,
            )
