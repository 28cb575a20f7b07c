"""Training: takes functions and plain trees; knows no model, no data library and no gin.

| module         | holds                                                                       |
|----------------|-----------------------------------------------------------------------------|
| `train_state`  | `TrainState`, a plain tree: step, params, optimizer state, base key         |
| `optimizers`   | Adafactor and AdamW, learning-rate schedules                                |
| `layers`       | optimizers of scanned layers: each layer a parameter of its own             |
| `partitioning` | mesh, logical axis rules, shardings of state and batch                      |
| `step`         | one update, in microbatches where asked; held-out sums                      |
| `metrics`      | sums to what a line of `metrics.jsonl` says                                 |
| `checkpoints`  | Orbax: save, keep, restore the latest sound one, params alone               |
| `manifest`     | sizes and hashes of a checkpoint's files                                    |
| `held_out`     | the held-out split: its loss, and when it is due                            |
| `screen`       | the line on the screen, and the clock behind it                             |
| `stops`        | NaN and divergence: what stops a run, and what it then leaves               |
| `profiling`    | a profiler's trace of some steps                                            |
| `loop`         | `fit`: the training program; `preemption`: SIGTERM                          |

The one contract with a model is `loss_fn(params, batch, rng) -> (loss_sum, metrics)`; `step` says
what it has to return.
"""

from specialize_jax.training import (
    checkpoints,
    metrics,
    optimizers,
    partitioning,
    step,
    train_state,
)
from specialize_jax.training.held_out import evaluator
from specialize_jax.training.loop import fit
from specialize_jax.training.step import make_eval_step, make_train_step
from specialize_jax.training.stops import DivergedError, NotFiniteError
from specialize_jax.training.train_state import TrainState

__all__ = [
    "DivergedError",
    "NotFiniteError",
    "TrainState",
    "checkpoints",
    "evaluator",
    "fit",
    "make_eval_step",
    "make_train_step",
    "metrics",
    "optimizers",
    "partitioning",
    "step",
    "train_state",
]
