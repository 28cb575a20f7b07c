"""What a run will do, take and last, before it starts: `specialize-jax train --dry_run`."""

import datetime
import itertools
import time
from typing import Any

import jax
import numpy as np

from specialize_jax.apps.program import Program
from specialize_jax.data.packed import PackedRows
from specialize_jax.training import chips, partitioning
from specialize_jax.training.train_state import TrainState

_TIMED_STEPS = 3
_GIB = 2**30


def show(
    made: Program,
    rows: PackedRows,
    state: TrainState,
    *,
    batch_size: int,
    train_steps: int,
    step_flops: int,
) -> None:
    """Compiles the step, runs a few on the run's own rows, and prints what follows from them.

    Nothing is written.

    Args:
      made: the programs.
      rows: the training rows.
      state: at step 0; donated.
      batch_size: rows of the global batch.
      train_steps: updates in all.
      step_flops: of matrix products in a step, on all devices.
    """
    train, passes = rows.info["splits"]["train"], train_steps * batch_size / len(rows)
    encoder, decoder = (train[f"{side}_tokens"] * passes for side in ("encoder", "decoder"))
    print(
        f"{train_steps} steps of {batch_size} rows: {passes:.2f} passes over {len(rows)} rows, "
        f"{train['examples'] * passes:,.0f} examples, {encoder:,.0f} encoder and {decoder:,.0f} "
        f"decoder tokens ({train['encoder_fill']:.0%} and {train['decoder_fill']:.0%} of the rows)"
    )
    local = partitioning.local_rows(made.mesh, batch_size)
    batches = [
        partitioning.shard_batch(batch, made.mesh, batch_rows=batch_size)
        for batch in itertools.islice(rows.batches_from(0, rows=local), _TIMED_STEPS + 1)
    ]
    start = time.perf_counter()
    step: Any = made.train_step
    compiled = step.lower(state, batches[0]).compile()
    print(f"compiled in {time.perf_counter() - start:.0f} s")
    memory = compiled.memory_analysis()
    print(
        f"memory of each of {made.mesh.devices.size} device(s): "
        f"{memory.argument_size_in_bytes / _GIB:.2f} GiB state and batch, "
        f"{memory.temp_size_in_bytes / _GIB:.2f} GiB in passing"
    )
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)
    each = float(np.median(seconds[1:]))
    devices = made.mesh.devices
    share = chips.share_of_peak(step_flops / each, devices.flat[0].device_kind, devices.size)
    of_peak = "" if share is None else f" ({share:.1%} of the peak)"
    total = datetime.timedelta(seconds=round(each * train_steps))
    print(
        f"a step took {each:.3g} s (median of {_TIMED_STEPS}), {step_flops / each:.3g} FLOP/s"
        f"{of_peak}; all steps: {total}, without held-out "
        "losses and saving"
    )
