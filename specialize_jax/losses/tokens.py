"""The loss of single tokens from their logits.

Letters: `N` tokens, `V` student vocabulary, `K` listed entries of the teacher's distribution.

Every token is scored against a *listed* distribution: up to `K` ids with log-probabilities, and
the log of what is not listed. A sampled token is the distribution with one entry of probability 1,
for which the forward KL is the cross-entropy; so one function serves both objectives.

What the student gives to the listed ids and to all others is taken apart once (`_split`), as
log-sum-exps over disjoint sets. Nothing is ever computed as `1 - sum`, which loses all digits where
the teacher is sure. There is no dense `[N, V]` teacher.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from specialize_jax.schemas import UNUSED_LOGPROB, Kind, SparseTargets

OBJECTIVES = ("match_distribution", "match_sample")

# Unused slots hold UNUSED_LOGPROB (-1e4), which float16 stores as -1e4 exactly; the margin lets a
# file that went through another precision still read as unused.
_USED_ABOVE = 0.9 * UNUSED_LOGPROB


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises a ValueError that lists the choices unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"Unknown {name} {value!r}; choose one of: {', '.join(choices)}.")


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


def divergence(
    logits: jax.Array, targets: jax.Array, soft: SparseTargets, *, tail: str = "bucket"
) -> jax.Array:
    """Forward KL from the teacher for transferred tokens, cross-entropy for all others.

    With `p_k` the listed teacher probabilities, `t` the teacher's tail mass, `q` the student's
    probabilities over all of V and `r` its mass outside the listed ids:

    - `bucket`: `sum_k p_k log(p_k / q_k) + t log(t / r)`; the tail is one more outcome. Exact KL
      where the list covers V, a lower bound of it elsewhere (data processing inequality).
    - `renormalize`: `sum_k p'_k log(p'_k / q_k)` with `p'_k = p_k / sum_k p_k`. The student is not
      renormalised: it is drawn to give nothing to ids that are not listed.
    - `drop`: `sum_k p_k log(p_k / (q_k + 1e-10) + 1e-10)`, the paper's expression over the listed
      entries, unnormalised; a token's pull is scaled by its listed mass.

    Args:
      logits: [N, V] float32.
      targets: [N] int32; the id that scores tokens of kind ONE_HOT and ANSWER_ONLY.
      soft: `SparseTargets` with leading dimension [N].
      tail: a name in `TAILS`.

    Returns:
      [N] float32, nats. Tokens of kind PAD get the cross-entropy too: give them weight 0.

    Raises:
      ValueError: unknown `tail`.

    Source: 2301.12726, section 3 and `kl_divergence` of its code (`drop`).
    """
    check_choice("tail", tail, TAILS)
    is_soft = soft.kind == Kind.TRANSFERRED
    used = jnp.where(is_soft[:, None], soft.logprobs > _USED_ABOVE, _first_slot(soft.ids))
    ids = jnp.where(is_soft[:, None], soft.ids, targets[:, None])
    log_p = jnp.where(is_soft[:, None] & used, soft.logprobs, 0.0)
    log_t = jnp.where(is_soft, soft.tail_logprob, UNUSED_LOGPROB)
    # An unused slot holds id 0, which is a real id: it must not hide it, so it points outside.
    listed, rest = _split(logits, jnp.where(used, ids, logits.shape[-1]))
    log_z = _log_normalizer(listed, rest)
    log_q = jnp.where(used, listed - log_z[:, None], 0.0)
    p = jnp.where(used, jnp.exp(log_p), 0.0)
    loss = _TAIL_FUNCTIONS[tail](p, log_p, log_q, log_t, rest - log_z)
    return jnp.where(is_soft, loss, _listed_kl(p, log_p, log_q))


def _first_slot(ids: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(ids.shape[-1]) == 0, ids.shape)


def _listed_kl(p: jax.Array, log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return jnp.sum(p * (log_p - log_q), axis=-1)


def _bucket(
    p: jax.Array, log_p: jax.Array, log_q: jax.Array, log_t: jax.Array, log_r: jax.Array
) -> jax.Array:
    # Where the list covers V there is no other outcome left to hold a tail.
    has_tail = (log_t > _USED_ABOVE) & (log_r > -jnp.inf)
    log_t = jnp.where(has_tail, log_t, 0.0)
    term = jnp.exp(log_t) * (log_t - jnp.where(has_tail, log_r, 0.0))
    return _listed_kl(p, log_p, log_q) + jnp.where(has_tail, term, 0.0)


def _renormalize(
    p: jax.Array, log_p: jax.Array, log_q: jax.Array, log_t: jax.Array, log_r: jax.Array
) -> jax.Array:
    del log_t, log_r
    mass = jnp.sum(p, axis=-1, keepdims=True)
    mass = jnp.where(mass > 0, mass, 1.0)
    return _listed_kl(p / mass, log_p - jnp.log(mass), log_q)


def _drop(
    p: jax.Array, log_p: jax.Array, log_q: jax.Array, log_t: jax.Array, log_r: jax.Array
) -> jax.Array:
    del log_p, log_t, log_r
    return jnp.sum(p * jnp.log(p / (jnp.exp(log_q) + 1e-10) + 1e-10), axis=-1)


_TAIL_FUNCTIONS: dict[str, Callable[..., jax.Array]] = {
    "bucket": _bucket,
    "renormalize": _renormalize,
    "drop": _drop,
}
TAILS = tuple(_TAIL_FUNCTIONS)


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
