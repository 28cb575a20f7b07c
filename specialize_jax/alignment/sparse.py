"""What every mode of `transfer` ends with: the largest entries in order, or a one-hot."""

import jax
import jax.numpy as jnp

from specialize_jax.schemas import UNUSED_LOGPROB

# Leftover mass below this is float32 rounding, not a tail.
_SMALLEST_TAIL = 1e-7


def largest(
    ids: jax.Array, logprobs: jax.Array, k_out: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the `k_out` most probable entries, in order, and the log of the mass outside them."""
    unused = [(0, 0), (0, 0), (0, max(0, k_out - ids.shape[-1]))]
    ids = jnp.pad(ids, unused)
    logprobs = jnp.pad(logprobs, unused, constant_values=UNUSED_LOGPROB)
    order = jnp.argsort(-logprobs, axis=-1, stable=True)[..., :k_out]
    ids = jnp.take_along_axis(ids, order, -1)
    logprobs = jnp.take_along_axis(logprobs, order, -1)
    outside = 1.0 - jnp.exp(logprobs).sum(-1)
    is_tail = outside > _SMALLEST_TAIL
    tail = jnp.where(is_tail, jnp.log(jnp.where(is_tail, outside, 1.0)), UNUSED_LOGPROB)
    return ids, logprobs, tail


def one_hot(student_ids: jax.Array, inside: jax.Array, k_out: int) -> tuple[jax.Array, jax.Array]:
    """Returns [B, S, k_out] ids and log-probabilities with all mass on the token itself."""
    is_first = (jnp.arange(k_out) == 0)[None, None, :] & inside[..., None]
    return (
        jnp.where(is_first, student_ids[..., None], 0),
        jnp.where(is_first, jnp.float32(0.0), jnp.float32(UNUSED_LOGPROB)),
    )
