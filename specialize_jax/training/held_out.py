"""When the held-out loss is computed, and what became of one that SIGTERM cut."""

from collections.abc import Callable, Mapping
from typing import Any

from specialize_jax.training import metrics, stopping
from specialize_jax.training.train_state import TrainState


class HeldOut:
    """The held-out loss: when it is due, and what it was at each step up to now.

    Args:
      eval_fn: state -> values; None for no held-out loss.
      period: steps between its calls.
      last: the last step, where it is called too.
      lines: where they go, and where those of earlier runs stand.
      step: of the last checkpoint; 0 for a new run.
    """

    def __init__(
        self,
        eval_fn: Callable[[TrainState], Mapping[str, Any]] | None,
        period: int,
        last: int,
        lines: metrics.MetricsFile,
        step: int,
    ):
        self._eval_fn = eval_fn
        self._period = period
        self._last = last
        self._lines = lines
        self.scores: dict[int, Mapping[str, Any]] = dict(lines.held_out(step))

    def is_due(self, step: int) -> bool:
        """Whether it should be computed at this step and is not yet."""
        is_time = step > 0 and (step == self._last or step % self._period == 0)
        return self._eval_fn is not None and is_time and step not in self.scores

    def run(self, step: int, state: TrainState) -> None:
        """Writes the line, unless SIGTERM comes; then it stays due."""
        assert self._eval_fn is not None
        try:
            values = self._eval_fn(state)
        except stopping.Stopped:
            return
        self._lines.append(step, "validation", values)
        self.scores[step] = values
