"""The held-out split: its loss, and when it is due."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from specialize_jax.training import metrics, partitioning, preemption, prefetch
from specialize_jax.training.step import EvalStep
from specialize_jax.training.train_state import TrainState

Batch = Mapping[str, np.ndarray]

_AHEAD = 2  # batches that the device is given before it is done with the first


def evaluator(
    eval_step: EvalStep,
    batches: Callable[[], Iterable[Batch]],
    *,
    mesh: Mesh | None = None,
    group_names: Sequence[str] = metrics.FORMATS,
) -> Callable[[TrainState], dict[str, float | None]]:
    """A held-out loss for `fit`.

    Args:
      eval_step: see `step.make_eval_step`.
      batches: makes an iterator over the same batches, whole on every host, each time it is called.
      mesh: where batches go; None for the default device.
      group_names: see `fit`.

    Returns:
      state -> the values of a line, see `metrics.summarize`.
    """

    def evaluate(state: TrainState) -> dict[str, float | None]:
        sums: list[Any] = []
        place = functools.partial(partitioning.place, mesh=mesh, batch_rows=None)
        with prefetch.Prefetch(iter(batches()), place) as ready:
            for batch in preemption.until_stopped(ready):
                sums.append(eval_step(state.params, batch))
                if len(sums) > _AHEAD:  # what the device was given has to end before a save begins
                    jax.block_until_ready(sums[-1 - _AHEAD])
        window = metrics.Window()
        for one in jax.device_get(sums):
            window.add(one)
        return window.summary(group_names)

    return evaluate


class HeldOut:
    """When the held-out split is due, and what it gave at each step up to now.

    Args:
      eval_fn: state -> values of a line; None for never.
      period: steps between its calls.
      train_steps: the step at which it is due besides.
      tell: is given (step, "validation", values).
      scores: what it gave at earlier steps of this run.
    """

    def __init__(
        self,
        eval_fn: Callable[[TrainState], Mapping[str, Any]] | None,
        period: int,
        train_steps: int,
        tell: Callable[[int, str, Mapping[str, Any]], None],
        scores: Mapping[int, Mapping[str, Any]],
    ):
        self._eval_fn = eval_fn
        self._period = period
        self._last = train_steps
        self._tell = tell
        self.scores = dict(scores)

    def is_due(self, step: int) -> bool:
        """Whether it is to be run at this step, and was not."""
        is_time = step > 0 and (step == self._last or step % self._period == 0)
        return self._eval_fn is not None and is_time and step not in self.scores

    def run(self, step: int, state: TrainState) -> None:
        """Tells the values, unless SIGTERM comes; then it stays due."""
        assert self._eval_fn is not None
        try:
            values = self._eval_fn(state)
        except preemption.Stopped:
            return
        self._tell(step, "validation", values)
        self.scores[step] = values
