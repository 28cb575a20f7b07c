"""Asks a model every question of a set, keeps each answer as it comes, and writes the files.

While it runs, every answer goes to a journal, `predictions_<task>.jsonl`: the part of a samples
line that decoding made. A rerun with the same journal decodes only what is missing there, so that a
stopped run loses at most the batch it was in, and another extraction mode costs no decoding.
`save` writes the finished evaluation in lm-evaluation-harness form (`schemas.results`).
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax.evaluation import scoring
from specialize_jax.evaluation.readers import Question
from specialize_jax.evaluation.scoring import Score
from specialize_jax.schemas import SchemaError, folders, results

MODES = ("corrected", "fu2023")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model answered to a question.

    Attributes:
      question: what was asked.
      prompt: how it was put.
      response: the model's text.
      scores: extraction mode -> score.
      generation: how it was decoded.
    """

    question: Question
    prompt: str
    response: str
    scores: Mapping[str, Score]
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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


def journal_path(folder: epath.PathLike, task: str) -> epath.Path:
    """Returns where an evaluation folder keeps the journal of a task."""
    return epath.Path(folder) / f"predictions_{task}.jsonl"


def run(
    questions: Sequence[Question],
    prompt_fn: Callable[[Question], str],
    predict_fn: Callable[[list[str]], list[str]],
    *,
    modes: Sequence[str] = MODES,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    journal: epath.PathLike | None = None,
    generation: Mapping[str, Any] | None = None,
) -> list[Prediction]:
    """Asks every question and scores the answers.

    Args:
      questions: what to ask; ids are unique.
      prompt_fn: question -> prompt.
      predict_fn: prompts -> as many texts, in their order. The last batch may be smaller.
      modes: extraction modes to score under.
      batch_size: prompts a call, at least 1.
      progress: called with (answered, all) at the start and after every batch.
      journal: file that keeps the answers (`journal_path`); read first, then appended to. An answer
        there is used again if id, prompt and `generation` are the same. It does not know the
        model: give every checkpoint its own folder. None keeps nothing.
      generation: how `predict_fn` decodes, as JSON values; goes into the files.

    Returns:
      One prediction a question, in their order.

    Raises:
      ValueError: an argument is out of its range, or `predict_fn` returned something else.
      SchemaError: the journal is malformed; names the line.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    _check_ids(questions)
    for question in questions:
        scoring.score("", question, modes)  # a mode that does not fit is known before decoding
    generation = dict(generation or {})
    store = _Journal(journal, generation)
    prompts = [prompt_fn(question) for question in questions]
    asked = list(zip(questions, prompts, strict=True))
    waiting = [pair for pair in asked if store.get(*pair) is None]

    def report(left: int) -> None:
        if progress is not None:
            progress(len(questions) - left, len(questions))

    report(len(waiting))
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        with _noting_kept_work(len(questions) - len(waiting) + start, len(questions), journal):
            responses = _checked(predict_fn([prompt for _, prompt in batch]), len(batch))
            store.add(batch, responses)
            report(len(waiting) - start - len(batch))
    return [_predict(store, *pair, modes, generation) for pair in asked]


def _predict(
    store: "_Journal",
    question: Question,
    prompt: str,
    modes: Sequence[str],
    generation: Mapping[str, Any],
) -> Prediction:
    response = store.get(question, prompt)
    assert response is not None  # every question was answered above
    return Prediction(
        question, prompt, response, scoring.score(response, question, modes), generation
    )


def save(
    folder: epath.PathLike,
    tasks: Mapping[str, Task],
    *,
    config: Mapping[str, Any],
    git_hash: str | None = None,
    date: float | None = None,
) -> epath.Path:
    """Writes `samples_<task>_<timestamp>.jsonl` for every task, then `results_<timestamp>.json`.

    The results come last: where they are, the samples are complete.

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
    stamp = results.timestamp(built["date"])
    for name, task in tasks.items():
        results.write_samples(folder, name, _samples(task.predictions), stamp)
    return results.write_results(folder, built, stamp)


