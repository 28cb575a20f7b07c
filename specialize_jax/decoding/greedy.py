"""The most likely token at every step.

Letters: `B` rows, `V` vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

DecodeStep: TypeAlias = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
"""`decode_step(cache, tokens [B] int32) -> (logits [B, V], cache)` with the cache's shapes kept."""


class _State(NamedTuple):
    step: jax.Array  # [] int32: steps taken
    last: jax.Array  # [B] int32: what the next step reads
    done: jax.Array  # [B] bool: the end-of-sequence token was emitted
    tokens: jax.Array  # [B, max_length] int32
    lengths: jax.Array  # [B] int32
    cache: Any


def greedy(
    decode_step: DecodeStep,
    cache: Any,
    *,
    batch_size: int,
    max_length: int,
    eos_id: int,
    start_tokens: jax.Array | int = 0,
    pad_id: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Decodes until every row has ended or is full.

    Args:
      decode_step: next-token logits and the next cache. Rows that have ended are given `pad_id`,
        and what they return is not read.
      cache: a pytree for the first call of `decode_step`; `max_length` steps must fit in it.
      batch_size: `B`.
      max_length: tokens per row at most, the end-of-sequence token included.
      eos_id: the token that ends a row.
      start_tokens: what the first step reads, [B] or one for all rows (`Model.start_tokens`); not
        part of the result.
      pad_id: what stands after a row's end.

    Returns:
      tokens: [B, max_length] int32.
      lengths: [B] int32, tokens before the padding, the end-of-sequence token included.
    """

    def unfinished(state: _State) -> jax.Array:
        return (state.step < max_length) & ~jnp.all(state.done)

    def advance(state: _State) -> _State:
        logits, next_cache = decode_step(state.cache, state.last)
        chosen = _most_likely(logits)
        chosen = jnp.where(state.done, pad_id, chosen)
        return _State(
            step=state.step + 1,
            last=chosen,
            done=state.done | (chosen == eos_id),
            tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, chosen, state.step, axis=1),
            lengths=state.lengths + ~state.done,
            cache=next_cache,
        )

    start = _State(
        step=jnp.zeros((), jnp.int32),
        last=jnp.broadcast_to(jnp.asarray(start_tokens, jnp.int32), (batch_size,)),
        done=jnp.zeros((batch_size,), bool),
        tokens=jnp.full((batch_size, max_length), pad_id, jnp.int32),
        lengths=jnp.zeros((batch_size,), jnp.int32),
        cache=cache,
    )
    end = jax.lax.while_loop(unfinished, advance, start)
    return end.tokens, end.lengths


def _most_likely(logits: jax.Array) -> jax.Array:
    """The first index of the largest logit: [B, V] -> [B] int32.

    `jnp.argmax` carries value and index through one scalar loop on CPUs; two plain reductions
    vectorise and take a fraction of its time.
    """
    highest = jnp.max(logits, axis=-1, keepdims=True)
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    return jnp.min(jnp.where(logits == highest, ids, logits.shape[-1]), axis=-1)
