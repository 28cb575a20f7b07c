"""Token lists in, paths out: costs and dynamic program of many examples at the hardware's pace.

`dtw(edit_distance_costs(...))` wants every example padded to one size and an int32 cost for each
cell. Here examples are sorted by length and cut into slices of one compiled shape; a slice reads
its costs as bytes from the table of distinct pairs, and its cells are int16 where that is sound.

Letters: `B` batch, `T` teacher tokens, `S` student tokens.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment import costs as costs_lib
from specialize_jax.alignment import dp
from specialize_jax.alignment.types import Path

# Examples that share a table of distances: its size grows with the product of distinct tokens.
_CHUNK = 8192
# Cells that a slice may have: a few megabytes, so that a slice stays near the processor.
_SLICE_CELLS = 1 << 21
_LARGEST_SLICE = 128
_ALIGNMENT = 64  # bytes


def align_batch(
    teacher_surfaces: Sequence[costs_lib.Tokens], student_surfaces: Sequence[costs_lib.Tokens]
) -> Path:
    """Aligns many examples by dynamic time warping over edit distances.

    Equal to `dtw(edit_distance_costs(teacher, student), teacher_lengths, student_lengths)`.

    Args:
      teacher_surfaces: `B` lists of up to `T` tokens, str or bytes; of any lengths, in any order.
      student_surfaces: `B` lists of up to `S` tokens.

    Returns:
      A `Path` of numpy arrays; `S` is the longest student list.

    Raises:
      ValueError: the two sides have different numbers of lists.
    """
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
        # All slices are started before the first is waited for.
        for rows, result in list(_start_slices(teacher, student)):
            _store(path, start + rows, result)
    return path


def _store(path: Path, rows: np.ndarray, result: Path) -> None:
    """Copies a slice's results to their rows; rows behind the slice's end are padding."""
    path.total_cost[rows] = np.asarray(result.total_cost)[: len(rows)]
    width = min(path.teacher_start.shape[1], result.teacher_start.shape[1])
    path.teacher_start[rows, :width] = np.asarray(result.teacher_start)[: len(rows), :width]
    path.teacher_end[rows, :width] = np.asarray(result.teacher_end)[: len(rows), :width]


def _start_slices(
    teacher: costs_lib.Indexed, student: costs_lib.Indexed
) -> Iterable[tuple[np.ndarray, Path]]:
    """Starts every slice of a chunk; yields its rows and, still being computed, its paths."""
    flat, table = _allocate_table(teacher.surfaces, student.surfaces)
    costs_lib.fill_table(table, teacher.surfaces, student.surfaces)
    largest = int(table.max(initial=0))
    # On a CPU `device_put` takes aligned memory over as it is; `jnp.asarray` would copy it.
    flat_table, columns = jax.device_put(flat), np.int32(table.shape[1])
    teacher_lengths, student_lengths = teacher.lengths, student.lengths
    for rows, width, height in _slices(np.maximum(teacher_lengths, student_lengths)):
        fits = largest * 2 * width <= dp.largest_cell(jnp.int16)
        costs = _look_up(
            flat_table,
            columns,
            _columns_of(teacher, rows, width, height),
            _columns_of(student, rows, width, height),
        )
        ends = [_padded(lengths[rows], height) for lengths in (teacher_lengths, student_lengths)]
        yield rows, _wavefront(costs, *ends, state_dtype=jnp.int16 if fits else jnp.int32)


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


def _slices(longest: np.ndarray) -> Iterable[tuple[np.ndarray, int, int]]:
    """Cuts examples into slices of similar length, the longest first.

    Args:
      longest: [B] int; tokens on the longer side of each example.

    Yields:
      The examples of a slice, its padded number of tokens, its padded number of examples.
    """
    order = np.argsort(-longest, kind="stable")
    start = 0
    while start < len(order):
        width = _round_up(int(longest[order[start]]))
        height = _LARGEST_SLICE
        while height > 1 and height * width * width > _SLICE_CELLS:
            height //= 2
        rows = order[start : start + height]
        start += height
        yield rows, width, max(16, 1 << (len(rows) - 1).bit_length()) if height > 16 else height


def _round_up(length: int) -> int:
    """Rounds to a multiple of about an eighth, so that a few dozen widths serve every length."""
    step = max(8, 1 << max(0, length.bit_length() - 4))
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


_wavefront = jax.jit(dp.wavefront, static_argnames="state_dtype")