def _task_result(name: str, task: Task) -> results.TaskResult:
    if not task.predictions:
        raise ValueError(f"task '{name}' has no predictions to save")
    summaries = {
        mode: scoring.summarize([prediction.scores[mode] for prediction in task.predictions])
        for mode in task.predictions[0].scores
    }
    count = len(task.predictions)
    return results.TaskResult(
        task=name,
        scores={mode: (summary.accuracy, summary.stderr) for mode, summary in summaries.items()},
        original=count if task.original is None else task.original,
        effective=count,
        without_gold=sum(not prediction.question.has_gold for prediction in task.predictions),
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
                response=prediction.response,
                mode=mode,
                answer=prediction.scores[mode].answer,
                correct=prediction.scores[mode].correct,
            )


class _Journal:
    """Answers by question id and request, in a file that is only ever appended to."""

    def __init__(self, path: epath.PathLike | None, generation: Mapping[str, Any]) -> None:
        self._path = None if path is None else epath.Path(path)
        self._generation = generation
        self._answers: dict[tuple[str, str], str] = {}
        self._content = b""
        if self._path is not None:
            folders.make_folder(self._path.parent)
            self._load(self._path)

    def _load(self, path: epath.Path) -> None:
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # a run that was killed while it wrote leaves half a line
            folders.write_bytes(path, whole)
        self._content = whole
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            where = f"{path}, line {number}"
            try:
                entry = json.loads(line)
                key = (entry["id"], json.dumps(entry["arguments"], sort_keys=True))
            except (ValueError, KeyError, TypeError) as error:
                raise SchemaError(f"{where}: expected a prediction: {error!r}") from error
            self._answers[key] = results.response_of(entry, where)

    def _key(self, question: Question, prompt: str) -> tuple[str, str]:
        arguments = results.arguments(prompt, self._generation)
        return question.id, json.dumps(arguments, sort_keys=True)

    def get(self, question: Question, prompt: str) -> str | None:
        return self._answers.get(self._key(question, prompt))

    def add(self, batch: Sequence[tuple[Question, str]], responses: Sequence[str]) -> None:
        lines = []
        for (question, prompt), response in zip(batch, responses, strict=True):
            self._answers[self._key(question, prompt)] = response
            entry = {
                "id": question.id,
                "doc_id": question.row,
                "arguments": results.arguments(prompt, self._generation),
                "resps": [[response]],
            }
            lines.append(results.json_line(entry))
        self._write("".join(lines).encode())

    def _write(self, lines: bytes) -> None:
        if self._path is None:
            return
        self._content += lines
        if _can_append(self._path):
            with pathlib.Path(self._path).open("ab") as file:
                file.write(lines)
        else:
            folders.write_bytes(self._path, self._content)


def _can_append(path: epath.Path) -> bool:
    """Returns whether files there can grow; in object stores they are written whole."""
    return "://" not in str(path)


def _check_ids(questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ValueError(f"expected unique question ids, got '{question.id}' twice")
        seen.add(question.id)


def _checked(responses: Any, expected: int) -> list[str]:
    if isinstance(responses, str) or len(responses) != expected:
        got = "one string" if isinstance(responses, str) else f"{len(responses)}"
        raise ValueError(f"expected predict_fn to return {expected} texts, got {got}")
    for response in responses:
        if not isinstance(response, str):
            raise ValueError(f"expected predict_fn to return texts, got {response!r:.80}")
    return list(responses)


@contextlib.contextmanager
def _noting_kept_work(done: int, total: int, journal: epath.PathLike | None) -> Iterator[None]:
    """Adds to any exception where the answers so far are."""
    try:
        yield
    except BaseException as error:
        kept = "not kept: no journal was given"
        if journal is not None:
            kept = f"kept in '{journal}'; the same command goes on from there"
        error.add_note(f"{done} of {total} answers were done before this batch, {kept}")
        raise
