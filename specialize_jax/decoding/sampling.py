"""Drawing the next token, at a temperature and from the head of the distribution alone.

What a row draws depends on (seed, its question's number, the sample's number, step), never on the
rows beside it: the same question gives the same samples in a batch of any size and at any place.

Letters: `B` rows, `V` vocabulary, `k` tokens that may be drawn.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from specialize_jax.decoding import stepwise


def sample(
    decode_step: stepwise.DecodeStep,
    cache: Any,
    *,
    seed: jax.Array | int,
    row_numbers: jax.Array,
    sample_numbers: jax.Array | int = 0,
    temperature: jax.Array | float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    max_length: int,
    eos_id: int,
    start_tokens: jax.Array | int = 0,
    pad_id: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Draws until every row has ended or is full.

    Logits are divided by the temperature, then cut to the `top_k` largest, then to the smallest
    head that holds `top_p` of the probability: the order of Hugging Face's `generate`. With
    `top_k=1` the result is `greedy`'s.

    Args:
      decode_step: see `greedy`.
      cache: see `greedy`.
      seed: of all draws.
      row_numbers: [B] int32, which question of the whole job each row answers.
      sample_numbers: [B] int32 or one for all, which of a question's samples each row is.
      temperature: above 0; below 1 likely tokens gain.
      top_k: how many of the most likely tokens may be drawn; of equal ones those with smaller ids.
        None for all.
      top_p: in (0, 1]; a token may be drawn if the ones before it hold less than this.
      max_length: see `greedy`.
      eos_id: see `greedy`.
      start_tokens: see `greedy`.
      pad_id: see `greedy`.

    Returns:
      tokens [B, max_length] int32, and lengths [B] int32, as `greedy`.

    Raises:
      ValueError: `top_k`, `top_p` or a temperature that is a plain number is out of range.
    """
    draw = drawer(seed, temperature, top_k, top_p)
    numbers = jnp.broadcast_to(jnp.asarray(sample_numbers, jnp.int32), row_numbers.shape)

    def choose(logits: jax.Array, step: jax.Array) -> jax.Array:
        return draw(logits, row_numbers, numbers, jnp.broadcast_to(step, row_numbers.shape))

    return stepwise.decode(
        choose,
        decode_step,
        cache,
        batch_size=row_numbers.shape[0],
        max_length=max_length,
        eos_id=eos_id,
        start_tokens=start_tokens,
        pad_id=pad_id,
    )


def drawer(
    seed: jax.Array | int,
    temperature: jax.Array | float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns `draw(logits [B, V], row_numbers [B], sample_numbers [B], steps [B]) -> [B]` int32.

    Args:
      seed: see `sample`, as all of them.
      temperature: above 0.
      top_k: how many may be drawn.
      top_p: what share may be drawn.

    Raises:
      ValueError: as `sample`.
    """
    _check(temperature, top_k, top_p)

    def of_row(logits: jax.Array, row: jax.Array, number: jax.Array, step: jax.Array) -> jax.Array:
        key = jax.random.key(seed)
        for folded in (row, number, step):
            key = jax.random.fold_in(key, folded)
        return jax.random.categorical(key, logits)

    def draw(
        logits: jax.Array, row_numbers: jax.Array, sample_numbers: jax.Array, steps: jax.Array
    ) -> jax.Array:
        scaled, ids = head(logits / temperature, top_k, top_p)
        places = jax.vmap(of_row)(scaled, row_numbers, sample_numbers, steps)
        return jnp.take_along_axis(ids, places[:, None], axis=1)[:, 0]

    return draw


def head(logits: jax.Array, top_k: int | None, top_p: float) -> tuple[jax.Array, jax.Array]:
    """The tokens that may be drawn, the most likely first.

    Args:
      logits: [B, V].
      top_k: see `sample`.
      top_p: see `sample`.

    Returns:
      logits [B, k], -inf for what may not be drawn, and ids [B, k] int32. Where nothing is cut,
      `k` is `V` and ids are in order.
    """
    size = logits.shape[-1]
    if top_k is None and top_p == 1:
        return logits, jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    kept, ids = jax.lax.top_k(logits, min(top_k or size, size))
    share = jax.nn.softmax(kept, axis=-1)
    before = jnp.cumsum(share, axis=-1) - share
    # Not the first: what stands before it is 0 but for rounding.
    cut = (before >= top_p).at[:, 0].set(False)
    return jnp.where(cut, -jnp.inf, kept), ids


def _check(temperature: Any, top_k: int | None, top_p: float) -> None:
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"expected temperature > 0, got {temperature}; for 0 use greedy")
    if top_k is not None and top_k < 1:
        raise ValueError(f"expected top_k >= 1 or None, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"expected top_p in (0, 1], got {top_p}")
