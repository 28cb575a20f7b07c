"""The losses from dense logits: for tests, for t5x, and to read what `chunked` computes."""

import jax
import jax.numpy as jnp

from specialize_jax.losses import tokens
from specialize_jax.losses.divergences import Rule
from specialize_jax.losses.sums import reduce_tokens
from specialize_jax.schemas import Kind, SparseTargets


def match_sample(
    logits: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of the teacher's sampled tokens.

    Args:
      logits: [..., V] any float type; the softmax is in float32.
      targets: [...] int32 ids.
      weights: [...] loss weights, 0 for tokens that do not count.

    Returns:
      loss: weighted mean, nats per token. metrics: sums, see `sums.METRICS`.

    Source: 2301.12726, section 3 (`match_sample`).
    """
    logits = logits.reshape(-1, logits.shape[-1]).astype(jnp.float32)
    loss = tokens.cross_entropy(logits, targets.reshape(-1))
    return reduce_tokens(loss, _flat_float(weights), None, by_divergence=False)


def match_distribution(
    logits: jax.Array,
    soft_targets: SparseTargets,
    weights: jax.Array,
    tail: str = "bucket",
    *,
    divergence: str = "forward_kl",
    temperature: float = 1.0,
    beta: float = 0.5,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Divergence from the teacher's sparse distributions; cross-entropy where there is none.

    Args:
      logits: [..., V] any float type; the softmax is in float32.
      soft_targets: `SparseTargets` with the leading dimensions of `logits`. Tokens of kind ONE_HOT
        and ANSWER_ONLY are scored by the cross-entropy of the id in slot 0; PAD is not scored.
      weights: [...] loss weights.
      tail: `bucket`, `renormalize` or `drop`; see `divergences` for these four.
      divergence: `forward_kl`, `reverse_kl` or `jsd`.
      temperature: > 0; other than 1 with `renormalize` alone.
      beta: in (0, 1); the teacher's weight in the mixture of `jsd`.

    Returns:
      loss: weighted mean, nats per token. metrics: sums, see `sums.METRICS`.

    Raises:
      ValueError: an unknown name, or a divergence not defined with its tail or temperature.
    """
    logits = logits.reshape(-1, logits.shape[-1]).astype(jnp.float32)
    soft = flatten_soft(soft_targets)
    loss = tokens.divergence(
        logits, soft.ids[:, 0], soft, Rule(divergence, tail, temperature, beta)
    )
    return reduce_tokens(
        loss, scored(_flat_float(weights), soft.kind), soft.kind, by_divergence=True
    )


def flatten_soft(soft: SparseTargets) -> SparseTargets:
    """The same targets with leading dimensions merged to [N], log-probabilities in float32."""
    entries = soft.ids.shape[-1]
    return SparseTargets(
        ids=jnp.reshape(soft.ids, (-1, entries)).astype(jnp.int32),
        logprobs=jnp.reshape(soft.logprobs, (-1, entries)).astype(jnp.float32),
        tail_logprob=_flat_float(soft.tail_logprob),
        kind=jnp.reshape(soft.kind, -1).astype(jnp.int32),
        reason=jnp.reshape(soft.reason, -1).astype(jnp.int32),
    )


def scored(weights: jax.Array, kind: jax.Array) -> jax.Array:
    """[N] weights with 0 where the kind is PAD: nothing scores such a token."""
    return jnp.where(kind == Kind.PAD, 0.0, weights)


def _flat_float(values: jax.Array) -> jax.Array:
    return jnp.reshape(values, -1).astype(jnp.float32)
