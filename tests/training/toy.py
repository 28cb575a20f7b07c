"""A toy student and its data; as a program, a run in its own process, with everything on.

python -m tests.training.toy MODEL_DIR TRAIN_STEPS
"""

import functools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax import training
from specialize_jax.training import checkpoints, metrics, optimizers, partitioning, train_state

VOCABULARY, WIDTH, LENGTH, BATCH, SEED = 16, 8, 6, 8, 7
AXES = {"embed": ("vocab", "embed"), "mlp": {"in": ("embed", "mlp"), "out": ("mlp", "vocab")}}
RATE = optimizers.schedule("constant", base_learning_rate=3e-2, warmup_steps=2)


def init_params() -> Any:
    embed, first, last = jax.random.split(jax.random.key(0), 3)
    return {
        "embed": jax.random.normal(embed, (VOCABULARY, WIDTH)),
        "mlp": {
            "in": jax.random.normal(first, (WIDTH, 4 * WIDTH)) * 0.3,
            "out": jax.random.normal(last, (4 * WIDTH, VOCABULARY)) * 0.3,
        },
    }


def loss_fn(params: Any, batch: Any, rng: jax.Array | None) -> tuple[jax.Array, dict[str, Any]]:
    """Weighted sum of cross-entropies; dropout on the hidden layer where there is a key."""
    hidden = jax.nn.relu(params["embed"][batch["inputs"]] @ params["mlp"]["in"])
    if rng is not None:
        hidden = hidden * jax.random.bernoulli(rng, 0.9, hidden.shape) / 0.9
    log_q = jax.nn.log_softmax(hidden @ params["mlp"]["out"])
    token_loss = -jnp.take_along_axis(log_q, batch["targets"][..., None], axis=-1)[..., 0]
    loss_sum = jnp.sum(batch["weights"] * token_loss)
    return loss_sum, {"loss_sum": loss_sum, "tokens": jnp.sum(batch["weights"])}


def no_dropout(params: Any, batch: Any, rng: jax.Array | None) -> Any:
    return loss_fn(params, batch, None)


def batch_at(index: int) -> dict[str, np.ndarray]:
    """The batch whose first row has this global index: a function of the index alone."""
    rng = np.random.default_rng((SEED, index))
    inputs = rng.integers(0, VOCABULARY, (BATCH, LENGTH)).astype(np.int32)
    lengths = rng.integers(1, LENGTH + 1, (BATCH, 1))
    weights = (np.arange(LENGTH)[None, :] < lengths).astype(np.float32)
    return {"inputs": inputs, "targets": (inputs * 3 + 1) % VOCABULARY, "weights": weights}


def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
    while True:
        yield batch_at(start)
        start += BATCH


def data_state(index: int) -> dict[str, int]:
    return {"seed": SEED, "epoch": index // 64, "index": index}


def make_tx(name: str = "adamw") -> Any:
    return optimizers.build(name, RATE, weight_decay=0.01)


def start(name: str = "adamw") -> training.TrainState:
    return train_state.create(init_params(), make_tx(name), seed=1)


@functools.cache
def train_step() -> Any:
    return training.make_train_step(loss_fn, make_tx(), learning_rate=RATE)


def run(model_dir: pathlib.Path | str, train_steps: int, **options: Any) -> training.TrainState:
    """A run on one device, checkpoint every 2 steps, a line every 3."""
    arguments = {
        "like": jax.eval_shape(start),
        "start": start,
        "train_step": train_step(),
        "model_dir": model_dir,
        "batches": batches,
        "data_state": data_state,
        "batch_size": BATCH,
        "train_steps": train_steps,
        "save_period": 2,
        "log_period": 3,
    }
    return training.fit(**(arguments | options))


def evaluate(batches: int = 2) -> Any:
    """A held-out loss over so many batches."""
    return training.evaluator(
        training.make_eval_step(loss_fn), lambda: (batch_at(10_000) for _ in range(batches))
    )


def full_run(
    model_dir: pathlib.Path | str, train_steps: int, **options: Any
) -> training.TrainState:
    """As `run`, with held-out losses, and checkpoints that come and go."""
    keep = checkpoints.Keep(last=2, period=40, best=1)
    arguments = {"eval_fn": evaluate(), "eval_period": 2, "keep": keep, "config": {"model": "toy"}}
    return run(model_dir, train_steps, **(arguments | options))


def lines(model_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Those of `metrics.jsonl`, without what differs between any two runs."""
    return [metrics.untimed(line) for line in metrics.read(model_dir / "metrics.jsonl")]


def assert_equal(ours: Any, expected: Any) -> None:
    """Bit for bit, leaf by leaf."""
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def on_mesh(fsdp: int, model: int, name: str = "adamw") -> Any:
    """(mesh, like, start, train_step) of a run over all devices."""
    mesh = partitioning.make_mesh(fsdp=fsdp, model=model)
    shapes = jax.eval_shape(lambda: start(name))
    shardings = partitioning.state_shardings(shapes, AXES, mesh)
    step = training.make_train_step(
        loss_fn, make_tx(name), learning_rate=RATE, mesh=mesh, shardings=shardings
    )
    placed_start = jax.jit(lambda: start(name), out_shardings=shardings)
    return mesh, partitioning.with_shardings(shapes, shardings), placed_start, step


def eval_step(mesh: Any = None) -> Any:
    """Held-out sums; `mesh` is one of `on_mesh`."""
    if mesh is None:
        return training.make_eval_step(loss_fn)
    shapes = jax.eval_shape(start)
    shardings = partitioning.state_shardings(shapes, AXES, mesh)
    return training.make_eval_step(loss_fn, mesh=mesh, shardings=shardings)


if __name__ == "__main__":
    full_run(sys.argv[1], int(sys.argv[2]))
