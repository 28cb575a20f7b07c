"""A profiler's trace of some steps of a run."""

import pathlib
import tempfile
from types import TracebackType
from typing import Any, Self

import jax
from etils import epath


class Trace:
    """Traces some steps into a folder; use it in a `with` statement.

    The first step of a process compiles, and is never part of a trace.

    Args:
      folder: each host adds a file `plugins/profile/<date>/<host>.xplane.pb`.
      steps: (first step, how many), counted from 1; None for no trace.

    Raises:
      ValueError: `steps` are not two positive integers.
    """

    def __init__(self, folder: epath.PathLike, steps: tuple[int, int] | None):
        good = steps is None or (
            isinstance(steps, tuple | list)
            and len(steps) == 2
            and all(isinstance(n, int) and n > 0 for n in steps)
        )
        if not good:
            raise ValueError(f"Expected PROFILE_STEPS (first step >= 1, count >= 1), got {steps}.")
        self._folder = epath.Path(folder)
        self._steps = range(0) if steps is None else range(steps[0], steps[0] + steps[1])
        self._compiled = self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running:
            self._write()

    def before(self, step: int, state: Any) -> None:
        """Starts the trace before a step that is its first, when all earlier work is done."""
        if self._compiled and not self._running and step in self._steps:
            jax.block_until_ready(state)
            # Buckets are no place for the profiler's files: they are copied when written.
            self._temporary = tempfile.TemporaryDirectory()
            jax.profiler.start_trace(self._temporary.name)
            self._running = True
        self._compiled = True

    def after(self, step: int, metrics: Any) -> bool:
        """Ends the trace after its last step, when that is done; says whether it did."""
        if not self._running or step + 1 in self._steps:
            return False
        jax.block_until_ready(metrics)
        self._write()
        return True

    def _write(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        with self._temporary as name:
            for path in pathlib.Path(name).rglob("*.*"):
                if path.is_file():
                    target = self._folder / path.relative_to(name).as_posix()
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
