"""What a model says of tokens that are given: their log-probabilities, and the likeliest others.

Letters: `B` rows, `S` tokens, `V` vocabulary, `K` candidates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from specialize_jax.decoding import stepwise


class Scores(NamedTuple):
    """Log-probabilities of given tokens; all are natural, at temperature 1.

    Attributes:
      logprobs: [B, S] float32, of the tokens.
      topk_ids: [B, S, K] int32, the most probable tokens of each step, best first.
      topk_logprobs: [B, S, K] float32.
    """

    logprobs: jax.Array
    topk_ids: jax.Array
    topk_logprobs: jax.Array


def score(
    decode_step: stepwise.DecodeStep,
    cache: Any,
    tokens: jax.Array,
    *,
    top_k: int,
    start_tokens: jax.Array | int = 0,
) -> Scores:
    """Reads tokens one by one, with the steps that would have written them.

    So the numbers are those by which `greedy` and `sample` choose, and a teacher's records can be
    made of any text: its own, or one that somebody else wrote.

    Args:
      decode_step: see `greedy`.
      cache: see `greedy`; `S` steps must fit in it.
      tokens: [B, S] int32; what is said of padding means nothing.
      top_k: `K`, in [0, V].
      start_tokens: see `greedy`.

    Raises:
      ValueError: `top_k` is negative.
    """
    if top_k < 0:
        raise ValueError(f"expected top_k >= 0, got {top_k}")
    first = jnp.broadcast_to(jnp.asarray(start_tokens, jnp.int32), tokens.shape[:1])

    def read(carry: tuple[Any, jax.Array], token: jax.Array) -> tuple[tuple[Any, jax.Array], Any]:
        step_cache, last = carry
        logits, step_cache = decode_step(step_cache, last)
        logprobs = jax.nn.log_softmax(logits.astype(jnp.float32))
        own = jnp.take_along_axis(logprobs, token[:, None], axis=1)[:, 0]
        best, ids = jax.lax.top_k(logprobs, top_k)
        return (step_cache, token), (own, ids, best)

    _, found = jax.lax.scan(read, (cache, first), jnp.asarray(tokens, jnp.int32).T)
    return Scores(*(jnp.moveaxis(value, 0, 1) for value in found))
