"""Runs in processes of their own that are killed at random moments."""

import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence

from specialize_jax.training import checkpoints
from tests.training import toy

_ROOT = pathlib.Path(__file__).resolve().parents[2]


class Kill:
    """A run, killed at a random moment; and what it was doing then.

    Args:
      model_dir: of the run.
      command: of `python -m`.
      rng: of the moment.
      most_lines: it comes after 1 to so many lines of progress, and a bit.

    Attributes:
      was_running: False where the run had ended before.
      was_saving: whether it left a checkpoint half-written.
      reached: the latest checkpoint.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        command: Sequence[object],
        rng: random.Random,
        most_lines: int,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=_ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            # In a line's time there is a save and more; counted in lines, as machines differ.
            for _ in range(rng.randint(1, most_lines)):
                next(line for line in process.stderr if "step " in line)
            time.sleep(rng.uniform(0, 0.2))
            self.was_running = process.poll() is None
        finally:
            process.kill()
            process.stderr.close()
            process.wait()
        folder = model_dir / "checkpoints"
        self.was_saving = any(folder.glob("*.orbax-checkpoint-tmp*"))
        self.reached = checkpoints.latest_step(folder) or 0


def kill_often(
    model_dir: pathlib.Path, command: Sequence[object], kills: int, most_lines: int
) -> list[Kill]:
    """The same command again and again; prints where each was killed, with s for saving."""
    rng = random.Random(7)
    found = [Kill(model_dir, command, rng, most_lines) for _ in range(kills)]
    print("killed at", *(f"{kill.reached}{'s' * kill.was_saving}" for kill in found))
    return found


def assert_came_through(killed: pathlib.Path, whole: pathlib.Path) -> None:
    """The same lines, and the same checkpoints, each as its manifest says, and nothing besides."""
    assert toy.lines(killed) == toy.lines(whole)
    kept, expected = (checkpoints.all_steps(run / "checkpoints") for run in (killed, whole))
    assert kept == expected
    left = {path.name for path in (killed / "checkpoints").iterdir()}
    assert left == {"config.json", *map(str, kept)}
    for step in kept:
        checkpoints.check(killed / "checkpoints", step)
