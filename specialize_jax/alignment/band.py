"""The dynamic program inside a band around each example's own diagonal, and its certificate.

Time and memory grow with `(T + S) * (2 * w + 1)` instead of `T * S`. The band of half-width `w`: of
the cells with `i + j = d`, those whose `i` is at most `w` from `centre(d)`, the point where the
straight line from the first cell to the last crosses that anti-diagonal. From one anti-diagonal to
the next the centre moves down one row or right one column, so the centres alone are a path: every
band holds both corners and is connected, whatever the lengths.

The program is the wavefront of `dp.py`; lane `o` of diagonal `d` is the cell with
`i = centre(d) - w + o`, so predecessors shift by one lane or none, as the centre moved.

The certificate. A path that leaves the band has a last cell `x = (i, j)` before it first does. Up
to there it costs at least `D[x]` of the banded program. After it, every row behind `i` and every
column behind `j` is still to be visited, each by a cell of its own, so it costs at least the larger
of the two sums of their lower bounds. If that is *strictly* above the banded total for every cell
from which a step can leave the band, then every optimal path of the full matrix lies in the band.

Strictly above gives the path, too, not only the total. Let the walk back of the full program stand
at a cell of an optimal path. A predecessor that is smallest there lies on an optimal path, hence in
the band, and so does every best way to it: both programs give it one value. Any other predecessor
is larger in the full program, and leaving paths out makes no value smaller, so it is not smallest
in the banded one either. Thus both walks see the same smallest predecessors, and the same tie
order decides.

Letters: `B` batch, `T` teacher tokens, `S` student tokens, `D = T + S - 1` anti-diagonals, `w` the
half-width, `W = 2 * w + 1` lanes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment import cells
from specialize_jax.alignment.reference import INT32_MAX
from specialize_jax.alignment.types import Path

# Above every total, and twice it is still an int32.
_NO_ESCAPE = 1 << 29
_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def check(band: Any) -> int:
    """Returns the half-width; raises ValueError unless it is an integer of at least 1."""
    if isinstance(band, bool) or not isinstance(band, (int, np.integer)) or band < 1:
        raise ValueError(f"band must be None (the full width) or an integer >= 1, got {band!r}")
    return int(band)


def half_width(band: int, width_t: int, width_s: int) -> int:
    """Returns the half-width that is enough: with one side's length the band is the matrix."""
    return max(1, min(band, width_t - 1, width_s - 1))


