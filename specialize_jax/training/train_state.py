"""What training carries from one step to the next."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """A plain tree of arrays.

    Attributes:
      step: scalar int32; updates done so far. A state that is halted has `~step` (-1 - step) in its
        place, which is negative.
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


def may_apply(metrics: Mapping[str, Any]) -> Any:
    """Whether an update may be applied: its loss and its gradient are finite.

    Args:
      metrics: `loss_sum` and `grad_norm`; scalars, traced or on the host.
    """
    return (abs(metrics["loss_sum"]) < jnp.inf) & (metrics["grad_norm"] < jnp.inf)  # NaN is not


def advanced(state: TrainState, params: Any, opt_state: Any, *, applies: Any) -> TrainState:
    """The state after an update, or the one before it, halted.

    The host looks at losses only now and then. So the device itself stops at the first update that
    would spoil the parameters: what the host finds later is the state before that update.

    Args:
      state: before the update.
      params: after it.
      opt_state: after it.
      applies: scalar bool, see `may_apply`.

    Returns:
      The state one step on; or, where the update may not be applied or the state is halted already,
      the arrays of `state`, halted.
    """
    applies &= state.step >= 0
    # A select is part of the loop that computes the new value, in place of the old: it costs
    # neither a pass nor a copy.
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(applies, new, old),
        (params, opt_state),
        (state.params, state.opt_state),
    )
    halted = jnp.where(state.step < 0, state.step, ~state.step)
    step = jnp.where(applies, state.step + 1, halted)
    return TrainState(step, params, opt_state, state.rng)


def before_halt(state: TrainState) -> TrainState:
    """A halted state as an ordinary one: that before the update that was not applied."""
    return state._replace(step=~state.step)


def step_key(state: TrainState) -> jax.Array:
    """The key of the update that takes `state.step` to `state.step + 1`."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
