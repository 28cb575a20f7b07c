"""Whether T5 small ever waits for data: what the input delivers, and the waiting in a real loop.

    specialize-jax pack --gin_file=experiments/codex_gsm8k_cpu.gin --out out/line/packed
    python benchmarks/input_pipeline.py out/line/packed

First apart: rows a second that are read, decoded and placed with nothing else running, and those of
the training step with its batch at hand. Then together: runs of `training.fit` with batches made
ahead by a thread, in turn with runs that make each when it is asked for; what is printed is their
line's `data_wait`, the share of the time in which the loop waited. Compilation is not counted.
"""

import argparse
import functools
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, Self
from unittest import mock

import jax
import numpy as np

from specialize_jax import losses, models
from specialize_jax.apps import program
from specialize_jax.data.packed import PackedRows
from specialize_jax.training import loop, metrics, optimizers, partitioning, prefetch


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", help="what `specialize-jax pack` wrote, for T5's tokenizer")
    parser.add_argument("--size", default="t5_1_1_small", help="a name of models.t5.SIZES")
    parser.add_argument("--batch", type=int, default=2, help="rows of a step")
    parser.add_argument("--steps", type=int, default=10, help="of a run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are printed")
    flags = parser.parse_args()
    rows = PackedRows(flags.folder, "train", batch_rows=flags.batch)
    print(
        f"python {platform.python_version()}, jax {jax.__version__}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; {flags.size}, batch {flags.batch}, "
        f"{rows.info['lengths']['inputs']} in, {rows.info['lengths']['targets']} out"
    )
    made = _program(flags.size)
    place = functools.partial(partitioning.shard_batch, mesh=made.mesh)
    stream = rows.batches_from(0)
    delivered = flags.batch / _seconds(
        lambda: jax.block_until_ready(place(next(stream))), max(32 // flags.batch, 3)
    )
    print(f"input alone: {delivered:10.1f} rows/s read, decoded and placed")
    stepped = flags.batch / _step_seconds(made, place(rows.batch(range(flags.batch))), flags.steps)
    print(
        f"step alone:  {stepped:10.3f} rows/s; the input delivers {delivered / stepped:.0f}x that"
    )
    runs = {"made ahead": prefetch.Prefetch, "made when asked": _WhenAsked}
    shares: dict[str, list[float]] = {name: [] for name in runs}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _, (name, source) in itertools.product(range(flags.repeats), runs.items()):
        with mock.patch.object(prefetch, "Prefetch", source):
            line = _run(made, rows, flags.steps)
        shares[name].append(line["data_wait"])
        rates[name].append(line["tokens_per_second"])
    for name in runs:
        share, rate = np.median(shares[name]), np.median(rates[name])
        print(f"{name:16s} {share:9.4%} of the loop's time waited for data, {rate:8.1f} tokens/s")
    ahead, asked = (float(np.median(shares[name])) for name in runs)
    print(f"ahead waits {ahead / asked:.3f} of the share")


class _WhenAsked:
    """Stands for `prefetch.Prefetch`: the same, without a thread."""

    def __init__(self, source: Iterator[Any], prepare: Callable[[Any], Any]):
        self.waited, self._source, self._prepare = 0.0, source, prepare

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __next__(self) -> Any:
        start = time.perf_counter()
        ready = self._prepare(next(self._source))
        self.waited += time.perf_counter() - start
        return ready


def _program(size: str) -> program.Program:
    course = optimizers.schedule("constant", base_learning_rate=1e-3, warmup_steps=0)
    return program.build(
        models.build(size),
        partitioning.make_mesh(),
        objective="match_distribution",
        rule=losses.Rule(),
        tx=optimizers.build("adafactor", course),
        course=course,
    )


def _seconds(work: Callable[[], Any], repeats: int) -> float:
    """Returns the median of the seconds that some work takes; the first time is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _step_seconds(made: program.Program, batch: Any, repeats: int) -> float:
    held = [made.start(None)]

    def step() -> None:
        held[0], sums = made.train_step(held[0], batch)
        jax.block_until_ready(sums)

    return _seconds(step, repeats)


def _run(made: program.Program, rows: PackedRows, steps: int) -> dict[str, Any]:
    """Returns the line of a run of some steps."""
    with tempfile.TemporaryDirectory() as folder:
        loop.fit(
            made.like,
            functools.partial(made.start, None),
            made.train_step,
            model_dir=folder,
            batches=rows.batches_from,
            data_state=rows.data_state,
            batch_size=rows.batch_rows,
            train_steps=steps,
            mesh=made.mesh,
            log_period=steps,
        )
        return metrics.read(f"{folder}/metrics.jsonl")[-1]


if __name__ == "__main__":
    main()
