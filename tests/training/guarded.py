"""A run that fails if anything moves between host and devices unasked; and what it fetches.

As a program, on simulated devices: on a mesh.
"""

import collections
import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax

from specialize_jax import training
from tests.training import toy

STEPS = 8
# Lines of 4 steps; held-out losses and checkpoints fall on other steps too.
PERIODS = {"log_period": 4, "eval_period": 6, "save_period": 5}


@contextlib.contextmanager
def guard(batches: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Gives `batches`; from its first call on, which is just before the steps, the guard is on.

    For all threads, unlike `jax.transfer_guard`, which is for its own.
    """

    def guarded(*args: Any, **options: Any) -> Any:
        jax.config.update("jax_transfer_guard", "disallow")
        return batches(*args, **options)

    try:
        yield guarded
    finally:
        jax.config.update("jax_transfer_guard", None)


@contextlib.contextmanager
def counted_fetches() -> Iterator[collections.Counter[str]]:
    """Counts what is fetched: "metrics" of steps, "held-out" sums, the number of the "step"."""
    fetches: collections.Counter[str] = collections.Counter()
    fetch = jax.device_get

    def counting(tree: Any) -> Any:
        kind = "step"
        if isinstance(tree, list):
            kind = "metrics" if "grad_norm" in tree[0] else "held-out"
        fetches[kind] += 1
        return fetch(tree)

    with mock.patch.object(jax, "device_get", counting):
        yield fetches


def run_toy(folder: pathlib.Path | str, **options: Any) -> collections.Counter[str]:
    """Runs the toy under the guard; returns what was fetched."""
    mesh = options.get("mesh")
    held_out = [toy.batch_at(10_000)] * 2
    evaluate = training.evaluator(toy.eval_step(mesh), lambda: held_out, mesh=mesh)
    with guard(toy.batches) as batches, counted_fetches() as fetches:
        toy.run(folder, STEPS, batches=batches, eval_fn=evaluate, **PERIODS, **options)
    return fetches


# Lines at 4 and 8, held-out at 6 and 8, checkpoints at 5 and 8; the step where it starts and saves.
EXPECTED = {"metrics": 4, "held-out": 2, "step": 3}


def main() -> None:
    """Asserts that a run on a mesh moves nothing unasked."""
    assert jax.device_count() == 8
    mesh, like, start, train_step = toy.on_mesh(2, 2)
    with tempfile.TemporaryDirectory() as folder:
        placed = {"mesh": mesh, "like": like, "start": start, "train_step": train_step}
        assert run_toy(folder, **placed) == EXPECTED
    print("equal")


if __name__ == "__main__":
    main()
