"""The papers' dynamic program, batched and jitted: dynamic time warping over token costs.

`D[i, j] = c[i, j] + min(D[i-1, j-1], D[i-1, j], D[i, j-1])` (https://arxiv.org/abs/2301.12726), one
anti-diagonal of the whole batch at a time. Three choices make it fast:

- The batch is the minor dimension and lane `i` of diagonal `d` is cell `(i, d - i)`: the three
  predecessors are then whole rows of the two diagonals before, shifted by at most one lane.
- A cell is `4 * D + move`. Clearing the low bits of a predecessor and setting them to the rank of
  the move makes `min` choose the papers' tie order, and leaves the move where the walk back finds
  it.
- Nothing is masked. A cell outside the matrix has an infinite predecessor and cost 0, so it stays
  infinite; a cell behind the end of an example is never a predecessor of one inside it.

Letters: `B` batch, `T` teacher tokens, `S` student tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment import band as band_lib
from specialize_jax.alignment.cells import LEFT, MOVE_BITS, MOVE_MASK, UP, infinity
from specialize_jax.alignment.reference import INT32_MAX
from specialize_jax.alignment.types import Path

_Walk = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

# A cost times `T + S` stays below this: a sum and its move share 32 bits.
_COSTS_END = 1 << 29


def dtw(
    costs: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    *,
    band: int | None = None,
    teacher_lower_bounds: jax.Array | None = None,
    student_lower_bounds: jax.Array | None = None,
) -> Path:
    """Aligns every example of a batch by dynamic time warping.

    The same as `reference.dtw`, ties included: diagonal first, then `i - 1`, then `j - 1`. What
    lies behind the lengths is never read. Works under `jit`, `vmap` and sharding of the batch;
    compiled once per shape and band. At full width memory is about seven bytes per padded cell
    `B * (T + S) * T`; with a band about six per `B * (T + S) * (2 * band + 1)`, beside the costs.

    With a band only those cells count that are at most `band` from the example's own diagonal: of
    the cells with `i + j = d`, those with `|i - round(d * (T_b - 1) / (T_b + S_b - 2))| <= band`.
    Then an example is certified if the band is proven to hold every optimal path: for every cell
    from which a step can leave the band, its `D` plus the larger of two sums, the lower bounds of
    the rows and of the columns still to come, is strictly above the total (`band.py` has the
    proof). A certified example is equal to full width, ranges included; others may or may not be.

    Args:
      costs: [B, T, S] integers >= 0; a cost times `T + S` (padded) must stay below 2**29.
      teacher_lengths: [B] integers in [0, T].
      student_lengths: [B] integers in [0, S].
      band: None for the full width, or a half-width of at least 1; static.
      teacher_lower_bounds: [B, T] integers >= 0, with a band only; no cost of the teacher token
        within the lengths may be lower, or certificates prove nothing. None: the least cost of the
        token, for which the whole of `costs` is read.
      student_lower_bounds: [B, S], likewise for student tokens.

    Returns:
      A `Path`, certified throughout at full width. Where one side is empty and the other is not
      there is no path: cost `INT32_MAX` and empty ranges, certified.

    Raises:
      TypeError: costs are not integers.
      ValueError: shapes do not fit; `band` is no integer or below 1; bounds come without a band;
        in numpy arrays, a cost below 0 or too large, a bound below 0, or a length outside its range
        (what is on a device or traced is not looked at).
    """
    if band is not None:
        band = band_lib.check(band)
    bounds = {"teacher": teacher_lower_bounds, "student": student_lower_bounds}
    lengths = {"teacher": teacher_lengths, "student": student_lengths}
    _check(costs, lengths, bounds, band)
    arrays = map(jnp.asarray, (costs, teacher_lengths, student_lengths))
    if band is None:
        return _dtw(*arrays)
    ready = [None if bound is None else jnp.asarray(bound) for bound in bounds.values()]
    return band_lib.from_matrix(*arrays, *ready, band=band)


def _check(costs: Any, lengths: dict[str, Any], bounds: dict[str, Any], band: int | None) -> None:
    """Raises what `dtw` says; values are looked at only where they lie on the host."""
    if not jnp.issubdtype(jnp.result_type(costs), jnp.integer):
        raise TypeError(f"costs must be integers, got {jnp.result_type(costs)}")
    shape = jnp.shape(costs)
    if len(shape) != 3:
        raise ValueError(f"costs must be [B, T, S], got shape {shape}")
    for axis, (name, length) in enumerate(lengths.items(), start=1):
        if jnp.shape(length) != shape[:1]:
            raise ValueError(
                f"{name}_lengths must be [B] = {shape[:1]}, got shape {jnp.shape(length)}"
            )
        if isinstance(length, jax.Array):
            continue
        length = np.asarray(length)
        for b in np.flatnonzero((length < 0) | (length > shape[axis])):
            raise ValueError(
                f"{name}_lengths must be in [0, {shape[axis]}], the size of costs, "
                f"got {length[b]} in example {b}"
            )
    for axis, (name, bound) in enumerate(bounds.items(), start=1):
        if bound is None:
            continue
        if band is None:
            raise ValueError(f"{name}_lower_bounds serve the certificate of a band, got band=None")
        if jnp.shape(bound) != (shape[0], shape[axis]):
            raise ValueError(
                f"{name}_lower_bounds must be {(shape[0], shape[axis])}, got {jnp.shape(bound)}"
            )
        if not isinstance(bound, jax.Array) and np.min(bound, initial=0) < 0:
            raise ValueError(f"{name}_lower_bounds must be at least 0, got {np.min(bound)}")
    if not isinstance(costs, jax.Array):
        _check_costs(np.asarray(costs), *lengths.values())


def _check_costs(costs: np.ndarray, teacher_lengths: Any, student_lengths: Any) -> None:
    """Raises ValueError if a cost inside the lengths, as far as they can be seen, cannot be."""
    most = (_COSTS_END - 1) // max(sum(costs.shape[1:]), 1)
    if not costs.size or (costs.min() >= 0 and costs.max() <= most):
        return
    wrong = (costs < 0) | (costs > most)
    for axis, length in ((1, teacher_lengths), (2, student_lengths)):
        if not isinstance(length, jax.core.Tracer):
            positions = np.arange(costs.shape[axis])[None, :]
            inside = positions < np.asarray(length)[:, None]
            wrong &= np.expand_dims(inside, 3 - axis)
    for place in np.argwhere(wrong)[:1].tolist():
        raise ValueError(
            f"costs must be at least 0 and at most {most}, as a path's sum must fit, got "
            f"{costs[tuple(place)]} at [b, i, j] = {place}"
        )


@jax.jit
def _dtw(costs: jax.Array, teacher_lengths: jax.Array, student_lengths: jax.Array) -> Path:
    batch_last = jnp.moveaxis(costs, 0, -1).astype(jnp.int32)
    return wavefront(batch_last, teacher_lengths, student_lengths, jnp.int32)


def wavefront(
    costs: jax.Array, teacher_lengths: jax.Array, student_lengths: jax.Array, state_dtype: Any
) -> Path:
    """Is `dtw` for costs [T, S, B] of any integer type, with a chosen type for the cells.

    Args:
      costs: [T, S, B] integers; `max * (T + S)` must not exceed `cells.largest_cell(state_dtype)`.
      teacher_lengths: [B] integers in [0, T].
      student_lengths: [B] integers in [0, S].
      state_dtype: int16 or int32.

    Returns:
      A `Path`.
    """
    teacher_lengths = teacher_lengths.astype(jnp.int32)
    student_lengths = student_lengths.astype(jnp.int32)
    width_s = costs.shape[1]
    if 0 in costs.shape[:2]:  # loops and slices below want at least one cell
        costs = jnp.pad(costs, [(0, int(n == 0)) for n in costs.shape[:2]] + [(0, 0)])
    moves = _forward(costs, state_dtype)
    total, starts, ends = _walk_back(moves, costs, teacher_lengths, student_lengths)
    no_path = (teacher_lengths == 0) != (student_lengths == 0)
    some = (teacher_lengths > 0) & (student_lengths > 0)
    total = jnp.where(some, total, jnp.where(no_path, INT32_MAX, 0))
    starts, ends = starts[:width_s].T, ends[:width_s].T
    return Path(total, starts, ends, jnp.ones(total.shape, bool))


def _forward(costs: jax.Array, state_dtype: Any) -> jax.Array:
    """Fills the matrix; returns [T + S - 1, T, B] int8, the move into cell `(i, j)` at [i + j, i].

    Only two anti-diagonals of cells are alive at a time; what stays is a byte per cell.
    """
    width_t, width_s, batch = costs.shape
    diagonals = width_t + width_s - 1
    # Row `i` gets `T` zeros behind it; read with one column fewer per row, column `d` is then the
    # anti-diagonal `d`, and a lane outside the matrix reads one of the zeros.
    rows = jnp.pad(costs, ((0, 0), (0, width_t), (0, 0)))
    flat = rows.reshape(width_t * (diagonals + 1), batch)
    skewed = flat[: width_t * diagonals].reshape(width_t, diagonals, batch)
    edge = jnp.full((1, batch), infinity(state_dtype), state_dtype)

    def step(
        carry: tuple[jax.Array, jax.Array], d: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        before, twice_before = carry
        cost = jax.lax.dynamic_index_in_dim(skewed, d, 1, keepdims=False).astype(state_dtype)
        diagonal = twice_before[:-1]
        best = jnp.minimum(diagonal, jnp.minimum(before[:-1] | UP, before[1:] | LEFT))
        cell = best + (cost << MOVE_BITS)
        moves = (cell & MOVE_MASK).astype(jnp.int8)
        return (jnp.concatenate([edge, cell & ~MOVE_MASK]), before), moves

    # Lane 0 stands for the row before the first; the diagonal predecessor of cell (0, 0) costs 0.
    nowhere = jnp.broadcast_to(edge, (width_t + 1, batch))
    start = jnp.concatenate([jnp.zeros_like(edge), nowhere[1:]])
    _, moves = jax.lax.scan(step, (nowhere, start), jnp.arange(diagonals))
    return moves


def _walk_back(
    moves: jax.Array,
    costs: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Follows the moves from each example's last cell, adding up the costs of its path.

    Args:
      moves: of `_forward`.
      costs: [T, S, B].
      teacher_lengths: [B].
      student_lengths: [B].

    Returns:
      [B] int32 total costs; [S, B] starts and ends of the teacher ranges.
    """
    width_s = costs.shape[1]
    columns = jnp.arange(moves.shape[-1])

    def some_inside(state: _Walk) -> jax.Array:
        i, j, _, _ = state
        return jnp.any((i >= 0) & (j >= 0))

    def step(state: _Walk) -> _Walk:
        i, j, total, entries = state
        inside = (i >= 0) & (j >= 0)
        move = moves.at[i + j, i, columns].get(mode="clip")
        cost = costs.at[i, j, columns].get(mode="clip").astype(jnp.int32)
        # The last visit of a student token, its first teacher token, overwrites the others.
        # Examples that have arrived, and empty ones, write to the row behind the last.
        entries = entries.at[jnp.where(inside, j, width_s), columns].set(
            2 * i + (move == LEFT), mode="promise_in_bounds", unique_indices=True
        )
        total = jnp.where(inside, total + cost, total)
        i = jnp.where(inside & (move != LEFT), i - 1, i)
        j = jnp.where(inside & (move != UP), j - 1, j)
        return i, j, total, entries

    i, j = teacher_lengths - 1, student_lengths - 1
    entries = jnp.zeros((width_s + 1, len(columns)), jnp.int32)
    start = (i, j, jnp.zeros_like(i), entries)
    _, _, total, entries = jax.lax.while_loop(some_inside, step, start)
    # A student token's range ends where the next one's starts, plus one when they share it.
    starts, shared = entries >> 1, entries & 1
    rows = jnp.arange(width_s)[:, None]
    ends = jnp.where(rows == j[None, :], i[None, :] + 1, (starts + shared)[1:])
    inside = (rows <= j[None, :]) & (i[None, :] >= 0)
    return total, jnp.where(inside, starts[:-1], 0), inside * ends
