"""A run of the toy on a mesh of all devices of one or several processes, for tests.

python -m tests.training.several MODEL_DIR TRAIN_STEPS DEVICES [--trouble WHAT] [flags of processes]
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from specialize_jax import training
from specialize_jax.apps import processes
from specialize_jax.training import partitioning
from tests.training import toy


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("train_steps", type=int)
    parser.add_argument("devices", type=int, help="of this process")
    parser.add_argument("--trouble", choices=("fail", "hang", "slow"), help="see `_troubled`")
    processes.add_arguments(parser)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", args.devices)
    with processes.joined(args):
        print("joined")
        step = _run(args)
    return 0 if step == args.train_steps else 143


def _run(args: argparse.Namespace) -> int:
    mesh, like, start, train_step = toy.on_mesh(2, 2)
    rows = partitioning.local_rows(mesh, toy.BATCH)

    def batches(first: int) -> Iterator[dict[str, np.ndarray]]:
        for batch in toy.batches(first):
            yield {name: value[rows] for name, value in batch.items()}

    held_out = [toy.batch_at(10_000)] * 2
    state = toy.run(
        args.model_dir,
        args.train_steps,
        mesh=mesh,
        like=like,
        start=start,
        train_step=_troubled(train_step, args.trouble),
        batches=batches,
        eval_fn=training.evaluator(toy.eval_step(mesh), lambda: held_out, mesh=mesh),
        eval_period=5,
        config={"model": "toy"},
    )
    return int(state.step)


def _troubled(train_step: Callable[..., Any], trouble: str | None) -> Callable[..., Any]:
    """A step that, in this process alone, fails or hangs at the fourth; or is always slow."""
    number = itertools.count()

    def step(state: Any, batch: Any) -> Any:
        is_fourth = next(number) == 3
        if trouble == "fail" and is_fourth:
            raise ValueError("made to fail")
        if trouble == "hang" and is_fourth:
            time.sleep(1000)
        if trouble == "slow":
            time.sleep(0.1)
        return train_step(state, batch)

    return step


if __name__ == "__main__":
    sys.exit(main())
