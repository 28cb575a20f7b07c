"""What matching distributions costs over matching samples: time and peak memory.

    python benchmarks/loss.py

Loss and gradients of `losses.chunked` on hidden states alone, and of a whole training step of T5
1.1 small, for both objectives in turn. Peak memory is XLA's own figure for the compiled program
(temporary buffers, arguments and results), so it is exact and the machine's load does not show.
`dense` is `match_distribution` on logits that exist all at once, to show what chunks save.
"""

import argparse
import functools
import os
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import turns

from specialize_jax import losses, models
from specialize_jax.apps import program
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, SparseTargets
from specialize_jax.training import partitioning, step, train_state

ROWS, INPUTS, LENGTH, ENTRIES = 8, 256, 128, 8
# One run of a compiled program, and its peak memory in bytes.
Program = tuple[Callable[[], Any], int]


def main() -> None:
    """Prints medians, and ratios to `match_sample`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="t5_1_1_small", help="a name of models.t5.SIZES")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; medians are printed")
    flags = parser.parse_args()
    print(
        f"python {platform.python_version()}, jax {jax.__version__} on {jax.default_backend()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {flags.size}, {ROWS} rows of "
        f"{INPUTS} + {LENGTH} tokens, {ENTRIES} entries a token"
    )
    model = models.build(flags.size, dropout_rate=0.0)
    batch = _batch(model.config.vocab_size)
    for title, make in (("loss alone", _loss_alone), ("training step", _step)):
        print(f"\n{title:20s} {'ms':>8s} {'':>7s} {'peak MB':>8s}")
        programs = {name: make(model, batch, name) for name in losses.OBJECTIVES[::-1]}
        if make is _loss_alone:
            programs["dense"] = _dense(model, batch)
        _report(programs, flags.repeats)


def _batch(vocabulary: int) -> dict[str, np.ndarray]:
    """Random packed rows in which the teacher's distribution reached every other token."""
    rng = np.random.default_rng(0)
    words = functools.partial(rng.integers, 2, vocabulary, dtype=np.int32)
    shape = (ROWS, LENGTH)
    # Ids of a token are different: a random start and a stride that the vocabulary's size is not.
    ids = (words(shape)[..., None] + 3797 * np.arange(ENTRIES)) % vocabulary
    p = np.sort(rng.dirichlet(np.ones(ENTRIES + 1), shape))[..., ::-1]
    kind = np.where(np.arange(LENGTH) % 2, Kind.TRANSFERRED, Kind.ONE_HOT)
    is_soft = np.broadcast_to(kind == Kind.TRANSFERRED, shape)
    one_hot = np.where(np.arange(ENTRIES) == 0, 0.0, UNUSED_LOGPROB)
    return {
        "encoder_input_tokens": words((ROWS, INPUTS)),
        "decoder_input_tokens": words(shape),
        "decoder_target_tokens": ids[..., 0].astype(np.int32),
        "decoder_loss_weights": np.ones(shape, np.float32),
        "decoder_soft_ids": ids.astype(np.int32),
        "decoder_soft_logprobs": np.where(
            is_soft[..., None], np.log(p[..., :ENTRIES]), one_hot
        ).astype(np.float32),
        "decoder_soft_tail_logprob": np.where(is_soft, np.log(p[..., -1]), UNUSED_LOGPROB).astype(
            np.float32
        ),
        "decoder_soft_kind": np.broadcast_to(kind, shape).astype(np.int32),
        "decoder_format": np.zeros(shape, np.int32),
    }


def _loss_fn(model: models.Model, objective: str) -> step.LossFn:
    return program.make_loss_fn(
        model, objective=objective, rule=losses.Rule(), chunk=1024, mesh=partitioning.make_mesh()
    )


def _hidden_and_unembed(model: models.Model) -> tuple[jax.Array, jax.Array]:
    d_model, vocabulary = model.config.d_model, model.config.vocab_size
    keys = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(keys[0], (ROWS * LENGTH, d_model)),
        jax.random.normal(keys[1], (d_model, vocabulary)) / d_model**0.5,
    )


def _soft(batch: dict[str, np.ndarray]) -> SparseTargets:
    names = ("ids", "logprobs", "tail_logprob", "kind")
    found = [batch[f"decoder_soft_{name}"].reshape(ROWS * LENGTH, -1) for name in names]
    ids, logprobs, tail, kind = found
    return SparseTargets(ids, logprobs, tail[:, 0], kind[:, 0], np.zeros(len(ids), np.int32))


def _loss_alone(model: models.Model, batch: dict[str, np.ndarray], objective: str) -> Program:
    soft, targets = _soft(batch), batch["decoder_target_tokens"].reshape(-1)
    weights = batch["decoder_loss_weights"].reshape(-1)

    def loss(hidden: jax.Array, unembed: jax.Array, soft: SparseTargets) -> jax.Array:
        return losses.chunked(
            hidden, unembed, targets, soft, weights, objective=objective, chunk=256
        )[0]

    return _compiled(
        jax.value_and_grad(loss, argnums=(0, 1)), *_hidden_and_unembed(model), jax.device_put(soft)
    )


def _dense(model: models.Model, batch: dict[str, np.ndarray]) -> Program:
    def loss(hidden: jax.Array, unembed: jax.Array, soft: SparseTargets) -> jax.Array:
        return losses.match_distribution(hidden @ unembed, soft, jnp.ones(len(hidden)))[0]

    return _compiled(
        jax.value_and_grad(loss, argnums=(0, 1)),
        *_hidden_and_unembed(model),
        jax.device_put(_soft(batch)),
    )


def _step(model: models.Model, batch: dict[str, np.ndarray], objective: str) -> Program:
    tx = optax.adamw(1e-4)
    params = jax.jit(model.init)(jax.random.key(0))
    held = [train_state.create(params, tx, seed=0)]
    update = step.make_train_step(_loss_fn(model, objective), tx)
    memory = update.lower(held[0], batch).compile().memory_analysis()

    def run() -> None:
        held[0], metrics = update(held[0], batch)
        jax.block_until_ready((held[0], metrics))

    return run, _peak(memory)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Program:
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments)), _peak(compiled.memory_analysis())


def _peak(memory: Any) -> int:
    return (
        memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _report(programs: dict[str, Program], repeats: int) -> None:
    runs = {name: run for name, (run, _) in programs.items()}
    times = turns.seconds(runs, repeats, untimed=2)
    base = programs["match_sample"][1]
    for name, (_, peak) in programs.items():
        # Rounds are paired: both ran in turn, so the ratio of a round is free of drift.
        ratio = np.median(np.divide(times[name], times["match_sample"]))
        milliseconds = 1e3 * np.median(times[name])
        print(f"{name:20s} {milliseconds:8.1f} {ratio:6.3f}x {peak / 1e6:8.1f} {peak / base:6.3f}x")


if __name__ == "__main__":
    main()
