"""Programs that are compared take turns, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds(
    runs: Mapping[str, Callable[[], Any]], repeats: int, *, untimed: int = 0
) -> dict[str, list[float]]:
    """Returns the seconds of every run of every program; a round runs each once.

    Args:
      runs: what each program does.
      repeats: rounds that count.
      untimed: rounds before them.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(untimed + repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= untimed:
                times[name].append(time.perf_counter() - start)
    return times
