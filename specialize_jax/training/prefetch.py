"""Batches made ready ahead of the step that needs them, by a thread of its own."""

import collections
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")

_JOIN_SECONDS = 10.0  # longest wait at the end for an item that is being made


class Prefetch(Iterator[Ready], Generic[Item, Ready]):
    """An iterator over `prepare(item)` that works ahead. Close it, or use it in a `with` statement.

    The order is that of the source, and what the source or `prepare` raises is raised where the
    item would have come. Both are called by one thread, one item after the other, and never for
    more than `depth` items that nobody has asked for.

    Attributes:
      waited: seconds that callers have waited for an item.
    """

    def __init__(self, source: Iterator[Item], prepare: Callable[[Item], Ready], *, depth: int = 2):
        """Starts the thread.

        Args:
          source: of items.
          prepare: makes one ready: places it on devices.
          depth: items ready at a time, at least 1.

        Raises:
          ValueError: `depth` is below 1.
        """
        if depth < 1:
            raise ValueError(f"Expected depth >= 1, got {depth}.")
        self.waited = 0.0
        self._source, self._prepare, self._depth = source, prepare, depth
        self._ready: collections.deque[Ready] = collections.deque()
        self._error: BaseException | None = None  # what ended the thread; StopIteration is the end
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: an interpreter that ends without close() does not wait for it.
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __next__(self) -> Ready:
        start = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._closed)
            self.waited += time.perf_counter() - start
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            raise self._error or StopIteration

    def close(self) -> None:
        """Ends the thread after the item at hand, and lets go of what is ready."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(_JOIN_SECONDS)

    def _work(self) -> None:
        try:
            while self._has_room():
                ready = self._prepare(next(self._source))
                with self._changed:
                    if not self._closed:
                        self._ready.append(ready)
                    self._changed.notify_all()
        except BaseException as error:  # raised again where it is waited for
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Waits until an item is wanted; False when none ever will be."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
            return not self._closed
