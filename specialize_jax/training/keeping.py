"""Which checkpoints are kept, and which make room."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

Scores = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Keep:
    """Which checkpoints are kept: whatever one of these rules asks for.

    The newest is always kept, since the run goes on from it, and so is step 0, which is only
    written so that later ones can be compared with it. Nothing else is kept but for a rule; without
    any rule nothing is removed, as the papers evaluate every checkpoint to choose.

    Attributes:
      last: how many of the newest; None for no such rule.
      period: every checkpoint whose step is a multiple of it, for ever; None for no such rule.
      best: how many of the best by `metric`; None for no such rule. Only a checkpoint with a
        held-out loss at its own step takes part; of equals the earlier is better.
      metric: a name in the lines of split "validation" in `metrics.jsonl`, as "loss" or "accuracy".
      mode: "min" where small is good, "max" where large is, None by the name: what has "loss" in
        it is to be small.

    Raises:
      ValueError: a number below 1, or another mode.
    """

    last: int | None = None
    period: int | None = None
    best: int | None = None
    metric: str = "loss"
    mode: str | None = None

    def __post_init__(self) -> None:
        for name in ("last", "period", "best"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected None or {name} >= 1 to keep, got {value}.")
        if self.mode not in ("min", "max", None):
            raise ValueError(f"Expected mode 'min', 'max' or None, got {self.mode!r}.")

    @property
    def all(self) -> bool:
        """Whether nothing is ever removed."""
        return self.last is None and self.period is None and self.best is None

    def steps(self, scores: Mapping[int, Scores | None]) -> set[int]:
        """The steps to keep.

        Args:
          scores: step of every checkpoint there is -> its held-out values; None where it has none.

        Returns:
          Some of these steps. One that was scored, but not by `metric`, cannot be ranked and is
          kept: see `check`.
        """
        steps = sorted(scores)
        if self.all:
            return set(steps)
        kept = {0, *steps[-(self.last or 1) :]}
        if self.period is not None:
            kept |= {step for step in steps if step % self.period == 0}
        if self.best is not None:
            scored = {step: values for step in steps if (values := scores[step])}
            ranked = {
                s: self._badness(v[self.metric]) for s, v in scored.items() if self.metric in v
            }
            kept |= scored.keys() - ranked.keys()
            kept |= set(sorted(ranked, key=lambda step: (ranked[step], step))[: self.best])
        return kept & set(steps)

    def check(self, scores: Scores | None) -> None:
        """Checks that the best can be told.

        Args:
          scores: held-out values of a checkpoint; None where it has none.

        Raises:
          ValueError: they lack `metric`; the message has those that are there.
        """
        if self.best is None or scores is None or self.metric in scores:
            return
        choices = [n for n, v in scores.items() if isinstance(v, float | int | None)]
        raise ValueError(
            f"The best checkpoints cannot be told by '{self.metric}' (CHECKPOINT_BEST_METRIC): "
            f"held-out lines have {', '.join(choices)}. Everything is saved and kept."
        )

    def check_metric(self, names: Sequence[str]) -> None:
        """Checks, before there are any held-out values, that `metric` is one of their names.

        Raises:
          ValueError: it is not; the message has the names.
        """
        if self.metric not in names:
            raise ValueError(
                f"CHECKPOINT_BEST_METRIC: no held-out line has '{self.metric}'; choices: "
                f"{', '.join(names)}"
            )

    def check_periods(self, save_period: int, eval_period: int | None) -> None:
        """Checks that every checkpoint has a held-out loss, if the best are asked for.

        Args:
          save_period: steps between checkpoints.
          eval_period: steps between held-out losses; None where there are none.

        Raises:
          ValueError: it has not.
        """
        if self.best is None:
            return
        if eval_period is None:
            raise ValueError("The best checkpoints are told by a held-out loss; there is none.")
        if save_period % eval_period:
            raise ValueError(
                "The best checkpoints are told by a held-out loss at every one of them: expected "
                f"save_period to be a multiple of eval_period, got {save_period} and "
                f"{eval_period}; eval_period={save_period} would do."
            )

    def _badness(self, value: float | None) -> float:
        if value is None or math.isnan(value):  # worse than any number
            return math.inf
        largest = self.mode == "max" or (self.mode is None and "loss" not in self.metric)
        return -value if largest else value


class Policy:
    """`Keep` in the form that Orbax's manager asks.

    Its own `BestN` would not do: a metric that is NaN upsets the order, and a cut file of metrics
    keeps the manager from being made at all.
    """

    def __init__(self, keep: Keep):
        self._keep = keep
        self.scores: dict[int, Scores | None] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """See `orbax.checkpoint.checkpoint_managers.PreservationPolicy`."""
        kept = self._keep.steps({one.step: self.scores.get(one.step) for one in checkpoints})
        return [one.step in kept for one in checkpoints]
