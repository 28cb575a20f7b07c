"""Asks a model every question of a set, keeps each answer as it comes, and writes the files.

While it runs, every answer goes to a `journal`. A rerun with the same journal asks only what is
missing there, so that a stopped run loses at most what was being decoded, and another extraction
mode costs no decoding. `save` writes the finished evaluation in lm-evaluation-harness form
(`schemas.results`).

With several samples a question, `exact_match` is that of the first one. `maj@k` is that of what
most of the first k agree on, as lm-evaluation-harness's self-consistency tasks take it: right or
wrong for each question, so that the same intervals and paired comparisons hold, and one run gives
every k up to its samples. (A mean over all subsets of k would vary less, but is no 0 or 1.)
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax.evaluation import scoring
from specialize_jax.evaluation.journal import Journal, path_of
from specialize_jax.evaluation.readers import Question
from specialize_jax.evaluation.scoring import Score
from specialize_jax.schemas import SchemaError, results

MODES = ("corrected", "fu2023")
_BOOTSTRAP = {"resamples": 1000, "seed": 0}

journal_path = path_of

Stream = Callable[[list[str], list[int]], Iterable[tuple[int, Sequence[str]]]]
"""(prompts, the number of each) -> (place in prompts, its texts) in any order."""


@dataclasses.dataclass(frozen=True)
class Voting:
    """How several samples vote.

    Attributes:
      majority: answers, None for a sample without one -> what is voted for; None for nothing. Of
        ties the one that occurs first (`decoding.majority_vote`).
      ks: of how many samples each, at least 1.
    """

    majority: Callable[[Sequence[str | None]], str | None]
    ks: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model answered to a question.

    Attributes:
      question: what was asked.
      prompt: how it was put.
      responses: the model's texts, one a sample; one empty text where it was not asked.
      scores: extraction mode -> score of the first text.
      generation: how it was decoded.
      votes: "maj@k" -> extraction mode -> score of the vote.
      too_long: whether it was not asked, since the prompt is too long.
    """

    question: Question
    prompt: str
    responses: Sequence[str]
    scores: Mapping[str, Score]
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    votes: Mapping[str, Mapping[str, Score]] = dataclasses.field(default_factory=dict)
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


def run(
    questions: Sequence[Question],
    prompt_fn: Callable[[Question], str],
    stream: Stream,
    *,
    modes: Sequence[str] = MODES,
    samples: int = 1,
    voting: Voting | None = None,
    too_long: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
    journal: epath.PathLike | None = None,
    generation: Mapping[str, Any] | None = None,
) -> list[Prediction]:
    """Asks every question and scores the answers.

    Args:
      questions: what to ask; ids are unique.
      prompt_fn: question -> prompt.
      stream: prompts and their questions' rows -> (place, texts), each place once, as answers are
        done. It is only called where something is missing.
      modes: extraction modes to score under.
      samples: texts that `stream` gives to a prompt.
      voting: how they vote; None for no vote.
      too_long: ids of questions that are not asked, since their prompt is too long. They count as
        wrong.
      progress: called with (answered, all) at the start and after every answer.
      journal: file that keeps the answers (`journal_path`); read first, then appended to. None
        keeps nothing.
      generation: how `stream` decodes, as JSON values; goes into the files.

    Returns:
      One prediction a question, in their order.

    Raises:
      ValueError: an argument is out of its range, or `stream` gave something else.
      SchemaError: the journal is malformed; names the line.
    """
    _check_votes(voting, samples)
    _check_ids(questions)
    for question in questions:
        scoring.score("", question, modes)  # a mode that does not fit is known before decoding
    generation = dict(generation or {})
    asked = [(question, prompt_fn(question)) for question in questions]
    with Journal(journal, generation, samples) as store:
        waiting = [
            (question, prompt)
            for question, prompt in asked
            if question.id not in too_long and store.get(question, prompt) is None
        ]
        tell = progress or (lambda done, total: None)
        _ask(stream, waiting, store, samples, tell, len(questions))
        return [
            _predict(store.get(*pair), *pair, modes, voting, generation, pair[0].id in too_long)
            for pair in asked
        ]


def _ask(
    stream: Stream,
    waiting: Sequence[tuple[Question, str]],
    store: Journal,
    samples: int,
    tell: Callable[[int, int], None],
    total: int,
) -> None:
    """Asks what is missing; every answer is kept when it comes."""
    left = set(range(len(waiting)))
    tell(total - len(left), total)
    if not waiting:
        return
    with _noting_kept_work(left, total, store.path):
        prompts, numbers = [prompt for _, prompt in waiting], [each.row for each, _ in waiting]
        for place, texts in stream(prompts, numbers):
            if place not in left:
                raise ValueError(
                    f"expected every place of {len(waiting)} prompts once, got {place}"
                )
            store.add(*waiting[place], _checked(texts, samples))
            left.remove(place)
            tell(total - len(left), total)
        if left:
            raise ValueError(f"expected an answer to every prompt, got none to {len(left)} of them")


def _predict(
    texts: Sequence[str] | None,
    question: Question,
    prompt: str,
    modes: Sequence[str],
    voting: Voting | None,
    generation: Mapping[str, Any],
    too_long: bool,
) -> Prediction:
    if too_long:
        texts = [""]
    assert texts is not None  # every other question was answered above
    scores = scoring.score(texts[0], question, modes)
    votes = {}
    if voting is not None:
        found = scoring.votes(texts, question, modes, voting.ks, voting.majority)
        votes = {results.vote_name(k): of_k for k, of_k in found.items()}
    return Prediction(question, prompt, texts, scores, generation, votes, too_long)


def in_batches(predict_fn: Callable[[list[str]], Sequence[str]], batch_size: int) -> Stream:
    """Returns the stream of a function that answers a few prompts at a time, in their order.

    Args:
      predict_fn: prompts -> as many texts. The last batch may be smaller.
      batch_size: prompts a call, at least 1.

    Raises:
      ValueError: a batch of none; when it is asked, `predict_fn` returned something else.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")

    def stream(prompts: list[str], numbers: list[int]) -> Iterator[tuple[int, list[str]]]:
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            for place, text in enumerate(_checked(predict_fn(batch), len(batch)), start=start):
                yield place, [text]

    return stream


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


def _check_votes(voting: Voting | None, samples: int) -> None:
    if samples < 1:
        raise ValueError(f"expected samples >= 1, got {samples}")
    for k in () if voting is None else voting.ks:
        if not 1 <= k <= samples:
            raise ValueError(
                f"expected votes of 1 to {samples} samples, as many as there are, got {k}"
            )


def _check_ids(questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ValueError(f"expected unique question ids, got '{question.id}' twice")
        seen.add(question.id)


def _checked(responses: Any, expected: int) -> list[str]:
    if isinstance(responses, str) or len(responses) != expected:
        got = "one string" if isinstance(responses, str) else f"{len(responses)}"
        raise ValueError(f"expected the model to return {expected} texts, got {got}")
    for response in responses:
        if not isinstance(response, str):
            raise ValueError(f"expected the model to return texts, got {response!r:.80}")
    return list(responses)


@contextlib.contextmanager
def _noting_kept_work(
    left: Collection[int], total: int, journal: epath.Path | None
) -> Iterator[None]:
    """Adds to any exception where the answers so far are."""
    try:
        yield
    except BaseException as error:
        kept = "not kept: no journal was given"
        if journal is not None:
            kept = f"kept in '{journal}'; the same command goes on from there"
        error.add_note(f"{total - len(left)} of {total} answers were done, {kept}")
        raise