def centre(d: Any, teacher_lengths: Any, student_lengths: Any) -> Any:
    """Returns `round(d * (T - 1) / (T + S - 2))`, halves upwards; numpy or JAX integers.

    `d` is taken apart because `2 * d * T` overflows an int32 from 23,170 tokens on: this way half a
    million tokens on either side are right.
    """
    rows = (teacher_lengths - 1) * (teacher_lengths > 0)
    steps = rows + (student_lengths - 1) * (student_lengths > 0)
    steps = steps + (steps == 0)
    whole, rest = (d // 256) * rows // steps, (d // 256) * rows % steps
    return 256 * whole + (2 * (256 * rest + (d % 256) * rows) + steps) // (2 * steps)


@functools.partial(jax.jit, static_argnames="band")
def from_matrix(
    costs: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    teacher_bounds: jax.Array | None,
    student_bounds: jax.Array | None,
    *,
    band: int,
) -> Path:
    """Is `dp.dtw` for a band, its arguments checked.

    Args:
      costs: [B, T, S] integers.
      teacher_lengths: [B] integers.
      student_lengths: [B] integers.
      teacher_bounds: [B, T] lower bounds of each teacher token's costs. None: the least of them.
      student_bounds: [B, S] likewise.
      band: half-width, >= 1.

    Returns:
      A `Path`.
    """
    teacher_lengths = teacher_lengths.astype(jnp.int32)
    student_lengths = student_lengths.astype(jnp.int32)
    _, width_t, width_s = costs.shape
    if 0 in costs.shape[1:]:  # the look-ups below want at least one cell
        costs = jnp.pad(costs, [(0, 0)] + [(0, int(n == 0)) for n in costs.shape[1:]])
    if teacher_bounds is None:
        teacher_bounds = _least(costs, student_lengths[:, None, None], axis=2)
    if student_bounds is None:
        student_bounds = _least(costs, teacher_lengths[:, None, None], axis=1)
    half = half_width(band, width_t, width_s)
    d = jnp.arange(sum(costs.shape[1:]) - 1)
    middle = centre(d[None, :], teacher_lengths[:, None], student_lengths[:, None])
    i = middle[:, :, None] + jnp.arange(-half, half + 1)[None, None, :]
    # The batch by vmap, not by an index: so a sharded batch stays where it is.
    picked = jax.vmap(lambda matrix, i, j: matrix.at[i, j].get(mode="clip"))(
        costs, jnp.maximum(i, 0), jnp.maximum(d[None, :, None] - i, 0)
    )
    path = wavefront(
        jnp.moveaxis(picked, 0, -1).astype(jnp.int32),
        teacher_lengths,
        student_lengths,
        teacher_bounds,
        student_bounds,
        jnp.int32,
    )
    starts, ends = path.teacher_start[:, :width_s], path.teacher_end[:, :width_s]
    return Path(path.total_cost, starts, ends, path.certified)


def _least(costs: jax.Array, lengths: jax.Array, axis: int) -> jax.Array:
    """Returns the least cost along an axis, up to `lengths`; 0 where nothing is left."""
    positions = jnp.expand_dims(jnp.arange(costs.shape[axis]), [0, 3 - axis])
    least = jnp.where(positions < lengths, costs, INT32_MAX).min(axis)
    return jnp.where(lengths[:, 0] > 0, least, 0)


def wavefront(
    costs: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    teacher_bounds: jax.Array,
    student_bounds: jax.Array,
    state_dtype: Any,
) -> Path:
    """Runs the banded program on costs that lie ready in the band's order.

    Args:
      costs: [D, W, B] integers; at `[d, o]` the cost of cell `(i, d - i)` with
        `i = centre(d) - w + o`, anything where there is no such cell. `max * (T + S)` must not
        exceed `cells.largest_cell(state_dtype)`.
      teacher_lengths: [B] int32 in [0, T].
      student_lengths: [B] int32 in [0, S].
      teacher_bounds: [B, T] integers; no cost of the token is lower. Padding is ignored.
      student_bounds: [B, S] likewise. `D` is `T + S - 1`; both at least 1.
      state_dtype: int16 or int32.

    Returns:
      A `Path`, `S` wide.
    """
    d = jnp.arange(len(costs) + 1)[:, None]
    middle = centre(d, teacher_lengths[None, :], student_lengths[None, :])
    rest = (_behind(teacher_bounds, teacher_lengths), _behind(student_bounds, student_lengths))
    half = costs.shape[1] // 2
    escape = _escape(middle, half, teacher_lengths, student_lengths, *rest)
    moves, total, bound = _forward(
        costs, middle[:-1], escape, teacher_lengths, student_lengths, state_dtype
    )
    starts, ends = _walk_back(
        moves, middle[:-1], teacher_lengths, student_lengths, student_bounds.shape[1]
    )
    some = (teacher_lengths > 0) & (student_lengths > 0)
    no_path = (teacher_lengths == 0) != (student_lengths == 0)
    total = jnp.where(some, total, jnp.where(no_path, INT32_MAX, 0))
    return Path(total, starts, ends, ~some | (bound > total))


def _behind(bounds: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns for each token the sum of the lower bounds of the tokens behind it."""
    inside = jnp.arange(bounds.shape[1])[None, :] < lengths[:, None]
    bounds = jnp.where(inside, bounds, 0).astype(jnp.int32)
    return jnp.cumsum(bounds[:, ::-1], axis=1)[:, ::-1] - bounds


def _escape(
    middle: jax.Array,
    half: int,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    teacher_rest: jax.Array,
    student_rest: jax.Array,
) -> jax.Array:
    """Returns what leaving the band costs at least behind the first and the last lane.

    Only these two lanes can be left: the first to the right where the centre moves down, the last
    downwards where it moves right. Where a diagonal step leaves the band, one of these does so too.

    Args:
      middle: [D + 1, B]; the centres, one more than there are diagonals.
      half: half-width.
      teacher_lengths: [B].
      student_lengths: [B].
      teacher_rest: [B, T]; see `_behind`.
      student_rest: [B, S].

    Returns:
      [D, 2, B] int32, `_NO_ESCAPE` where the band cannot be left.
    """
    d = jnp.arange(len(middle) - 1)[:, None, None]
    i = middle[:-1, None, :] + jnp.array([-half, half])[None, :, None]
    j = d - i
    down, right = i + 1 < teacher_lengths[None, None, :], j + 1 < student_lengths[None, None, :]
    moves_down = middle[1:] > middle[:-1]
    leaves = jnp.stack([moves_down & right[:, 0], ~moves_down & down[:, 1]], axis=1)
    pick = jax.vmap(lambda rest, at: rest.at[at].get(mode="clip"), (0, -1), -1)
    least = jnp.maximum(
        pick(teacher_rest, jnp.maximum(i, 0)), pick(student_rest, jnp.maximum(j, 0))
    )
    return jnp.where(leaves, least, _NO_ESCAPE)


def _forward(
    costs: jax.Array,
    middle: jax.Array,
    escape: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    state_dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fills the band.

    Every cell inside both matrix and band has a predecessor inside both (the centres move by one),
    so infinity is never added to.

    Returns:
      [D, W, B] int8 moves; [B] int32 totals; [B] int32, what a path that leaves the band costs at
      least.
    """
    _, lanes, batch = costs.shape
    half, infinity = lanes // 2, cells.infinity(state_dtype)
    offsets = jnp.arange(-half, half + 1)[:, None]
    last = teacher_lengths + student_lengths - 2
    edge = jnp.full((1, batch), infinity, state_dtype)
    # Before diagonal 0 the centre stays at 0: cell (-1, -1) is one lane below the middle.
    earlier = jnp.pad(middle, ((2, 0), (0, 0)))
    moved, moved_twice = middle - earlier[1:-1], middle - earlier[:-2]

    def step(carry: _Carry, row: tuple[jax.Array, ...]) -> tuple[_Carry, jax.Array]:
        before, twice_before, total, bound = carry
        d, cost, middle, moved, moved_twice, escape = row
        i = middle[None, :] + offsets
        j = d - i
        inside = (i >= 0) & (i < teacher_lengths[None, :])
        inside &= (j >= 0) & (j < student_lengths[None, :])
        low, same, high = _neighbours(before, edge)
        down = moved[None, :] > 0
        up, left = jnp.where(down, same, low), jnp.where(down, high, same)
        low, same, high = _neighbours(twice_before, edge)
        twice = moved_twice[None, :]
        diagonal = jnp.where(twice == 0, low, jnp.where(twice == 1, same, high))
        best = jnp.minimum(diagonal, jnp.minimum(up | cells.UP, left | cells.LEFT))
        cell = best + (cost.astype(state_dtype) << cells.MOVE_BITS)
        cell = jnp.where(inside, cell, infinity)
        value = (cell >> cells.MOVE_BITS).astype(jnp.int32)
        bound = jnp.minimum(bound, jnp.minimum(value[0] + escape[0], value[-1] + escape[1]))
        total = jnp.where(d == last, value[half], total)
        moves = (cell & cells.MOVE_MASK).astype(jnp.int8)
        return (cell & ~cells.MOVE_MASK, before, total, bound), moves

    nowhere = jnp.full((lanes, batch), infinity, state_dtype)
    start = (nowhere, nowhere.at[half - 1].set(0), jnp.zeros_like(last))
    rows = (jnp.arange(len(costs)), costs, middle, moved, moved_twice, escape)
    carry = (*start, jnp.full_like(last, 2 * _NO_ESCAPE - 1))
    (_, _, total, bound), moves = jax.lax.scan(step, carry, rows)
    return moves, total, bound


def _neighbours(row: jax.Array, edge: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns for each lane the lane below it, itself, and the lane above it."""
    return (
        jnp.concatenate([edge, row[:-1]]),
        row,
        jnp.concatenate([row[1:], edge]),
    )


def _walk_back(
    moves: jax.Array,
    middle: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    width_s: int,
) -> tuple[jax.Array, jax.Array]:
    """Follows the moves from each example's last cell, one anti-diagonal of all at a time.

    Returns:
      [B, S] starts and ends of the teacher ranges.
    """
    _, lanes, batch = moves.shape
    offsets = jnp.arange(-(lanes // 2), lanes // 2 + 1)[:, None]

    def step(
        at: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        i, j = at
        d, moves, middle = row
        here = (i >= 0) & (j >= 0) & (i + j == d)
        # One lane of a few dozen: a masked sum is faster than a look-up, and stays sharded.
        lane = offsets == (i - middle)[None, :]
        move = jnp.where(lane, moves, 0).sum(0, dtype=jnp.int8)
        leaves_column = here & (move != cells.UP)
        entry = 2 * i + (move == cells.LEFT)
        column = jnp.where(leaves_column, j, width_s)
        i = jnp.where(here & (move != cells.LEFT), i - 1, i)
        return (i, jnp.where(leaves_column, j - 1, j)), (column, entry)

    last = (teacher_lengths - 1, student_lengths - 1)
    rows = (jnp.arange(len(moves)), moves, middle)
    _, (columns, entries) = jax.lax.scan(step, last, rows, reverse=True)
    # A student token is left once, at its first teacher token; all else goes behind the last.
    written = jax.vmap(
        lambda column, entry: jnp.zeros(width_s + 1, jnp.int32).at[column].set(entry), -1
    )(columns, entries)
    # A student token's range ends where the next one's starts, plus one when they share it.
    starts, shared = written[:, :-1] >> 1, written[:, :-1] & 1
    following = jnp.pad((starts + shared)[:, 1:], ((0, 0), (0, 1)))
    position = jnp.arange(width_s)[None, :]
    ends = jnp.where(position == last[1][:, None], teacher_lengths[:, None], following)
    inside = (position < student_lengths[:, None]) & (teacher_lengths[:, None] > 0)
    return jnp.where(inside, starts, 0), jnp.where(inside, ends, 0)
