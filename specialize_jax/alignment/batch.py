"""Token lists in, paths out: costs and dynamic program of many examples at the hardware's pace.

`dtw(edit_distance_costs(...))` wants every example padded to one size and an int32 cost for each
cell. Here examples are sorted by length and cut into slices of one compiled shape; a slice reads
its costs as bytes from the table of distinct pairs, and its cells are int16 where that is sound.

With a band, a slice looks up only the costs inside it. Where the table of distinct pairs would be
much larger than all bands together (long texts with many different tokens), only the distances of
the pairs inside the bands are computed, so that memory stays linear in length.

Letters: `B` batch, `T` teacher tokens, `S` student tokens; `P` and `Q` distinct teacher and student
surfaces; `D` anti-diagonals and `W` lanes of a band (`band.py`).
"""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment import band as band_lib
from specialize_jax.alignment import cells as cells_lib
from specialize_jax.alignment import costs as costs_lib
from specialize_jax.alignment import dp
from specialize_jax.alignment.types import Path

# Examples that share a table of distances: its size grows with the product of distinct tokens.
_CHUNK = 8192
# Cells that a slice may have: a few megabytes, so that a slice stays near the processor.
_SLICE_CELLS = 1 << 21
_LARGEST_SLICE = 128
_ALIGNMENT = 64  # bytes
# A table of more entries than this per cell of all bands gives way to distances pair by pair. It
# bounds memory; the number itself is an estimate (sorting the pairs costs some dozens of entries).
_TABLE_PER_CELL = 64


def align_batch(
    teacher_surfaces: Sequence[costs_lib.Tokens],
    student_surfaces: Sequence[costs_lib.Tokens],
    *,
    band: int | None = None,
) -> Path:
    """Aligns many examples by dynamic time warping over edit distances.

    Equal to `dtw(edit_distance_costs(teacher, student), teacher_lengths, student_lengths)`, with a
    band or without: it is tried first, and what it does not certify is run again at full width. To
    know how many that were, take the two steps yourself:

        path = alignment.align_band(teacher, student, band=16)
        rate = path.certified.mean()
        path = alignment.rerun_uncertified(path, teacher, student)

    Args:
      teacher_surfaces: `B` lists of up to `T` tokens, str or bytes; of any lengths, in any order.
      student_surfaces: `B` lists of up to `S` tokens.
      band: None, or the half-width to try first (see `dtw`); worth it for long texts.

    Returns:
      A `Path` of numpy arrays, certified throughout; `S` is the longest student list.

    Raises:
      ValueError: the two sides have different numbers of lists; `band` is no integer or below 1.
    """
    if band is None:
        return _align(teacher_surfaces, student_surfaces, None)
    path = align_band(teacher_surfaces, student_surfaces, band=band)
    return rerun_uncertified(path, teacher_surfaces, student_surfaces)


def align_band(
    teacher_surfaces: Sequence[costs_lib.Tokens],
    student_surfaces: Sequence[costs_lib.Tokens],
    *,
    band: int,
) -> Path:
    """Is the first step of `align_batch`: the best paths inside a band, some of them certified.

    The lower bound of a token's costs, for the certificate, is 0 where its surface occurs anywhere
    on the other side of its example, else 1.

    Args:
      teacher_surfaces: `B` lists of up to `T` tokens.
      student_surfaces: `B` lists of up to `S` tokens.
      band: half-width of at least 1 (see `dtw`).

    Returns:
      A `Path` of numpy arrays. Its certified rows equal those at full width; the mean of
      `certified` is the certified rate.

    Raises:
      ValueError: as `align_batch`.
    """
    return _align(teacher_surfaces, student_surfaces, band_lib.check(band))


