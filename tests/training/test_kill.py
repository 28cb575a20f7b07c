"""kill -9 at random moments: what comes out at the end is what comes out of one run."""

import os
import pathlib
import random
import subprocess
import sys
import time

import jax
import pytest

from specialize_jax.training import checkpoints
from tests.training import toy

_ROOT = pathlib.Path(__file__).resolve().parents[2]


class Kill:
    """A run in its own process, killed at a random moment; and what it was doing then.

    Attributes:
      was_running: False where the run had ended before.
      was_saving: whether it left a checkpoint half-written.
      reached: the latest checkpoint.
    """

    def __init__(
        self, model_dir: pathlib.Path, train_steps: int, rng: random.Random, most_lines: int
    ):
        arguments = [sys.executable, "-m", "tests.training.toy", str(model_dir), str(train_steps)]
        process = subprocess.Popen(
            arguments,
            cwd=_ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            # In a line's time there is a save and more; counted in lines, as machines differ.
            for _ in range(rng.randint(1, most_lines)):
                next(process.stderr)
            time.sleep(rng.uniform(0, 0.2))
            self.was_running = process.poll() is None
        finally:
            process.kill()
            process.stderr.close()
            process.wait()
        folder = model_dir / "checkpoints"
        self.was_saving = any(folder.glob("*.orbax-checkpoint-tmp*"))
        self.reached = checkpoints.latest_step(folder) or 0


def _kill_and_compare(
    folder: pathlib.Path, kills: int, train_steps: int, most_lines: int
) -> list[Kill]:
    rng = random.Random(7)
    found = [Kill(folder / "killed", train_steps, rng, most_lines) for _ in range(kills)]
    print(*(f"{kill.reached}{'s' * kill.was_saving}" for kill in found))
    ours = jax.device_get(toy.full_run(folder / "killed", train_steps))
    whole = jax.device_get(toy.full_run(folder / "whole", train_steps))
    assert ours.step == train_steps
    toy.assert_equal(ours, whole)  # parameters, optimizer state, step and key
    assert toy.lines(folder / "killed") == toy.lines(folder / "whole")
    kept = [checkpoints.all_steps(folder / name / "checkpoints") for name in ("killed", "whole")]
    assert kept[0] == kept[1]
    assert {p.name for p in (folder / "killed" / "checkpoints").iterdir()} == {
        "config.json",
        *map(str, kept[0]),
    }
    for step in kept[0]:
        checkpoints.check(folder / "killed" / "checkpoints", step)
    return found


def test_three_kills(tmp_path):
    found = _kill_and_compare(tmp_path, kills=3, train_steps=60, most_lines=6)
    assert any(kill.was_running and 0 < kill.reached < 60 for kill in found)


@pytest.mark.long
def test_twenty_kills(tmp_path):
    steps = 600
    found = _kill_and_compare(tmp_path, kills=20, train_steps=steps, most_lines=16)
    in_the_middle = [kill for kill in found if kill.was_running and 0 < kill.reached < steps]
    assert len(in_the_middle) >= 10
    assert len({kill.reached for kill in in_the_middle}) >= 10
    assert sum(kill.was_saving for kill in found) >= 3
