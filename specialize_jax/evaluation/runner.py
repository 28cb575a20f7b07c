"""Asks a model every question of a set, keeps each answer as it comes, and scores them.

While it runs, every answer goes to a `journal`. A rerun with the same journal asks only what is
missing there, so that a stopped run loses at most what was being decoded, and another extraction
mode costs no decoding. `saving` writes the finished evaluation.

With several samples a question, `exact_match` is that of the first one. `maj@k` is that of what
most of the first k agree on, as lm-evaluation-harness's self-consistency tasks take it: right or
wrong for each question, so that the same intervals and paired comparisons hold, and one run gives
every k up to its samples. (A mean over all subsets of k would vary less, but is no 0 or 1.)
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax.evaluation import scoring
from specialize_jax.evaluation.journal import Journal, path_of
from specialize_jax.evaluation.readers import Question
from specialize_jax.evaluation.saving import Prediction, Task, newest_results, save
from specialize_jax.evaluation.scoring import Score
from specialize_jax.schemas import results

__all__ = [
    "MODES",
    "Prediction",
    "Stream",
    "Task",
    "Voting",
    "in_batches",
    "journal_path",
    "newest_results",
    "run",
    "save",
]

MODES = ("corrected", "fu2023")

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


def run(
    questions: Sequence[Question],
    prompt_fn: Callable[[Question], str],
    stream: Stream,
    *,
    modes: Sequence[str] = MODES,
    samples: int = 1,
    voting: Voting | None = None,
    too_long: Collection[str] = (),
    revise: Callable[[str], str] = str,
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
      revise: text -> the text that is scored; the files keep what the model wrote.
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
        score = functools.partial(_scores, modes=modes, voting=voting, revise=revise)
        return [
            Prediction(question, prompt, texts, *score(texts, question), generation, unasked)
            for question, prompt in asked
            for unasked in [question.id in too_long]
            for texts in [[""] if unasked else store.get(question, prompt) or []]
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


def _scores(
    texts: Sequence[str],
    question: Question,
    *,
    modes: Sequence[str],
    voting: Voting | None,
    revise: Callable[[str], str],
) -> tuple[dict[str, Score], dict[str, dict[str, Score]]]:
    """Returns the scores of the first text, and those of the votes."""
    texts = [revise(text) for text in texts]
    votes = {}
    if voting is not None:
        found = scoring.votes(texts, question, modes, voting.ks, voting.majority)
        votes = {results.vote_name(k): of_k for k, of_k in found.items()}
    return scoring.score(texts[0], question, modes), votes


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