def rerun_uncertified(
    path: Path,
    teacher_surfaces: Sequence[costs_lib.Tokens],
    student_surfaces: Sequence[costs_lib.Tokens],
) -> Path:
    """Is the second step of `align_batch`: full width for the examples that are not certified.

    Args:
      path: `align_band(teacher_surfaces, student_surfaces, ...)`; left as it is.
      teacher_surfaces: `B` lists of tokens.
      student_surfaces: `B` lists of tokens.

    Returns:
      A `Path` of numpy arrays, certified throughout.

    Raises:
      ValueError: the path and the two sides have different numbers of examples.
    """
    costs_lib.check_same_number(teacher_surfaces, student_surfaces)
    certified = np.asarray(path.certified)
    if certified.shape != (len(teacher_surfaces),):
        raise ValueError(
            f"path must have the {len(teacher_surfaces)} examples of the token lists, "
            f"got certified of shape {certified.shape}"
        )
    rows = np.flatnonzero(~certified).tolist()
    whole = Path(
        total_cost=np.array(path.total_cost),
        teacher_start=np.array(path.teacher_start),
        teacher_end=np.array(path.teacher_end),
        certified=certified.copy(),
    )
    teacher, student = ([side[b] for b in rows] for side in (teacher_surfaces, student_surfaces))
    _store(whole, np.array(rows, int), _align(teacher, student, None))
    return whole


def _align(
    teacher_surfaces: Sequence[costs_lib.Tokens],
    student_surfaces: Sequence[costs_lib.Tokens],
    band: int | None,
) -> Path:
    costs_lib.check_same_number(teacher_surfaces, student_surfaces)
    batch = len(teacher_surfaces)
    width = max(map(len, student_surfaces), default=0)
    path = Path(
        total_cost=np.zeros(batch, np.int32),
        teacher_start=np.zeros((batch, width), np.int32),
        teacher_end=np.zeros((batch, width), np.int32),
        certified=np.ones(batch, bool),
    )
    for start in range(0, batch, _CHUNK):
        part = slice(start, start + _CHUNK)
        teacher = costs_lib.index(teacher_surfaces[part])
        student = costs_lib.index(student_surfaces[part])
        slices = _start_slices(teacher, student, band)
        for rows, result in costs_lib.started_ahead(slices):
            _store(path, start + rows, result)
    return path


def _store(path: Path, rows: np.ndarray, result: Path) -> None:
    """Copies a slice's results to their rows; rows behind the slice's end are padding."""
    path.total_cost[rows] = np.asarray(result.total_cost)[: len(rows)]
    width = min(path.teacher_start.shape[1], result.teacher_start.shape[1])
    path.teacher_start[rows, :width] = np.asarray(result.teacher_start)[: len(rows), :width]
    path.teacher_end[rows, :width] = np.asarray(result.teacher_end)[: len(rows), :width]
    path.certified[rows] = np.asarray(result.certified)[: len(rows)]


def _start_slices(
    teacher: costs_lib.Indexed, student: costs_lib.Indexed, band: int | None
) -> Iterable[tuple[np.ndarray, Path]]:
    """Starts every slice of a chunk; yields its rows and, still being computed, its paths."""
    if band is not None and _is_table_too_large(teacher, student, band):
        yield from _start_banded_pairs(teacher, student, band)
        return
    flat, table = _allocate_table(teacher.surfaces, student.surfaces)
    costs_lib.fill_table(table, teacher.surfaces, student.surfaces)
    largest = int(table.max(initial=0))
    # On a CPU `device_put` takes aligned memory over as it is; `jnp.asarray` would copy it.
    flat_table, columns = jax.device_put(flat), np.int32(table.shape[1])
    shared = None if band is None else _shared_numbers(teacher.surfaces, student.surfaces)
    for rows, width, height in _slices(np.maximum(teacher.lengths, student.lengths), band):
        ids = [_columns_of(side, rows, width, height) for side in (teacher, student)]
        ends = [_padded(side.lengths[rows], height) for side in (teacher, student)]
        state_dtype = _state_dtype(largest, width)
        if band is None or shared is None or not _gains(band, width):
            costs = _look_up(flat_table, columns, *ids)
            yield rows, _wavefront(costs, *ends, state_dtype=state_dtype)
        else:
            costs = _look_up_band(flat_table, columns, *ids, *ends, half=band)
            bounds = _lower_bounds(shared, *ids, *ends)
            yield rows, _banded(costs, *ends, *bounds, state_dtype=state_dtype)


def _gains(band: int, width: int) -> bool:
    """Returns whether a band has fewer cells than the matrix; if not, full width is certified."""
    return 2 * band + 1 < width


def _is_table_too_large(teacher: costs_lib.Indexed, student: costs_lib.Indexed, band: int) -> bool:
    in_bands = int((teacher.lengths + student.lengths).sum()) * (2 * band + 1)
    return len(teacher.surfaces) * len(student.surfaces) > _TABLE_PER_CELL * in_bands


