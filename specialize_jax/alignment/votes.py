"""The mode `marginal` of `transfer`: votes of `tokenizers.expand` become distributions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment.sparse import largest, one_hot
from specialize_jax.alignment.types import Votes
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason, SparseTargets

# Votes are made in float64; more than this is no rounding.
_MASS_TOLERANCE = 1e-6


def marginal(
    votes: Any, student_ids: jax.Array, student_lengths: jax.Array | None, k_out: int
) -> SparseTargets:
    """Checks votes and makes targets of them; see `transfer`."""
    if not isinstance(votes, Votes):
        raise ValueError(f"mode 'marginal' needs Votes for candidates, got {type(votes).__name__}")
    shapes = [np.shape(votes.ids)[:-1], *(np.shape(value) for value in votes[2:])]
    if {*shapes} != {student_ids.shape} or np.shape(votes.mass) != np.shape(votes.ids):
        raise ValueError(
            f"expected votes of [B, S, M] and [B, S] with [B, S] = {student_ids.shape}, got "
            f"{[np.shape(value) for value in votes]}"
        )
    if student_lengths is None:
        student_lengths = jnp.full(student_ids.shape[:1], student_ids.shape[1])
    if isinstance(votes.mass, np.ndarray) and not isinstance(student_lengths, jax.core.Tracer):
        inside = np.arange(student_ids.shape[1])[None] < np.asarray(student_lengths)[:, None]
        total = votes.mass.sum(-1) + votes.tail + votes.dropped
        bad = np.argwhere(inside & (votes.reason == Reason.NONE) & ~_is_one(total))
        if bad.size:
            row, position = bad[0].tolist()
            raise ValueError(
                f"row {row}, position {position}: expected votes, tail and dropped mass that sum "
                f"to 1, got {total[row, position]:.7f}"
            )
    return _marginal(
        Votes(*map(jnp.asarray, votes)), student_ids, jnp.asarray(student_lengths), k_out=k_out
    )


def _is_one(total: np.ndarray) -> np.ndarray:
    return np.abs(total - 1.0) < _MASS_TOLERANCE  # NaN is not


@functools.partial(jax.jit, static_argnames="k_out")
def _marginal(
    votes: Votes, student_ids: jax.Array, student_lengths: jax.Array, *, k_out: int
) -> SparseTargets:
    """Sums votes per id, divides the dropped mass away and keeps the largest."""
    inside = jnp.arange(student_ids.shape[1])[None, :] < student_lengths[:, None]
    voted = inside & (votes.reason == Reason.NONE)
    mass = jnp.where(voted[..., None], votes.mass, 0.0)
    same = votes.ids[..., :, None] == votes.ids[..., None, :]
    summed = jnp.where(same, mass[..., None, :], 0.0).sum(-1)
    # An id keeps its sum in its first slot with mass; the others are emptied.
    before = jnp.tri(mass.shape[-1], k=-1, dtype=bool)[None, None]
    earlier = before & same & (mass > 0)[..., None, :]
    is_first = (mass > 0) & ~earlier.any(-1)
    # What was not dropped, without the rounding of `1 - dropped`.
    kept = jnp.where(voted, mass.sum(-1) + votes.tail, 1.0)
    share = summed / kept[..., None]
    is_used = is_first & (share > 0)
    logprobs = jnp.where(is_used, jnp.log(jnp.where(is_used, share, 1.0)), UNUSED_LOGPROB)
    ids, logprobs, tail = largest(
        jnp.where(is_used, votes.ids, 0), jnp.minimum(logprobs, 0.0), k_out
    )
    one_hot_ids, one_hot_logprobs = one_hot(student_ids, inside, k_out)
    kind = jnp.where(inside, jnp.where(voted, Kind.TRANSFERRED, Kind.ONE_HOT), Kind.PAD)
    return SparseTargets(
        ids=jnp.where(voted[..., None], ids, one_hot_ids),
        logprobs=jnp.where(voted[..., None], logprobs, one_hot_logprobs),
        tail_logprob=jnp.where(voted, tail, UNUSED_LOGPROB),
        kind=kind.astype(jnp.int32),
        reason=jnp.where(inside & ~voted, votes.reason, Reason.NONE).astype(jnp.int32),
    )
