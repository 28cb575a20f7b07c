"""Many steps of rows that may be at different places, until the host is wanted.

Letters: `B` rows, `L` tokens of an answer at most, `V` vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.decoding.stepwise import DecodeStep

Array: TypeAlias = Any
"""Of numpy between segments, of JAX within one."""
Choose: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""`choose(logits [B, V], numbers [B], samples [B], places [B]) -> [B]` int32; see `sampling`."""


class Rows(NamedTuple):
    """What is known of each row beside its cache.

    Attributes:
      last: [B] int32, what the next step reads.
      live: [B] bool, whether the row's answer goes on.
      halted: [B] bool, whether it waits for the host.
      waited: [B] int32, steps that it has waited in all.
      tokens: [B, L] int32, the answer so far, and behind it what it must write next.
      lengths: [B] int32, tokens written.
      forced: [B] int32, how many of `tokens` are given, written or not.
      numbers: [B] int32, the question's number.
      samples: [B] int32, which sample of the question it is.
    """

    last: Array
    live: Array
    halted: Array
    waited: Array
    tokens: Array
    lengths: Array
    forced: Array
    numbers: Array
    samples: Array


class Limits(NamedTuple):
    """When a segment ends, beside that no row goes on.

    Attributes:
      ended: rows whose answer ended within it.
      halted: rows that wait.
      steps: of the segment.
    """

    ended: int
    halted: int
    steps: int


def idle(rows: int, max_length: int, pad_id: int) -> Rows:
    """Rows without an answer, in numpy."""
    none, off = np.zeros(rows, np.int32), np.zeros(rows, bool)
    tokens = np.full((rows, max_length), pad_id, np.int32)
    return Rows(*(x.copy() for x in (none, off, off, none, tokens, none, none, none, none)))


def run(
    decode_step: DecodeStep,
    choose: Choose,
    cache: Any,
    rows: Rows,
    limits: Limits,
    *,
    eos_id: int,
    halting: np.ndarray | None,
    spare: int,
) -> tuple[Any, Rows]:
    """Takes steps until the host is wanted; compiled by the caller.

    Args:
      decode_step: next-token logits and the next cache; a token below 0 says that a row waits.
      choose: the next tokens.
      cache: of `B` rows.
      rows: the rows.
      limits: when to end.
      eos_id: ends an answer.
      halting: [V] bool, after which tokens a row waits, unless they were forced; None for none.
      spare: steps that a row may wait in all: the cache has room for so many beyond `L`.

    Returns:
      The cache and the rows.
    """
    started = rows.live

    def unfinished(state: tuple[jax.Array, Any, Rows]) -> jax.Array:
        step, _, rows = state
        halted = rows.live & rows.halted
        wanted = (
            (jnp.sum(started & ~rows.live) >= limits.ended)
            | (jnp.sum(halted) >= limits.halted)
            | jnp.any(halted & (rows.waited >= spare))
        )
        return (step < limits.steps) & jnp.any(rows.live & ~rows.halted) & ~wanted

    def advance(state: tuple[jax.Array, Any, Rows]) -> tuple[jax.Array, Any, Rows]:
        step, cache, rows = state
        active = rows.live & ~rows.halted
        logits, cache = decode_step(cache, jnp.where(active, rows.last, -1))
        chosen = choose(logits, rows.numbers, rows.samples, rows.lengths)
        return step + 1, cache, _written(rows, active, chosen, eos_id, halting)

    begin = (jnp.zeros((), jnp.int32), cache, Rows(*map(jnp.asarray, rows)))
    _, cache, rows = jax.lax.while_loop(unfinished, advance, begin)
    return cache, rows


def _written(
    rows: Rows, active: jax.Array, chosen: jax.Array, eos_id: int, halting: np.ndarray | None
) -> Rows:
    """The rows after a step in which those that are active wrote a token."""
    length = rows.tokens.shape[1]
    here = jnp.arange(length)[None] == rows.lengths[:, None]
    given = jnp.sum(jnp.where(here, rows.tokens, 0), axis=1)
    is_given = rows.lengths < rows.forced
    token = jnp.where(is_given, given, chosen)
    lengths = rows.lengths + active
    ended = active & ((token == eos_id) | (lengths == length))
    halts = jnp.zeros_like(active)
    if halting is not None:
        halts = active & ~ended & ~is_given & jnp.asarray(halting)[token]
    return rows._replace(
        last=jnp.where(active, token, rows.last),
        live=rows.live & ~ended,
        halted=rows.halted | halts,
        waited=rows.waited + (rows.live & rows.halted),
        # A select: a scatter would be a loop over rows.
        tokens=jnp.where(here & active[:, None], token[:, None], rows.tokens),
        lengths=lengths,
    )