def _start_banded_pairs(
    teacher: costs_lib.Indexed, student: costs_lib.Indexed, band: int
) -> Iterable[tuple[np.ndarray, Path]]:
    """Is `_start_slices` without a table: only the distances of pairs inside a slice's bands."""
    shared = _shared_numbers(teacher.surfaces, student.surfaces)
    for rows, width, height in _slices(np.maximum(teacher.lengths, student.lengths), band):
        ids = [_columns_of(side, rows, width, height) for side in (teacher, student)]
        ends = [_padded(side.lengths[rows], height) for side in (teacher, student)]
        half = band_lib.half_width(band, width, width)
        d = np.arange(2 * width - 1)[:, None, None]
        middle = band_lib.centre(d, *(end[None, None, :].astype(np.int64) for end in ends))
        i = middle + np.arange(-half, half + 1)[None, :, None]
        t, s = (
            np.take_along_axis(side[:, None, :], np.clip(places, 0, width - 1), 0)
            for side, places in zip(ids, (i, d - i), strict=True)
        )
        codes = t.astype(np.int64) * len(student.surfaces) + s
        pairs, inverse = np.unique(codes, return_inverse=True)
        distances = costs_lib.pair_distances(
            teacher.surfaces, student.surfaces, *np.divmod(pairs, len(student.surfaces))
        )
        costs = distances[inverse].reshape(codes.shape)
        bounds = _lower_bounds(shared, *ids, *ends)
        state_dtype = _state_dtype(int(distances.max(initial=0)), width)
        yield rows, _banded(costs, *ends, *bounds, state_dtype=state_dtype)


def _state_dtype(largest: int, width: int) -> type:
    """Returns the smaller type that holds every cell of a slice."""
    fits = largest * 2 * width <= cells_lib.largest_cell(jnp.int16)
    return jnp.int16 if fits else jnp.int32


def _shared_numbers(teacher: Sequence[str], student: Sequence[str]) -> np.ndarray:
    """Returns for each teacher surface its number among the student's, or one not used there.

    Returns:
      [P + 1] int32; the last entry is one more than every number.
    """
    numbers = {text: number for number, text in enumerate(student)}
    shared = [numbers.setdefault(text, len(numbers)) for text in teacher]
    return np.array([*shared, len(numbers)], np.int32)


