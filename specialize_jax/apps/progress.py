"""Progress of long work on standard error, with an estimate of the time left."""

import sys
from collections.abc import Callable
from typing import Protocol

from tqdm import tqdm


class Done(Protocol):
    """Takes the number of further items done, and perhaps a word to be shown beside them."""

    def __call__(self, count: int, /, note: str = "") -> None:
        """Moves the bar on."""


def bar(title: str, total: int, *, done: int = 0) -> Done:
    """Returns a function that takes the number of further items done; the bar ends at `total`.

    Args:
      title: what is done.
      total: number of items.
      done: those of an earlier run, which say nothing of the speed of this one.
    """
    # Not on a terminal: a line every ten seconds, so that a log stays readable.
    interval = 1.0 if sys.stderr.isatty() else 10.0
    display = tqdm(total=total, desc=title, dynamic_ncols=True, mininterval=interval, initial=done)

    def move(count: int, /, note: str = "") -> None:
        if note:
            display.set_postfix_str(note, refresh=False)
        display.update(count)
        if display.n >= total:
            display.close()

    return move


def say(text: str) -> None:
    """Prints a line on standard error, above a bar that stands there."""
    tqdm.write(text, file=sys.stderr)


def counter(title: str, total: int) -> Callable[[int, int], None]:
    """Returns a function that takes the number of items done so far, and of all of them.

    Where all of them are done at its first call, no bar is shown.
    """
    display: Callable[[int], None] | None = None
    last = 0

    def done(count: int, total: int) -> None:
        nonlocal display, last
        if display is None and count == total:
            return
        display = display or bar(title, total)
        display(count - last)
        last = count

    return done
