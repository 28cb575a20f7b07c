"""One update, and the sums of one held-out batch.

`loss_fn(params, batch, rng) -> (loss_sum, metrics)` is all that is known of the model:

- `loss_sum` is the *sum* of the weighted token losses, not their mean, so that what microbatches
  and hosts return can be added. (`losses.chunked(..., normalizer=1.0)` returns it.)
- `metrics` are sums too: `loss_sum` itself, and `tokens`, the sum of the weights, by whose total
  over the whole global batch the gradient is divided once. A microbatch with more padding then
  counts for less, and microbatches give the gradient of the big batch exactly.
- `rng` is a key for dropout, or None where nothing is to be drawn (held-out loss).

An update whose loss or gradient is not finite is not applied: see `train_state.advanced`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax.training.partitioning import BATCH_AXES, batch_sharding, batch_shards
from specialize_jax.training.train_state import TrainState, advanced, may_apply, step_key

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
LossFn = Callable[[Any, Any, Any], tuple[jax.Array, Metrics]]
TrainStep = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, Any], Metrics]


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    learning_rate: Callable[[Any], Any] | None = None,
    num_microbatches: int = 1,
    mesh: Mesh | None = None,
    shardings: TrainState | None = None,
) -> TrainStep:
    """The compiled update.

    Args:
      loss_fn: see the module.
      tx: the optimizer.
      learning_rate: the optimizer's schedule, for the metrics alone.
      num_microbatches: parts the batch is worked in, one after the other; memory for activations
        falls by this, the update does not change but for rounding and for dropout's draws.
      mesh: where the batch lies; None for one device.
      shardings: where the state lies, see `partitioning.state_shardings`; goes with `mesh`.

    Returns:
      (state, batch) -> (state, metrics). The given state is donated: do not use it again. metrics
      are the sums of `loss_fn` over the batch, and `grad_norm` (of the mean loss, before clipping)
      and `learning_rate` of this update. Where the loss sum or the norm is not finite, and at any
      step after one, parameters and optimizer state are returned as they were given, and the
      state's step says so (`train_state.advanced`).

    Raises:
      ValueError: at the first call, if a field's rows are not divisible by `num_microbatches`.
    """

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        gradients, metrics = _accumulate(
            loss_fn, state.params, batch, step_key(state), num_microbatches, mesh
        )
        tokens = metrics["tokens"]
        scale = 1.0 / jnp.where(tokens > 0, tokens, 1.0)
        # Of the sums: what is scaled is then read by the update alone, and need not be stored.
        metrics["grad_norm"] = optax.tree.norm(gradients) * scale
        gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        if learning_rate is not None:
            metrics["learning_rate"] = jnp.asarray(learning_rate(state.step))
        params = optax.apply_updates(state.params, updates)
        return advanced(state, params, opt_state, applies=may_apply(metrics)), metrics

    return jax.jit(train_step, donate_argnums=0, **_placements(mesh, shardings))


def make_eval_step(
    loss_fn: LossFn, *, mesh: Mesh | None = None, shardings: TrainState | None = None
) -> EvalStep:
    """The compiled held-out sums: (params, batch) -> metrics of `loss_fn`, with no key.

    Args:
      loss_fn: see the module.
      mesh: where the batch lies; None for one device.
      shardings: where the state lies; goes with `mesh`.

    Returns:
      The function.
    """
    placements = _placements(mesh, shardings)
    if mesh is not None and shardings is not None:
        placements = {
            "in_shardings": (shardings.params, batch_sharding(mesh)),
            "out_shardings": NamedSharding(mesh, PartitionSpec()),
        }
    return jax.jit(lambda params, batch: loss_fn(params, batch, None)[1], **placements)


def _placements(mesh: Mesh | None, shardings: TrainState | None) -> dict[str, Any]:
    if (mesh is None) != (shardings is None):
        raise ValueError("Expected mesh and shardings together, got only one of them.")
    if mesh is None:
        return {}
    whole = NamedSharding(mesh, PartitionSpec())
    return {
        "in_shardings": (shardings, batch_sharding(mesh)),
        "out_shardings": (shardings, whole),
    }


def _accumulate(
    loss_fn: LossFn, params: Any, batch: Any, key: jax.Array, parts: int, mesh: Mesh | None
) -> tuple[Any, Metrics]:
    """Gradient of the loss sum, and sums of the metrics, over all microbatches."""

    def gradients_of(part: Any, key: jax.Array) -> tuple[Any, Metrics]:
        (_, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params, part, key)
        return gradients, metrics

    if parts == 1:
        return gradients_of(batch, key)

    def body(sums: tuple[Any, Metrics], item: tuple[Any, jax.Array]) -> tuple[Any, None]:
        part, index = item
        one = gradients_of(part, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, sums, one), None

    def first(items: tuple[Any, jax.Array]) -> tuple[Any, Metrics]:
        return gradients_of(jax.tree.map(lambda x: x[0], items[0]), key)

    items = (_split_rows(batch, parts, mesh), jnp.arange(parts))
    shapes = jax.eval_shape(first, items)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(body, zeros, items)[0]


def _split_rows(batch: Any, parts: int, mesh: Mesh | None) -> Any:
    """[B, ...] -> [parts, B / parts, ...]; part `i` has the rows `i, i + parts, ...`.

    Strided, so that each part has its share of every shard's rows and none moves between devices.
    """

    def split(path: Any, rows: jax.Array) -> jax.Array:
        if rows.shape[0] % parts:
            raise ValueError(
                f"Expected rows that num_microbatches={parts} divides, got "
                f"{jax.tree_util.keystr(path)} with {rows.shape[0]}."
            )
        rows = rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)
        if mesh is None or rows.shape[1] % batch_shards(mesh):
            return rows
        sharding = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
        return jax.lax.with_sharding_constraint(rows, sharding)

    return jax.tree.map_with_path(split, batch)
