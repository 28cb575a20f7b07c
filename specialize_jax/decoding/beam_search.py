"""Beam search: the most probable sequences that keeping a few candidates a step finds.

Letters: `B` rows, `N` beams, `L` longest length, `V` vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from specialize_jax.decoding import stepwise


class _State(NamedTuple):
    step: jax.Array  # [] int32
    live: jax.Array  # [B, N, L] int32: what goes on
    live_scores: jax.Array  # [B, N] float32: log-probabilities
    ended: jax.Array  # [B, N, L] int32: what is complete
    ended_scores: jax.Array  # [B, N] float32: with the length counted in
    cache: Any


def beam(
    decode_step: stepwise.DecodeStep,
    cache: Any,
    *,
    batch_size: int,
    num_beams: int,
    max_length: int,
    eos_id: int,
    start_tokens: jax.Array | int = 0,
    pad_id: int = 0,
    length_penalty: float = 0.6,
) -> tuple[jax.Array, jax.Array]:
    """Searches for the best sequences of every row.

    A sequence counts as its log-probability over ((5 + length) / 6) ** length_penalty
    ([Wu et al. 2016](https://arxiv.org/abs/1609.08144), as in t5x). One that has not ended at
    `max_length` counts like one that has, but only where fewer than `N` have ended.

    Args:
      decode_step: see `greedy`; it is called with `B` times `N` rows.
      cache: of `B` rows; it is repeated here.
      batch_size: `B`.
      num_beams: `N`, candidates that go on at a time, and sequences returned.
      max_length: `L`, tokens at most, the end-of-sequence token included.
      eos_id: the token that ends a sequence.
      start_tokens: see `greedy`, [B] or one for all.
      pad_id: what stands after an end.
      length_penalty: 0 for none; above, longer sequences gain.

    Returns:
      tokens [B, N, L] int32 and scores [B, N] float32, the best first; a score of -inf says
      that there is no such sequence.

    Raises:
      ValueError: `num_beams` is below 1, or `length_penalty` below 0.
    """
    if num_beams < 1:
        raise ValueError(f"expected num_beams >= 1, got {num_beams}")
    if length_penalty < 0:  # nothing could be said of sequences that go on
        raise ValueError(f"expected length_penalty >= 0, got {length_penalty}")
    rows, length = (batch_size, num_beams), max_length
    first = jnp.broadcast_to(jnp.asarray(start_tokens, jnp.int32), (batch_size,))
    first = jnp.repeat(first, num_beams)

    def penalty(tokens: jax.Array | int) -> jax.Array:
        return ((5.0 + tokens) / 6.0) ** length_penalty

    def unfinished(state: _State) -> jax.Array:
        # Scores of what goes on can only fall; the longest length favours them most.
        best = state.live_scores.max(axis=1) / penalty(length)
        hopeful = jnp.any(best > state.ended_scores.min(axis=1))
        return (state.step < length) & hopeful

    def advance(state: _State) -> _State:
        last = state.live[:, :, jnp.maximum(state.step - 1, 0)].reshape(-1)
        last = jnp.where(state.step == 0, first, last)
        logits, next_cache = decode_step(state.cache, last)
        logprobs = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(*rows, -1)
        scores = (state.live_scores[:, :, None] + logprobs).reshape(batch_size, -1)
        # Of twice as many candidates at most half end, so that enough go on.
        kept = min(2 * num_beams, scores.shape[1])
        scores, places = jax.lax.top_k(scores, kept)
        parents, tokens = places // logprobs.shape[-1], places % logprobs.shape[-1]
        candidates = _take(state.live, parents)
        candidates = candidates.at[:, :, state.step].set(tokens)
        ends = tokens == eos_id

        finished = jnp.where(ends, scores / penalty(state.step + 1), -jnp.inf)
        all_ended = jnp.concatenate([state.ended, candidates], axis=1)
        all_scores = jnp.concatenate([state.ended_scores, finished], axis=1)
        ended_scores, best = jax.lax.top_k(all_scores, num_beams)

        live_scores, alive = jax.lax.top_k(jnp.where(ends, -jnp.inf, scores), num_beams)
        origin = jnp.take_along_axis(parents, alive, axis=1)
        return _State(
            step=state.step + 1,
            live=_take(candidates, alive),
            live_scores=live_scores,
            ended=_take(all_ended, best),
            ended_scores=ended_scores,
            cache=_reorder(next_cache, origin),
        )

    blank = jnp.full((*rows, length), pad_id, jnp.int32)
    low = jnp.full(rows, -jnp.inf, jnp.float32)
    end = jax.lax.while_loop(
        unfinished,
        advance,
        _State(
            step=jnp.zeros((), jnp.int32),
            live=blank,
            live_scores=low.at[:, 0].set(0.0),  # at first all beams are the same one
            ended=blank,
            ended_scores=low,
            cache=stepwise.repeat(cache, num_beams),
        ),
    )
    # Slots that no ended sequence fills go to what was cut off.
    filled = jnp.sum(end.ended_scores > -jnp.inf, axis=1, keepdims=True)
    slots = jnp.arange(num_beams)[None]
    places = jnp.where(slots < filled, slots, num_beams + slots - filled)
    scores = jnp.concatenate([end.ended_scores, end.live_scores / penalty(length)], axis=1)
    tokens = jnp.concatenate([end.ended, end.live], axis=1)
    return _take(tokens, places), jnp.take_along_axis(scores, places, axis=1)


def _take(sequences: jax.Array, places: jax.Array) -> jax.Array:
    """[B, N, L] and [B, M] -> [B, M, L]."""
    return jnp.take_along_axis(sequences, places[:, :, None], axis=1)


def _reorder(cache: Any, origin: jax.Array) -> Any:
    """The cache in which every beam has that of the beam which it goes on from."""
    batch_size, num_beams = origin.shape
    rows = (origin + num_beams * jnp.arange(batch_size)[:, None]).reshape(-1)
    return jax.tree.map(lambda x: x if x.ndim == 0 else x[rows], cache)
