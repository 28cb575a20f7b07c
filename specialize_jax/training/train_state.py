"""What training carries from one step to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """A plain tree of arrays.

    Attributes:
      step: scalar int32; updates done so far.
      params: nested dict of float32 arrays.
      opt_state: the optimizer's state, as optax makes it.
      rng: uint32 key data of the base key. It never changes: the key of an update is
        `fold_in(base key, step)`, so a resumed run draws what an uninterrupted one would.
    """

    step: Any
    params: Any
    opt_state: Any
    rng: Any


def create(params: Any, tx: optax.GradientTransformation, *, seed: int) -> TrainState:
    """A state at step 0.

    Args:
      params: nested dict of arrays.
      tx: the optimizer, see `optimizers.build`.
      seed: of the base key, from which dropout is drawn.

    Returns:
      The state. Under `jax.eval_shape` the same with shapes in place of arrays.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        rng=jax.random.key_data(jax.random.key(seed)),
    )


def step_key(state: TrainState) -> jax.Array:
    """The key of the update that takes `state.step` to `state.step + 1`."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
