"""Which checkpoints are scored: named ones, those there are, or those of a run as they come."""

import time
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from specialize_jax.apps import run_end
from specialize_jax.training import checkpoints

WORDS = ("last", "latest", "all", "new")  # "latest" is t5x's word for "last"
NEW = "new"
_POLL_SECONDS = 5.0


class WaitedError(TimeoutError):
    """No new checkpoint came for too long."""


def check(steps: str | Sequence[int]) -> None:
    """Checks a choice before anything is read.

    Raises:
      ValueError: it is none.
    """
    if not steps or (isinstance(steps, str) and steps not in WORDS):
        raise ValueError(
            f"EVAL_CHECKPOINTS: expected 'last', 'all', 'new' or a list of steps, got {steps!r}"
        )


def of(model_dir: epath.Path, steps: str | Sequence[int], wait_seconds: float) -> Iterable[int]:
    """Returns the checkpoints to score; see `choose` and `follow`."""
    return follow(model_dir, wait_seconds) if steps == NEW else choose(model_dir, steps)


def choose(model_dir: epath.Path, steps: str | Sequence[int]) -> list[int]:
    """Returns the checkpoints to score, of those there are, ascending.

    Raises:
      ValueError: there is none, or not the one that was asked for.
    """
    folder = model_dir / "checkpoints"
    found = checkpoints.all_steps(folder)
    if not found:
        raise ValueError(f"no checkpoints in '{folder}'")
    if isinstance(steps, str):
        return found if steps == "all" else found[-1:]
    if missing := sorted(set(steps) - set(found)):
        raise ValueError(f"no checkpoints {missing} in '{folder}'; choices: {found}")
    return sorted(set(steps))


def follow(model_dir: epath.Path, wait_seconds: float) -> Iterator[int]:
    """Yields the checkpoints of a run: those there are, then new ones, until the run has ended.

    Args:
      model_dir: of the run.
      wait_seconds: how long a new one is waited for.

    Raises:
      WaitedError: none came, and nothing says that the run has ended.
    """
    seen: set[int] = set()
    patience = _Patience(f"a new checkpoint in '{model_dir}'", wait_seconds)
    while True:
        # Looked at before the checkpoints: what ends a run comes after its last one.
        end = run_end.read(model_dir)
        new = [
            step for step in checkpoints.all_steps(model_dir / "checkpoints") if step not in seen
        ]
        for step in new:
            seen.add(step)
            yield step
        if new:
            patience.renew()
        elif end is not None:
            print(f"no further checkpoint: {end}")
            return
        else:
            patience.pause()


def wait_for_run(model_dir: epath.Path, wait_seconds: float) -> None:
    """Waits until a run has written what says which student it trains.

    Raises:
      WaitedError: it has not.
    """
    path = model_dir / "checkpoints" / "config.json"
    patience = _Patience(f"'{path}'", wait_seconds)
    while not path.exists():
        patience.pause()


class _Patience:
    """Waits for something that comes from elsewhere, and says so once.

    Args:
      what: is waited for, in words.
      seconds: how long at most.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds = what, seconds
        self.renew()

    def renew(self) -> None:
        """Begins to count anew."""
        self._until, self._said = time.monotonic() + self._seconds, False

    def pause(self) -> None:
        """Sleeps a little.

        Raises:
          WaitedError: it was long enough.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise WaitedError(
                f"waited {self._seconds:g} s (EVAL_WAIT_SECONDS) for {self._what}; what was scored "
                "is kept, and the same command goes on"
            )
        if not self._said:
            print(f"waiting for {self._what}", flush=True)
            self._said = True
        time.sleep(min(_POLL_SECONDS, left))
