"""Scores of predictions: right or wrong under each extraction mode, and how sure the mean is."""

import dataclasses
from collections.abc import Callable, Sequence

from specialize_jax import answers
from specialize_jax.evaluation.readers import Question
from specialize_jax.intervals import bootstrap, mean_stderr, wilson

__all__ = ["Score", "Summary", "bootstrap", "mean_stderr", "score", "summarize", "votes", "wilson"]


@dataclasses.dataclass(frozen=True)
class Score:
    """One prediction under one extraction mode.

    Attributes:
      answer: what the mode read in the prediction; None for nothing.
      gold: what it read in the gold answer; None for nothing.
      correct: whether both are there and equal.
    """

    answer: str | None
    gold: str | None
    correct: bool


@dataclasses.dataclass(frozen=True)
class Summary:
    """Scores of a set of questions under one extraction mode.

    Attributes:
      n: questions, the denominator.
      n_correct: how many are right.
      n_without_gold: how many have no gold answer of their kind; they count as wrong.
      accuracy: n_correct / n.
      stderr: standard error of the accuracy.
      low: lower end of its 95% Wilson interval.
      high: upper end.
    """

    n: int
    n_correct: int
    n_without_gold: int
    accuracy: float
    stderr: float
    low: float
    high: float


def score(response: str, question: Question, modes: Sequence[str]) -> dict[str, Score]:
    """Scores one response under several extraction modes.

    Prediction and gold answer go through the same mode: under "fu2023" a gold "1,200" reads as 200,
    as in the code of 2301.12726.

    Args:
      response: the model's text.
      question: what was asked.
      modes: of `answers.MODES`.

    Returns:
      A score for every mode, in their order.

    Raises:
      ValueError: unknown mode, or one that does not know the question's kind; lists the choices.
    """
    scores = {}
    for mode in modes:
        answer = answers.extract(response, mode, kind=question.kind)
        gold = answers.reference(question.answer, mode, kind=question.kind)
        correct = answers.equal(answer, gold, mode=mode, kind=question.kind)
        scores[mode] = Score(answer, gold, correct)
    return scores


def votes(
    responses: Sequence[str],
    question: Question,
    modes: Sequence[str],
    ks: Sequence[int],
    majority: Callable[[Sequence[str | None]], str | None],
) -> dict[int, dict[str, Score]]:
    """Scores what the first k responses vote for, for several k.

    An answer is counted as it is read (`answers.extract`); a response in which a mode reads nothing
    has no vote, and where none has one the question is wrong.

    Args:
      responses: the model's texts; where there are fewer than k, all of them vote.
      question: what was asked.
      modes: of `answers.MODES`.
      ks: how many responses vote.
      majority: answers, None for none -> the one voted for, or None.

    Returns:
      k -> mode -> score, whose `answer` is the one voted for.
    """
    scores: dict[int, dict[str, Score]] = {k: {} for k in ks}
    for mode in modes:
        gold = answers.reference(question.answer, mode, kind=question.kind)
        most = responses[: max(ks, default=0)]
        read = [answers.extract(response, mode, kind=question.kind) for response in most]
        for k in ks:
            voted = majority(read[:k])
            correct = answers.equal(voted, gold, mode=mode, kind=question.kind)
            scores[k][mode] = Score(voted, gold, correct)
    return scores


def summarize(scores: Sequence[Score]) -> Summary:
    """Returns accuracy and its uncertainty over questions, all under one mode.

    Raises:
      ValueError: there are no scores.
    """
    correct = [score.correct for score in scores]
    low, high = wilson(sum(correct), len(correct))
    return Summary(
        n=len(correct),
        n_correct=sum(correct),
        n_without_gold=sum(score.gold is None for score in scores),
        accuracy=sum(correct) / len(correct),
        stderr=mean_stderr(correct),
        low=low,
        high=high,
    )
