"""Chooses a checkpoint by its accuracies on validation questions, and says how sure that is.

A rule is a weight for every set that counts, and a checkpoint's score is the weighted mean of its
accuracies on them: 2301.12726 takes the unweighted mean of the out-of-distribution sets. How much
of a lead is luck in the questions is told by a paired bootstrap: the questions of every set are
drawn anew with replacement, the same draw for all checkpoints, and the scores are taken again.

The lead's interval does not know that the winner was picked as the best of many on these questions,
so it is on the winner's side; nor does it know what another training seed would have given.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

WEIGHTED = "weighted"
BY = ("out_of_distribution", "in_distribution", WEIGHTED)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """The checkpoint that was chosen, and how sure that is. Indices count checkpoints.

    Attributes:
      index: of the winner.
      runner_up: of the second; None where there is one checkpoint alone.
      scores: of each checkpoint.
      leads: how far the winner is ahead of each checkpoint; None for itself.
      best: share of the resamples in which each is the winner.
      undecided: checkpoints that the winner cannot be told from: the lead's interval reaches 0.
    """

    index: int
    runner_up: int | None
    scores: list[Interval]
    leads: list[Interval | None]
    best: list[float]
    undecided: list[int]

    @property
    def within_noise(self) -> bool:
        """Whether the winner cannot be told from the runner-up."""
        return self.runner_up in self.undecided


def weights(
    by: str, roles: Mapping[str, str | None], given: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Returns set -> its weight in the score; they add up to 1.

    Args:
      by: one of `BY`. The first two: all sets of the role, with equal weights.
      roles: set -> its role, of all sets that were asked.
      given: for "weighted": set or role -> weight, at least 0. A role's weight is shared equally by
        its sets that are not named themselves.

    Raises:
      ValueError: unknown rule, set or role; no set is left; a weight is negative, or all are 0.
    """
    if by not in BY:
        raise ValueError(f"unknown rule '{by}'; choices: {', '.join(BY)}")
    if (by == WEIGHTED) != bool(given):
        raise ValueError(f"the rule 'weighted', and it alone, needs weights; got '{by}', {given}")
    found: dict[str, float] = {}
    for name, weight in (given or {by: 1.0}).items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"expected a weight of at least 0 for '{name}', got {weight}")
        sets = [name] if name in roles else [s for s, role in roles.items() if role == name]
        sets = [s for s in sets if s == name or s not in (given or {})]
        if not sets:
            asked = ", ".join(f"{s} ({role})" for s, role in sorted(roles.items()))
            raise ValueError(f"no set of the run is or has the role '{name}'; there are: {asked}")
        found |= {s: weight / len(sets) for s in sets}
    total = sum(found.values())
    if not total:
        raise ValueError(f"expected a weight above 0, got {given}")
    return {name: weight / total for name, weight in found.items() if weight}


def resampled(
    values: Sequence[np.ndarray], shares: Sequence[float], *, resamples: int, seed: int
) -> np.ndarray:
    """Returns the scores of all checkpoints in every resample of the questions, [R, C].

    Letters: `C` checkpoints, `R` resamples, `n` questions of a set.

    Args:
      values: for every set [C, n], how right each answer is, in [0, 1].
      shares: of the sets in the score.
      resamples: `R`, at least 1.
      seed: of the draws, which are made set by set.

    Reference: B. Efron and R. Tibshirani, An introduction to the bootstrap (1993), chapter 13.
    """
    rng = np.random.default_rng(seed)
    scores = np.zeros((resamples, values[0].shape[0]))
    for graded, share in zip(values, shares, strict=True):
        n = graded.shape[1]
        # How often each question comes in a resample is multinomial; no list of draws is needed.
        counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        scores += share * (counts @ graded.T) / n
    return scores


def choose(
    values: Mapping[str, np.ndarray],
    share: Mapping[str, float],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Choice:
    """Returns the checkpoint of the highest score; of equals the first.

    Args:
      values: set -> [checkpoints, questions], how right each answer is, in [0, 1]; checkpoints in
        the order of their steps.
      share: set -> its weight, of `weights`.
      resamples: of the questions.
      seed: of the resamples.
      confidence: of the intervals, in (0, 1).

    Raises:
      ValueError: a set has no question, or an argument is out of its range.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected resamples >= 1 and 0 < confidence < 1, got {resamples} and {confidence}"
        )
    if empty := [name for name in share if not values[name].shape[1]]:
        raise ValueError(
            "expected questions of the validation part to choose by, got none of "
            f"{', '.join(empty)}"
        )
    names = sorted(share)  # so that the order of the weights does not change the draws
    scores = _rounded(sum(share[name] * values[name].mean(axis=1) for name in names))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    drawn = _rounded(
        resampled(
            [values[n] for n in names], [share[n] for n in names], resamples=resamples, seed=seed
        )
    )
    tails = (0.5 - confidence / 2, 0.5 + confidence / 2)

    def interval(value: float, samples: np.ndarray) -> Interval:
        low, high = np.quantile(samples, tails, method="inverted_cdf")
        return Interval(float(value), float(low), float(high))

    first = order[0]
    leads = [
        None if i == first else interval(scores[first] - scores[i], drawn[:, first] - drawn[:, i])
        for i in range(len(scores))
    ]
    winners = np.bincount(drawn.argmax(axis=1), minlength=len(scores))
    return Choice(
        index=first,
        runner_up=order[1] if len(order) > 1 else None,
        scores=[interval(score, drawn[:, i]) for i, score in enumerate(scores)],
        leads=leads,
        best=[float(count) / resamples for count in winners],
        undecided=[i for i, lead in enumerate(leads) if lead is not None and lead.low <= 0],
    )


def _rounded(scores: np.ndarray) -> np.ndarray:
    """Returns scores without the last digits, so that equal ones are equal however summed."""
    return np.round(scores, 12)
