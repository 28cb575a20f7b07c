"""SIGTERM, by which a machine that is taken away says so: noted, and heeded between steps.

Also between held-out batches, for a machine may be gone before the last of them. A second SIGTERM
says nothing new.
"""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Self, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")


class Stopped(Exception):
    """SIGTERM came before the last held-out loss was done; everything else is, and is saved."""


class StopSignal:
    """Whether SIGTERM came. Several hosts agree on the step through JAX's preemption service."""

    def __enter__(self) -> Self:
        global _current
        self._came = False
        self._alone = jax.process_count() == 1
        # Python lets only the main thread set handlers; elsewhere the caller's stays.
        self._sets = self._alone and threading.current_thread() is threading.main_thread()
        if self._sets:
            self._before = signal.signal(signal.SIGTERM, self._note)
        _current = self
        return self

    def __exit__(self, *error: object) -> None:
        global _current
        _current = None
        if self._sets:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def came(self) -> bool:
        """Whether this process was told. False with several: they have to agree first."""
        return self._came

    def requested(self, step: int) -> bool:
        """Whether to stop before this step; every host asks at every step."""
        return self._came if self._alone else multihost_utils.reached_preemption_sync_point(step)


_current: StopSignal | None = None


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """Yields items while no SIGTERM comes; outside of a `StopSignal`, all of them.

    Raises:
      Stopped: it came.
    """
    for item in items:
        if _current is not None and _current.came():
            raise Stopped("SIGTERM came during a held-out loss")
        yield item
