"""From per-token losses to one loss, and to metrics that add over microbatches and hosts."""

import jax
import jax.numpy as jnp

from specialize_jax.schemas import Kind

METRICS = (
    "loss_sum",
    "tokens",
    "kl_sum",
    "kl_tokens",
    "ce_sum",
    "ce_tokens",
    "cot_tokens",
    "transferred_tokens",
    "group_loss_sum",
    "group_tokens",
)
"""Names of the metrics, all sums in nats or in weighted tokens; the last two are [num_groups]."""


def reduce_tokens(
    token_loss: jax.Array,
    weights: jax.Array,
    kind: jax.Array | None,
    *,
    by_divergence: bool,
    normalizer: jax.Array | float | None = None,
    groups: jax.Array | None = None,
    num_groups: int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Adds up per-token losses.

    Args:
      token_loss: [N] float32, nats.
      weights: [N] float32, >= 0.
      kind: [N] int32, a `Kind`; None where nothing is known of the teacher's distributions.
      by_divergence: whether tokens of kind TRANSFERRED were scored by the divergence.
      normalizer: divides the weighted sum; None for `sum(weights)`.
      groups: [N] int32 in [0, num_groups), for example the data format of each token.
      num_groups: how many groups to report.

    Returns:
      loss: scalar. metrics: see `METRICS`. `cot_tokens` counts kinds TRANSFERRED and ONE_HOT,
      `transferred_tokens` the former; their ratio is the coverage, under either objective.
    """
    nothing = jnp.zeros_like(weights)
    transferred = nothing if kind is None else weights * (kind == Kind.TRANSFERRED)
    one_hot = nothing if kind is None else weights * (kind == Kind.ONE_HOT)
    by_kl = transferred if by_divergence else nothing
    by_ce = weights - by_kl
    loss_sum = jnp.sum(weights * token_loss)
    tokens = jnp.sum(weights)
    if groups is None:
        groups = jnp.zeros(weights.shape, jnp.int32)
    in_group = groups[:, None] == jnp.arange(num_groups)[None, :]
    metrics = {
        "loss_sum": loss_sum,
        "tokens": tokens,
        "kl_sum": jnp.sum(by_kl * token_loss),
        "kl_tokens": jnp.sum(by_kl),
        "ce_sum": jnp.sum(by_ce * token_loss),
        "ce_tokens": jnp.sum(by_ce),
        "cot_tokens": jnp.sum(transferred + one_hot),
        "transferred_tokens": jnp.sum(transferred),
        "group_loss_sum": jnp.sum(in_group * (weights * token_loss)[:, None], axis=0),
        "group_tokens": jnp.sum(in_group * weights[:, None], axis=0),
    }
    if normalizer is None:
        normalizer = jnp.where(tokens > 0, tokens, 1.0)
    return loss_sum / normalizer, jax.lax.stop_gradient(metrics)
