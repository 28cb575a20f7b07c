"""What greedy decoding and sampling share: a loop in which every row takes one token at a time.

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


def decode(
    choose: Callable[[jax.Array, jax.Array], jax.Array],
    decode_step: DecodeStep,
    cache: Any,
    *,
    batch_size: int,
    max_length: int,
    eos_id: int,
    start_tokens: jax.Array | int,
    pad_id: int,
) -> tuple[jax.Array, jax.Array]:
    """Decodes until every row has ended or is full; see `greedy` for what is not named here.

    Args:
      choose: `choose(logits [B, V], step [] int32) -> [B]` int32, the next tokens.
      decode_step: next-token logits and the next cache.
      cache: for the first call of `decode_step`.
      batch_size: `B`.
      max_length: tokens per row at most.
      eos_id: the token that ends a row.
      start_tokens: what the first step reads.
      pad_id: what stands after a row's end.

    Returns:
      tokens [B, max_length] int32, and lengths [B] int32.
    """

    def unfinished(state: _State) -> jax.Array:
        return (state.step < max_length) & ~jnp.all(state.done)

    def advance(state: _State) -> _State:
        logits, next_cache = decode_step(state.cache, state.last)
        chosen = jnp.where(state.done, pad_id, choose(logits, state.step))
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


def repeat(cache: Any, times: int) -> Any:
    """A cache in which every row stands several times in a row, so that it is encoded once.

    Args:
      cache: of `Model.init_cache`: arrays with a leading `B`, and scalars.
      times: samples of each row.

    Returns:
      The cache of `B` times `times` rows: row `i` of the given one is rows `i * times` and on.
    """
    return jax.tree.map(lambda x: x if x.ndim == 0 else jnp.repeat(x, times, axis=0), cache)
