"""Runs that stop because their numbers went wrong, and what they leave for a person to look at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from specialize_jax.schemas import folders
from specialize_jax.training.train_state import TrainState, before_halt

_LINES = 3
_SHOWN = 8

# Global index of a row -> names of the examples in it.
DescribeRow = Callable[[int], Sequence[str]]


class NotFiniteError(FloatingPointError):
    """The loss or its gradient is NaN or infinite; the state before that update is saved."""


class DivergedError(FloatingPointError):
    """The loss rose and stayed above what it had been; the state is saved."""


class Watch:
    """Tells whether the loss has left where it was.

    It has where each of the last three lines is more than `max_rise` above the best line before
    them. A single bad batch is no such case, nor is a start from random weights, whose loss falls.

    Args:
      max_rise: in nats per token; None for never.
      content: what `to_json` gave, to go on from there.
    """

    def __init__(self, max_rise: float | None, content: Mapping[str, Any] | None = None):
        if max_rise is not None and not max_rise > 0:
            raise ValueError(f"Expected max_rise None or above 0, got {max_rise}.")
        content = content or {}
        self._max_rise = max_rise
        self.best: float | None = content.get("best")
        self._above: int = content.get("above", 0)

    def add(self, loss: float | None) -> bool:
        """Takes the loss of a line, and says whether the run has diverged."""
        if loss is None:
            return False
        limit = (
            np.inf if self._max_rise is None or self.best is None else self.best + self._max_rise
        )
        self._above = self._above + 1 if loss > limit else 0
        self.best = loss if self.best is None else min(self.best, loss)
        return self._above >= _LINES

    def to_json(self) -> dict[str, Any]:
        """A dict of plain numbers, from which the watch can be built again."""
        return {"best": self.best, "above": self._above}


class LastWords:
    """Says why a run stops, keeps its state, and names the examples of the batch.

    Args:
      model_dir: gets `stopped_at_<step>.json`: what was found, and under "rows" the examples of
        each row of the batch.
      batch_size: rows of the global batch.
      save: (state, step) -> its checkpoint.
      describe_row: names the examples of a row; None where nobody knows.
      group_names: names of the loss's groups.
      write: False on every host but the first.
    """

    def __init__(
        self,
        model_dir: epath.Path,
        batch_size: int,
        save: Callable[[TrainState, int], epath.Path],
        describe_row: DescribeRow | None,
        group_names: Sequence[str],
        *,
        write: bool = True,
    ):
        self._model_dir, self._batch_size, self._save = model_dir, batch_size, save
        self._describe_row, self._group_names, self._write = describe_row, group_names, write

    def not_finite(self, step: int, found: Mapping[str, Any], state: TrainState) -> NotFiniteError:
        """The error for an update that was not applied.

        Args:
          step: the update.
          found: its metrics, on the host.
          state: halted before it (`train_state.advanced`).
        """
        sums = np.atleast_1d(found.get("group_loss_sum", ()))
        groups = zip(self._group_names, sums, strict=False)
        bad = [name for name, value in groups if not np.isfinite(value)]
        where = f" (not finite: {', '.join(bad)})" if bad else ""
        batch = self._batch(step, {name: _plain(value) for name, value in found.items()})
        if _all_finite(state.params):
            kept = (
                "The update was not applied, and the state before it is saved as "
                f"{self._save(before_halt(state), step - 1)}. The same command comes to the same "
                "numbers: go on with a lower learning rate, or in a new model_dir that starts from "
                "this checkpoint's parameters (an earlier one's, if the loss had risen before), "
                "with another seed or a bound on the gradient's norm. If it stops here again, "
                "updates before have spoiled the parameters: start from a checkpoint before them."
            )
        else:
            kept = (
                "The parameters before it are not finite either, so nothing was saved: go back to "
                "an earlier checkpoint, or look at what the run started from."
            )
        return NotFiniteError(
            f"loss_sum is {found['loss_sum']} and grad_norm is {found['grad_norm']} at step "
            f"{step}{where}. {kept} {batch}"
        )

    def diverged(
        self, step: int, values: Mapping[str, Any], best: float | None, state: TrainState
    ) -> DivergedError:
        """The error for a loss that rose and stayed.

        Args:
          step: of the last line.
          values: of that line.
          best: loss of the best line.
          state: after the step.
        """
        batch = self._batch(step, {**values, "best_loss": best})
        return DivergedError(
            f"The run diverged: at step {step} the loss is {values['loss']:.4f} nats per token, "
            f"the {_LINES}rd line in a row that lies too far above the best one, {best:.4f}. The "
            f"state is saved as {self._save(state, step)}. Start from an earlier checkpoint in a "
            "new model_dir, with a lower learning rate or a bound on the gradient's norm; or allow "
            f"a larger rise, and the same command goes on. {batch}"
        )

    def _batch(self, step: int, found: Mapping[str, Any]) -> str:
        """Writes the file, and returns a sentence that names the first examples."""
        rows = range((step - 1) * self._batch_size, step * self._batch_size)
        names = {row: list(self._describe_row(row)) if self._describe_row else [] for row in rows}
        path = self._model_dir / f"stopped_at_{step}.json"
        if self._write:
            folders.write_json(path, {"step": step, **found, "rows": names})
        every = [name for row in rows for name in names[row]]
        some = ", ".join(every[:_SHOWN]) or "examples whose names nobody knows"
        more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
        return f"Rows {rows[0]} to {rows[-1]} of the data were its batch: {some}{more} ({path})."


def _all_finite(tree: Any) -> bool:
    checks = jax.jit(lambda tree: [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
    return all(jax.device_get(checks(tree)))


def _plain(value: Any) -> Any:
    """Returns an array as JSON holds it; what is not finite as text."""
    value = np.asarray(value).tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if np.isfinite(value) else str(value)
