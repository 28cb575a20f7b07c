"""The losses from hidden states, with logits that exist one chunk of tokens at a time.

At T5's vocabulary (32,128) the logits of a batch are the largest array of a training step: 8.4 GB
in float32 for 128 x 512 tokens, and as much again for their gradient. Here the projection to the
vocabulary and the loss run chunk by chunk, and the backward pass computes each chunk's logits
again, so peak memory does not grow with the number of tokens. The price is one more matmul of the
size of the projection (three become four), unless one chunk holds all tokens.

On a mesh two habits keep the loop free of communication (`data_shards`): every chunk takes the same
share of tokens from every shard, so no chunk lives on one device; and each shard adds the gradient
of the unembedding to its own copy, so the copies are summed once after the loop and not once a
chunk.
"""

import jax
import jax.numpy as jnp

from specialize_jax.losses import tokens
from specialize_jax.losses.divergences import Rule, check_choice
from specialize_jax.losses.sums import reduce_tokens
from specialize_jax.losses.thin import flatten_soft, scored
from specialize_jax.schemas import SparseTargets


def chunked(
    hidden: jax.Array,
    unembed: jax.Array,
    targets: jax.Array,
    soft: SparseTargets | None,
    weights: jax.Array,
    *,
    objective: str = "match_distribution",
    divergence: str = "forward_kl",
    tail: str = "bucket",
    temperature: float = 1.0,
    beta: float = 0.5,
    chunk: int = 1024,
    normalizer: jax.Array | float | None = None,
    groups: jax.Array | None = None,
    num_groups: int = 0,
    data_shards: int = 1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores `N` tokens against the teacher from their hidden states.

    Letters: `N` tokens, `D` model width, `V` student vocabulary, `K` listed entries.

    Args:
      hidden: [N, D] in the compute type (float32 or bfloat16); the matmul's inputs have this type,
        its result, the softmax and the loss are float32.
      unembed: [D, V]; its gradient has its own type and is accumulated in it.
      targets: [N] int32 ids.
      soft: `SparseTargets` with leading dimension [N]; may be None for `match_sample`.
      weights: [N] loss weights, 0 for tokens that do not count.
      objective: `match_distribution` (the divergence where the kind is TRANSFERRED, cross-entropy
        where it is ONE_HOT or ANSWER_ONLY, nothing where it is PAD) or `match_sample`.
      divergence: `forward_kl`, `reverse_kl` or `jsd`; see `divergences` for these four.
      tail: what happens to unlisted mass: `bucket`, `renormalize` or `drop`.
      temperature: > 0; other than 1 with `renormalize` alone.
      beta: in (0, 1); the teacher's weight in the mixture of `jsd`.
      chunk: tokens, per data shard, whose logits exist at a time. Chunks are of equal size, at most
        this; the last is filled with tokens of weight 0.
      normalizer: divides the weighted sum: None for `sum(weights)`, 1.0 to get the sum itself.
      groups: [N] int32 in [0, num_groups), for example `decoder_format` of each token.
      num_groups: how many groups the metrics tell apart.
      data_shards: into how many equal contiguous parts the tokens are sharded (the mesh's "data"
        axis). The result does not depend on it, only what moves between devices.

    Returns:
      loss: `sum(weights * token_loss) / normalizer`, nats. metrics: sums, see `sums.METRICS`.

    Raises:
      ValueError: unknown objective, a divergence that is not defined with its tail or temperature,
        no soft targets where the objective needs them, or N that `data_shards` does not divide.
    """
    check_choice("objective", objective, tokens.OBJECTIVES)
    rule = Rule(divergence, tail, temperature, beta)
    by_divergence = objective == "match_distribution"
    if by_divergence and soft is None:
        raise ValueError("objective 'match_distribution' needs soft targets, got soft=None.")
    count = hidden.shape[0]
    if count % data_shards or chunk < 1:
        raise ValueError(
            f"Expected chunk >= 1 and a token count that data_shards divides, got {chunk=}, "
            f"{count} tokens and {data_shards=}."
        )
    weights = weights.astype(jnp.float32)
    kind = None
    if soft is not None:
        soft = flatten_soft(soft)
        kind = soft.kind
    if by_divergence and kind is not None:
        weights = scored(weights, kind)
    token_loss = _token_losses(
        hidden, unembed, targets, soft if by_divergence else None, rule, chunk, data_shards
    )
    return reduce_tokens(
        token_loss,
        weights,
        kind,
        by_divergence=by_divergence,
        normalizer=normalizer,
        groups=groups,
        num_groups=num_groups,
    )


def _token_losses(
    hidden: jax.Array,
    unembed: jax.Array,
    targets: jax.Array,
    soft: SparseTargets | None,
    rule: Rule,
    chunk: int,
    data_shards: int,
) -> jax.Array:
    """[N] float32 losses; cross-entropy where `soft` is None."""
    count = hidden.shape[0]
    local = count // data_shards
    num_chunks = max(1, -(-local // chunk))
    rows = -(-local // num_chunks)
    # One copy a shard (on a mesh: each device's own), summed by this broadcast's transpose.
    unembed = jnp.broadcast_to(unembed[None], (data_shards, *unembed.shape))

    def score(part: tuple[jax.Array, jax.Array, SparseTargets | None]) -> jax.Array:
        hidden, targets, soft = jax.tree.map(_merge_two, part)
        logits = _merge_two(_project(hidden.reshape(data_shards, rows, -1), unembed))
        if soft is None:
            loss = tokens.cross_entropy(logits, targets)
        else:
            loss = tokens.divergence(logits, targets, soft, rule)
        return loss.reshape(data_shards, rows)

    def split(array: jax.Array) -> jax.Array:
        """[N, ...] -> [chunks, shards, rows, ...], with zeros at the end of every shard."""
        array = array.reshape(data_shards, local, *array.shape[1:])
        padding = [(0, 0), (0, num_chunks * rows - local)] + [(0, 0)] * (array.ndim - 2)
        array = jnp.pad(array, padding)
        return array.reshape(data_shards, num_chunks, rows, *array.shape[2:]).swapaxes(0, 1)

    parts = jax.tree.map(split, (hidden, targets, soft))
    if num_chunks == 1:
        # The logits are the only ones either way: kept, they need not be computed again.
        losses = score(jax.tree.map(lambda part: part[0], parts))[None]
    else:
        # In a scan nothing can be merged across iterations, so no barrier against it is needed.
        losses = jax.lax.map(jax.checkpoint(score, prevent_cse=False), parts)
    return losses.swapaxes(0, 1).reshape(data_shards, -1)[:, :local].reshape(count)


def _merge_two(array: jax.Array) -> jax.Array:
    """[A, B, ...] -> [A * B, ...]."""
    return array.reshape(-1, *array.shape[2:])


@jax.custom_vjp
def _project(hidden: jax.Array, unembed: jax.Array) -> jax.Array:
    """[G, n, D] x [G, D, V] -> [G, n, V] float32; inputs in the type of `hidden`.

    Differentiated by hand for types alone: the automatic rule multiplies the float32 gradient of
    the logits as it is, at several times the cost of a bfloat16 matmul, and would round the
    gradient of a cast unembedding at every chunk.
    """
    return jnp.einsum(
        "gnd,gdv->gnv",
        hidden,
        unembed.astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )


def _project_forward(
    hidden: jax.Array, unembed: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _project(hidden, unembed), (hidden, unembed)


def _project_backward(
    residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    hidden, unembed = residuals
    gradient = gradient.astype(hidden.dtype)
    to_hidden = jnp.einsum(
        "gnv,gdv->gnd",
        gradient,
        unembed.astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )
    to_unembed = jnp.einsum("gnd,gnv->gdv", hidden, gradient, preferred_element_type=jnp.float32)
    return to_hidden.astype(hidden.dtype), to_unembed.astype(unembed.dtype)


_project.defvjp(_project_forward, _project_backward)
