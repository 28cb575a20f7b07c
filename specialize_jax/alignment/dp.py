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

from specialize_jax.alignment.reference import INT32_MAX
from specialize_jax.alignment.types import Path

DIAGONAL, UP, LEFT = 0, 1, 2  # in the order in which ties are decided
_MOVE_BITS = 2
_MOVE_MASK = (1 << _MOVE_BITS) - 1
_Walk = tuple[jax.Array, jax.Array, jax.Array]


def largest_cell(state_dtype: Any) -> int:
    """Returns the largest `D` that a state of this type can hold."""
    return (int(np.iinfo(state_dtype).max) >> _MOVE_BITS) - 1


def dtw(
    costs: jax.Array, teacher_lengths: jax.Array, student_lengths: jax.Array, *, band: None = None
) -> Path:
    """Aligns every example of a batch by dynamic time warping over the full matrix.

    The same as `reference.dtw`, ties included: diagonal first, then `i - 1`, then `j - 1`. What
    lies behind the lengths is never read. Works under `jit`, `vmap` and sharding of the batch;
    compiled once per shape. Memory is about ten bytes per padded cell `B * (T + S) * T`.

    Args:
      costs: [B, T, S] integers >= 0; an example's costs times `T + S` must stay below 2**29.
      teacher_lengths: [B] integers in [0, T].
      student_lengths: [B] integers in [0, S].
      band: only None, the full width.

    Returns:
      A `Path`, certified throughout. Where one side is empty and the other is not there is no path:
      cost `INT32_MAX` and empty ranges.

    Raises:
      TypeError: costs are not integers.
      ValueError: shapes do not fit, or a band is given.
    """
    costs = jnp.asarray(costs)
    teacher_lengths, student_lengths = jnp.asarray(teacher_lengths), jnp.asarray(student_lengths)
    if band is not None:
        raise ValueError(f"band must be None (the full width), got {band!r}")
    if not jnp.issubdtype(costs.dtype, jnp.integer):
        raise TypeError(f"costs must be integers, got {costs.dtype}")
    if costs.ndim != 3:
        raise ValueError(f"costs must be [B, T, S], got shape {costs.shape}")
    for name, lengths in (("teacher", teacher_lengths), ("student", student_lengths)):
        if lengths.shape != costs.shape[:1]:
            raise ValueError(
                f"{name}_lengths must be [B] = {costs.shape[:1]}, got shape {lengths.shape}"
            )
    return _dtw(costs, teacher_lengths, student_lengths)


@jax.jit
def _dtw(costs: jax.Array, teacher_lengths: jax.Array, student_lengths: jax.Array) -> Path:
    batch_last = jnp.moveaxis(costs, 0, -1).astype(jnp.int32)
    return wavefront(batch_last, teacher_lengths, student_lengths, jnp.int32)


def wavefront(
    costs: jax.Array, teacher_lengths: jax.Array, student_lengths: jax.Array, state_dtype: Any
) -> Path:
    """Is `dtw` for costs [T, S, B] of any integer type, with a chosen type for the cells.

    Args:
      costs: [T, S, B] integers; `max * (T + S)` must not exceed `largest_cell(state_dtype)`.
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
    cells = _forward(costs, state_dtype)
    last, starts, ends = _walk_back(cells, teacher_lengths, student_lengths, costs.shape[1])
    no_path = (teacher_lengths == 0) != (student_lengths == 0)
    some = (teacher_lengths > 0) & (student_lengths > 0)
    total = jnp.where(some, last >> _MOVE_BITS, jnp.where(no_path, INT32_MAX, 0))
    starts, ends = starts[:width_s].T, ends[:width_s].T
    return Path(total, starts, ends, jnp.ones(total.shape, bool))


def _forward(costs: jax.Array, state_dtype: Any) -> jax.Array:
    """Fills the matrix; cell `(i, j)` lands at `[i + j + 2, i + 1]` of [T + S + 1, T + 1, B]."""
    width_t, width_s, batch = costs.shape
    diagonals = width_t + width_s - 1
    # Row `i` gets `T` zeros behind it; read with one column fewer per row, column `d` is then the
    # anti-diagonal `d`, and a lane outside the matrix reads one of the zeros.
    rows = jnp.pad(costs, ((0, 0), (0, width_t), (0, 0)))
    flat = rows.reshape(width_t * (diagonals + 1), batch)
    skewed = flat[: width_t * diagonals].reshape(width_t, diagonals, batch)
    infinity = int(np.iinfo(state_dtype).max) & ~_MOVE_MASK
    cells = jnp.full((diagonals + 2, width_t + 1, batch), infinity, state_dtype)
    cells = cells.at[0, 0].set(0)  # the diagonal predecessor of cell (0, 0)

    def step(d: jax.Array, cells: jax.Array) -> jax.Array:
        cost = jax.lax.dynamic_index_in_dim(skewed, d, 1, keepdims=False).astype(state_dtype)
        before = jax.lax.dynamic_index_in_dim(cells, d + 1, 0, keepdims=False) & ~_MOVE_MASK
        diagonal = jax.lax.dynamic_index_in_dim(cells, d, 0, keepdims=False)[:-1] & ~_MOVE_MASK
        best = jnp.minimum(diagonal, jnp.minimum(before[:-1] | UP, before[1:] | LEFT))
        cell = best + (cost << _MOVE_BITS)
        return jax.lax.dynamic_update_slice(cells, cell[None], (d + 2, 1, 0))

    return jax.lax.fori_loop(0, diagonals, step, cells)


def _walk_back(
    cells: jax.Array, teacher_lengths: jax.Array, student_lengths: jax.Array, width_s: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Follows the moves from each example's last cell.

    Returns:
      [B] the last cells, widened to int32; [S, B] starts and ends of the teacher ranges.
    """
    columns = jnp.arange(cells.shape[-1])

    def read(i: jax.Array, j: jax.Array) -> jax.Array:
        return cells.at[i + j + 2, i + 1, columns].get(mode="clip")

    def some_inside(state: _Walk) -> jax.Array:
        i, j, _ = state
        return jnp.any((i >= 0) & (j >= 0))

    def step(state: _Walk) -> _Walk:
        i, j, entries = state
        inside = (i >= 0) & (j >= 0)
        move = read(i, j) & _MOVE_MASK
        # The last visit of a student token, its first teacher token, overwrites the others.
        # Examples that have arrived, and empty ones, write to the row behind the last.
        entries = entries.at[jnp.where(inside, j, width_s), columns].set(
            2 * i + (move == LEFT), mode="promise_in_bounds", unique_indices=True
        )
        i = jnp.where(inside & (move != LEFT), i - 1, i)
        j = jnp.where(inside & (move != UP), j - 1, j)
        return i, j, entries

    i, j = teacher_lengths - 1, student_lengths - 1
    entries = jnp.zeros((width_s + 1, len(columns)), jnp.int32)
    _, _, entries = jax.lax.while_loop(some_inside, step, (i, j, entries))
    # A student token's range ends where the next one's starts, plus one when they share it.
    starts, shared = entries >> 1, entries & 1
    rows = jnp.arange(width_s)[:, None]
    ends = jnp.where(rows == j[None, :], i[None, :] + 1, (starts + shared)[1:])
    inside = (rows <= j[None, :]) & (i[None, :] >= 0)
    return read(i, j).astype(jnp.int32), jnp.where(inside, starts[:-1], 0), inside * ends