def _lower_bounds(
    shared: np.ndarray,
    teacher: np.ndarray,
    student: np.ndarray,
    teacher_lengths: np.ndarray,
    student_lengths: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns [B, T] and [B, S] bool: whether the other side lacks the token's surface.

    Equal surfaces cost 0, all others at least 1: so this is a lower bound of a token's costs.

    Args:
      shared: see `_shared_numbers`.
      teacher: [T, B] int32; rows of the table of distinct teacher surfaces.
      student: [S, B] int32; likewise.
      teacher_lengths: [B].
      student_lengths: [B].
    """
    rows = np.arange(teacher.shape[1])[:, None]
    own, nowhere = (shared[teacher].T, student.T), int(shared[-1])
    lacking = []
    for side, length in enumerate((student_lengths, teacher_lengths)):
        other = own[1 - side]
        inside = np.arange(other.shape[1])[None, :] < length[:, None]
        occurs = np.zeros((len(rows), nowhere + 1), bool)
        occurs[rows, np.where(inside, other, nowhere)] = True
        lacking.append(~occurs[rows, own[side]])
    return lacking[0], lacking[1]


def _allocate_table(
    teacher: Sequence[str], student: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns flat memory of a power of two, and the [Q, P] table at its beginning.

    Few sizes, so that a new table rarely needs a new compilation; aligned, so that JAX on a CPU
    takes it over without a copy. What lies behind the table is never read.
    """
    dtype = np.dtype(costs_lib.table_dtype(teacher, student))
    size = len(student) * len(teacher)
    length = max(1 << 16, 1 << size.bit_length())
    memory = np.empty(length * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    flat = memory[start : start + length * dtype.itemsize].view(dtype)
    return flat, flat[:size].reshape(len(student), len(teacher))


def _slices(longest: np.ndarray, band: int | None) -> Iterable[tuple[np.ndarray, int, int]]:
    """Cuts examples into slices of similar length, the longest first.

    Args:
      longest: [B] int; tokens on the longer side of each example.
      band: half-width, or None for the full width.

    Yields:
      The examples of a slice, its padded number of tokens, its padded number of examples.
    """
    order = np.argsort(-longest, kind="stable")
    start = 0
    while start < len(order):
        width = _round_up(int(longest[order[start]]))
        lanes = width if band is None or not _gains(band, width) else 2 * (2 * band + 1)
        height = _LARGEST_SLICE
        while height > 1 and height * width * lanes > _SLICE_CELLS:
            height //= 2
        rows = order[start : start + height]
        start += height
        yield rows, width, max(16, 1 << (len(rows) - 1).bit_length()) if height > 16 else height


def _round_up(length: int) -> int:
    """Rounds to a multiple of about an eighth, so that a few dozen widths serve every length.

    Not below 16: each width is compiled, which costs as much as aligning thousands of examples.
    """
    step = max(16, 1 << max(0, length.bit_length() - 4))
    return max(step, -(-length // step) * step)


def _columns_of(side: costs_lib.Indexed, rows: np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns the ids of some examples as [width, height], the batch last."""
    columns = np.zeros((width, height), np.int32)
    columns[:, : len(rows)] = side.padded(rows, width).T
    return columns


def _padded(lengths: np.ndarray, height: int) -> np.ndarray:
    padded = np.zeros(height, np.int32)
    padded[: len(lengths)] = lengths
    return padded


# Compiled apart from the dynamic program: in one program XLA fuses the look-up into the skewing of
# the matrix, which then looks up twice as much.
@jax.jit
def _look_up(
    flat_table: jax.Array, columns: jax.Array, teacher: jax.Array, student: jax.Array
) -> jax.Array:
    """Returns costs [T, S, B] for table columns [T, B] and rows [S, B]."""
    places = student[None, :, :] * columns + teacher[:, None, :]
    return flat_table.at[places].get(mode="promise_in_bounds")


@functools.partial(jax.jit, static_argnames="half")
def _look_up_band(
    flat_table: jax.Array,
    columns: jax.Array,
    teacher: jax.Array,
    student: jax.Array,
    teacher_lengths: jax.Array,
    student_lengths: jax.Array,
    *,
    half: int,
) -> jax.Array:
    """Returns costs [D, W, B] in the band's order for table columns [T, B] and rows [S, B].

    From one anti-diagonal to the next either the teacher tokens of the lanes move up by one or the
    student tokens do, so both are windows that slide, and only the table is looked up cell by cell.
    """
    width_t, width_s, batch = len(teacher), len(student), teacher.shape[1]
    d = jnp.arange(width_t + width_s - 1)[:, None]
    middle = band_lib.centre(d, teacher_lengths[None, :], student_lengths[None, :])
    moved_down = jnp.diff(middle, axis=0, prepend=0) > 0
    edge = jnp.zeros((half + 1, batch), teacher.dtype)
    next_t = jnp.take_along_axis(teacher, jnp.minimum(middle + half, width_t - 1), 0)
    next_s = jnp.take_along_axis(student, jnp.clip(d - middle + half, 0, width_s - 1), 0)

    def step(
        windows: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        t, s = windows
        d, moved_down, next_t, next_s = row
        t = jnp.where(moved_down[None, :], jnp.concatenate([t[1:], next_t[None, :]]), t)
        moved_right = (~moved_down & (d > 0))[None, :]
        s = jnp.where(moved_right, jnp.concatenate([next_s[None, :], s[:-1]]), s)
        return (t, s), s * columns + t

    first_t = jnp.concatenate([edge, teacher, edge])[1 : 2 * half + 2]
    first_s = jnp.concatenate([edge, student, edge])[1 : 2 * half + 2][::-1]
    rows = (d[:, 0], moved_down, next_t, next_s)
    _, places = jax.lax.scan(step, (first_t, first_s), rows)
    return flat_table.at[places].get(mode="promise_in_bounds")


_banded = jax.jit(band_lib.wavefront, static_argnames="state_dtype")
_wavefront = jax.jit(dp.wavefront, static_argnames="state_dtype")
