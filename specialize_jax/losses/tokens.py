"""The loss of single tokens from their logits.

Letters: `N` tokens, `V` student vocabulary, `K` listed entries of the teacher's distribution.

Every token is scored against a *listed* distribution: up to `K` ids with log-probabilities, and
the log of what is not listed. A sampled token is the distribution with one entry of probability 1,
for which the forward KL is the cross-entropy; so one function serves both objectives.

What the student gives to the listed ids and to all others is taken apart once (`_split`), as
log-sum-exps over disjoint sets. Nothing is ever computed as `1 - sum`, which loses all digits where
the teacher is sure. There is no dense `[N, V]` teacher.
"""

import jax
import jax.numpy as jnp

from specialize_jax.losses.divergences import USED_ABOVE, Rule, kl
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, SparseTargets

OBJECTIVES = ("match_distribution", "match_sample")


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Negative log-likelihood of the target ids.

    Args:
      logits: [N, V] float32.
      targets: [N] int32, in [0, V).

    Returns:
      [N] float32, nats.
    """
    listed, rest = _split(logits, targets[:, None])
    return _log_normalizer(listed, rest) - listed[:, 0]


def divergence(logits: jax.Array, targets: jax.Array, soft: SparseTargets, rule: Rule) -> jax.Array:
    """Divergence from the teacher for transferred tokens, cross-entropy for all others.

    Args:
      logits: [N, V] float32.
      targets: [N] int32; the id that scores tokens of kind ONE_HOT and ANSWER_ONLY.
      soft: `SparseTargets` with leading dimension [N].
      rule: which divergence.

    Returns:
      [N] float32, nats. Tokens of kind PAD get the cross-entropy too: give them weight 0.

    Source: 2301.12726, section 3.
    """
    is_soft = soft.kind == Kind.TRANSFERRED
    used = jnp.where(is_soft[:, None], soft.logprobs > USED_ABOVE, _first_slot(soft.ids))
    ids = jnp.where(is_soft[:, None], soft.ids, targets[:, None])
    log_p = jnp.where(is_soft[:, None] & used, soft.logprobs, 0.0)
    log_t = jnp.where(is_soft, soft.tail_logprob, UNUSED_LOGPROB)
    log_p, log_t = rule.teacher(log_p, log_t, used)
    if rule.temperature != 1.0:
        logits = logits / jnp.where(is_soft, rule.temperature, 1.0)[:, None]
    # An unused slot holds id 0, which is a real id: it must not hide it, so it points outside.
    listed, rest = _split(logits, jnp.where(used, ids, logits.shape[-1]))
    log_z = _log_normalizer(listed, rest)
    log_q = jnp.where(used, listed - log_z[:, None], 0.0)
    loss = rule.value(log_p, log_q, log_t, rest - log_z, used)
    return jnp.where(is_soft, loss, kl(log_p, log_q, used))


def _first_slot(ids: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(ids.shape[-1]) == 0, ids.shape)


def _log_normalizer(listed: jax.Array, rest: jax.Array) -> jax.Array:
    """[N] log-sum-exp over all of V, from its two disjoint parts."""
    return jax.nn.logsumexp(jnp.concatenate([listed, rest[:, None]], axis=-1), axis=-1)


@jax.custom_vjp
def _split(logits: jax.Array, slots: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits at the listed ids, and the log-sum-exp of all others.

    Differentiated by hand because the derivative at the listed ids is known in sparse form: one
    dense pass, as for cross-entropy, where the automatic rule makes three.

    Args:
      logits: [N, V].
      slots: [N, K] int32 ids, different within a row; V marks an unused slot.

    Returns:
      listed: [N, K]; -inf in unused slots. rest: [N]; -inf where the slots cover V.
    """
    listed = jnp.take_along_axis(logits, slots, axis=-1, mode="fill", fill_value=-jnp.inf)
    return listed, jax.nn.logsumexp(_without(logits, slots), axis=-1)


def _split_forward(
    logits: jax.Array, slots: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    listed, rest = _split(logits, slots)
    return (listed, rest), (logits, slots, rest)


def _split_backward(
    residuals: tuple[jax.Array, jax.Array, jax.Array], cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None]:
    logits, slots, rest = residuals
    to_listed, to_rest = cotangents
    # With nothing outside the list every entry below is exp(-inf) = 0, given a finite shift.
    shift = jnp.where(rest > -jnp.inf, rest, 0.0)
    dense = to_rest[:, None] * jnp.exp(_without(logits, slots) - shift[:, None])
    return jax.vmap(lambda row, at, value: row.at[at].add(value, mode="drop"))(
        dense, slots, to_listed
    ), None


_split.defvjp(_split_forward, _split_backward)


def _without(logits: jax.Array, slots: jax.Array) -> jax.Array:
    """[N, V] logits with -inf at the listed ids."""
    return jax.vmap(lambda row, at: row.at[at].set(-jnp.inf, mode="drop"))(logits, slots)
