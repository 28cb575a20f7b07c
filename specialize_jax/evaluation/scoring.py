"""Scores of predictions: right or wrong under each extraction mode, and how sure the mean is."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

from specialize_jax import answers
from specialize_jax.evaluation.readers import Question


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


def mean_stderr(values: Sequence[float | bool]) -> float:
    """Returns the standard error of a mean: sample standard deviation / sqrt(n).

    As lm-evaluation-harness computes it, with n - 1 in the deviation; 0 for a single value, which
    says nothing of its spread.

    Args:
      values: at least one number.

    Raises:
      ValueError: there are none.
    """
    if not len(values):
        raise ValueError("expected at least one score, got none")
    if len(values) == 1:
        return 0.0
    return float(np.std(np.asarray(values, np.float64), ddof=1) / math.sqrt(len(values)))


def wilson(n_correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, which holds near 0 and 1 too.

    Args:
      n_correct: successes, in [0, n].
      n: trials, at least 1.
      confidence: in (0, 1).

    Returns:
      (low, high), each in [0, 1].

    Raises:
      ValueError: an argument is out of its range.

    Reference: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
      JASA 22 (1927).
    """
    if n < 1:
        raise ValueError(f"expected at least one score, got n={n}")
    if not 0 <= n_correct <= n or not 0 < confidence < 1:
        raise ValueError(
            f"expected 0 <= n_correct <= n and 0 < confidence < 1, got n_correct={n_correct}, "
            f"n={n}, confidence={confidence}"
        )
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    share, scale = n_correct / n, 1 + z * z / n
    center = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The ends are exact where rounding would leave 1e-17.
    low = 0.0 if n_correct == 0 else center - half
    high = 1.0 if n_correct == n else center + half
    return low, high
