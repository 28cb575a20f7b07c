"""Alignment by bytes: each student token's teacher tokens, from where both lie in one text.

Two tokenizers that know their bytes need no edit distances: sorted positions are looked up, so
time and memory grow with `T + S`. `tokenizers.Tokenizer.encode_with_spans` gives the spans.

Letters: `B` batch, `T` teacher tokens, `S` student tokens.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment.reference import INT32_MAX
from specialize_jax.alignment.types import Path

# Lists are cut into slices of one compiled shape: at least so wide, at most so many examples.
_SMALLEST_WIDTH = 16
_LARGEST_SLICE = 1024


def offsets(
    teacher_spans: Any,
    student_spans: Any,
    teacher_lengths: Any = None,
    student_lengths: Any = None,
) -> Path:
    """Aligns tokens of one text by the bytes they span.

    The same as `reference.offsets`. Spans are half-open; on each side starts and ends never
    decrease, but spans may be empty, overlap, and leave bytes out. In this order:

    1. Where both sides have the same number of tokens with one and the same span, the first is
       linked to the first, the second to the second, and so on. So equal tokenisations give the
       identity, empty spans and shared segments included.
    2. Any other student token is linked to the teacher tokens that overlap it: those that start
       before its end and end behind its start.
    3. One that overlaps none (an empty span; bytes that the teacher leaves out) is linked to the
       teacher token that holds its first position, else to the next one, else to the last.
    4. A teacher token still without a partner goes to the next student token. Behind the last
       student token there is none: those teacher tokens stay alone (T5 drops white space at the
       end; give the end-of-sequence token the rest of the text as its span to link them).

    So ranges are not empty, their starts and ends never decrease, the first starts at 0 and none
    starts behind the end of the one before.

    Args:
      teacher_spans: [B, T, 2] integers; or a list of `B` arrays [t, 2] of any lengths.
      student_spans: [B, S, 2] integers; or a list of `B` arrays [s, 2].
      teacher_lengths: [B] integers in [0, T]; None: all of them are full. Not with a list.
      student_lengths: [B] integers in [0, S]; None: all of them are full. Not with a list.

    Returns:
      A `Path`, certified throughout. `total_cost` counts the bytes that just one side's tokens
      cover: 0 where both cover the same. Where just one side has no tokens there is no path: cost
      `INT32_MAX` and empty ranges. Arrays give a path of arrays [B, S], compiled once per shape,
      under `jit` and `vmap` too; lists one of numpy arrays, `S` the longest list, compiled once
      per power of two of tokens and of examples (up to 1,024 at a time).

    Raises:
      TypeError: spans are not integers.
      ValueError: shapes do not fit, or, for lists only, spans are negative, end before they start,
        or decrease.
    """
    if isinstance(teacher_spans, list | tuple) != isinstance(student_spans, list | tuple):
        raise ValueError("spans of both sides must be lists, or of both sides arrays")
    if len(teacher_spans) != len(student_spans):
        raise ValueError(
            f"both sides must have the same number of examples, got {len(teacher_spans)} of the "
            f"teacher and {len(student_spans)} of the student"
        )
    if not isinstance(teacher_spans, list | tuple):
        teacher = _checked_arrays("teacher", teacher_spans, teacher_lengths)
        student = _checked_arrays("student", student_spans, student_lengths)
        return _offsets(*teacher, *student)
    if teacher_lengths is not None or student_lengths is not None:
        raise ValueError("lengths are for arrays; lists of spans have their own")
    return _offsets_of_lists(
        _checked_lists("teacher", teacher_spans), _checked_lists("student", student_spans)
    )


def _checked_arrays(name: str, spans: Any, lengths: Any) -> tuple[jax.Array, jax.Array]:
    """Returns one side's spans and lengths, checked as far as they are known before they run."""
    spans = jnp.asarray(spans)
    if not jnp.issubdtype(spans.dtype, jnp.integer):
        raise TypeError(f"{name}_spans must be integers, got {spans.dtype}")
    if spans.ndim != 3 or spans.shape[2] != 2:
        raise ValueError(f"{name}_spans must be [B, tokens, 2], got shape {spans.shape}")
    if lengths is None:
        lengths = np.full(len(spans), spans.shape[1], np.int32)
    elif np.shape(lengths) != spans.shape[:1]:
        raise ValueError(
            f"{name}_lengths must be [B] = {spans.shape[:1]}, got shape {np.shape(lengths)}"
        )
    elif not isinstance(lengths, jax.core.Tracer):  # traced values cannot be looked at
        outside = (np.asarray(lengths) < 0) | (np.asarray(lengths) > spans.shape[1])
        if outside.any():
            b = int(np.argmax(outside))
            raise ValueError(
                f"{name}_lengths must be in [0, {spans.shape[1]}], got {lengths[b]} for example {b}"
            )
    return spans, jnp.asarray(lengths)


def _checked_lists(name: str, spans: Sequence[Any]) -> list[np.ndarray]:
    """Returns one side's spans as arrays [t, 2]."""
    arrays = [np.asarray(example) for example in spans]
    arrays = [example if len(example) else np.zeros((0, 2), np.int32) for example in arrays]
    for b, example in enumerate(arrays):
        if not np.issubdtype(example.dtype, np.integer):
            raise TypeError(f"{name}_spans must be integers, got {example.dtype} for example {b}")
        if example.ndim != 2 or example.shape[1] != 2:
            raise ValueError(
                f"{name}_spans must be [tokens, 2], got shape {example.shape} for example {b}"
            )
    flat = _flat(arrays)
    wrong = (flat[:, 0] < 0) | (flat[:, 0] > flat[:, 1])
    example_of = np.repeat(np.arange(len(arrays)), [len(example) for example in arrays])
    same_example = example_of[1:] == example_of[:-1]
    wrong[1:] |= (flat[1:] < flat[:-1]).any(axis=1) & same_example
    if wrong.any():
        place = int(np.argmax(wrong))
        b = int(example_of[place])
        i = place - int(np.argmax(example_of == b))
        raise ValueError(
            f"{name}_spans must start at 0 or later, end no sooner than they start and never "
            f"decrease, got {arrays[b][max(0, i - 1) : i + 1].tolist()} up to token {i} of "
            f"example {b}"
        )
    return arrays


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 2), np.int32), *arrays])


def _offsets_of_lists(teacher: list[np.ndarray], student: list[np.ndarray]) -> Path:
    """Aligns examples of any lengths, those of similar length together."""
    longest = [max(len(t), len(s)) for t, s in zip(teacher, student, strict=True)]
    widths = np.array([_power_of_two(max(_SMALLEST_WIDTH, n)) for n in longest], int)
    width = max(map(len, student), default=0)
    path = Path(
        total_cost=np.zeros(len(student), np.int32),
        teacher_start=np.zeros((len(student), width), np.int32),
        teacher_end=np.zeros((len(student), width), np.int32),
        certified=np.ones(len(student), bool),
    )
    for bucket in np.unique(widths):
        of_bucket = np.flatnonzero(widths == bucket)
        for start in range(0, len(of_bucket), _LARGEST_SLICE):
            rows = of_bucket[start : start + _LARGEST_SLICE]
            sides = (_padded([side[b] for b in rows], bucket) for side in (teacher, student))
            result = _offsets(*(array for side in sides for array in side))
            kept = min(bucket, width)
            path.total_cost[rows] = np.asarray(result.total_cost)[: len(rows)]
            path.teacher_start[rows, :kept] = np.asarray(result.teacher_start)[: len(rows), :kept]
            path.teacher_end[rows, :kept] = np.asarray(result.teacher_end)[: len(rows), :kept]
    return path


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _padded(arrays: list[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns [B, width, 2] int32 and [B] lengths; `B` is a power of two."""
    lengths = np.zeros(_power_of_two(len(arrays)), np.int32)
    lengths[: len(arrays)] = [len(example) for example in arrays]
    padded = np.zeros((len(lengths), width, 2), np.int32)
    padded[np.arange(width) < lengths[:, None]] = _flat(arrays)
    return padded, lengths


@jax.jit
def _offsets(
    teacher: jax.Array,
    teacher_lengths: jax.Array,
    student: jax.Array,
    student_lengths: jax.Array,
) -> Path:
    # The lookups below want at least one token.
    teacher = _at_least_one(teacher.astype(jnp.int32))
    width = student.shape[1]
    student = _at_least_one(student.astype(jnp.int32))
    lengths = teacher_lengths.astype(jnp.int32), student_lengths.astype(jnp.int32)
    total, starts, ends = jax.vmap(_one)(teacher, lengths[0], student, lengths[1])
    return Path(total, starts[:, :width], ends[:, :width], jnp.ones(total.shape, bool))


def _at_least_one(spans: jax.Array) -> jax.Array:
    return jnp.pad(spans, ((0, 0), (0, int(spans.shape[1] == 0)), (0, 0)))


def _one(
    teacher: jax.Array, teacher_length: jax.Array, student: jax.Array, student_length: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Aligns one example, unbatched, [T, 2] with [S, 2]; returns cost, [S] starts, [S] ends."""
    inside = jnp.arange(len(student)) < student_length
    # Padding lies behind every byte, so that starts and ends stay sorted.
    teacher = jnp.where((jnp.arange(len(teacher)) < teacher_length)[:, None], teacher, INT32_MAX)
    student = jnp.where(inside[:, None], student, INT32_MAX)
    total = _bytes_of_one_side(teacher, teacher_length, student, student_length)

    first, after = _same_span(teacher, student)
    own_first, own_after = _same_span(student, student)
    paired = (after > first) & (after - first == own_after - own_first)
    partner = first + jnp.arange(len(student)) - own_first
    starts = jnp.minimum(
        jnp.searchsorted(teacher[:, 1], student[:, 0], side="right"), teacher_length - 1
    )
    ends = jnp.maximum(jnp.searchsorted(teacher[:, 0], student[:, 1], side="left"), starts + 1)
    starts = jnp.where(paired, partner, starts)
    ends = jnp.where(paired, partner + 1, ends)

    # Padding of the student must not be the least start; its ends come last and are cut off.
    starts = jax.lax.cummin(jnp.where(inside, starts, INT32_MAX), reverse=True)
    ends = jax.lax.cummax(ends)
    starts = jnp.minimum(starts, jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]]))
    linked = inside & (teacher_length > 0)
    total = jnp.where((teacher_length > 0) == (student_length > 0), total, INT32_MAX)
    return total, linked * starts, linked * ends


def _same_span(sorted_spans: jax.Array, spans: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds the tokens that have exactly a given span.

    Args:
      sorted_spans: [T, 2] int32; starts and ends never decrease, so that tokens of one start are
        neighbours, and so are tokens of one end.
      spans: [S, 2] int32.

    Returns:
      [S] first, [S] one past the last; not past the first where there is none.
    """
    (starts, ends), (start, end) = sorted_spans.T, spans.T
    first = jnp.maximum(
        jnp.searchsorted(starts, start, side="left"), jnp.searchsorted(ends, end, side="left")
    )
    after = jnp.minimum(
        jnp.searchsorted(starts, start, side="right"), jnp.searchsorted(ends, end, side="right")
    )
    return first, after


def _bytes_of_one_side(
    teacher: jax.Array, teacher_length: jax.Array, student: jax.Array, student_length: jax.Array
) -> jax.Array:
    """Counts the bytes that tokens of exactly one side cover; [T, 2], [], [S, 2], [] to []."""
    teacher_starts, teacher_counts = _fresh_bytes(teacher, teacher_length)
    student_starts, student_counts = _fresh_bytes(student, student_length)
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(teacher_counts)])

    def covered_before(place: jax.Array) -> jax.Array:
        """Counts the teacher's bytes in front of each place."""
        last = jnp.searchsorted(teacher_starts, place, side="left") - 1
        last = jnp.maximum(last, 0)
        return before[last] + jnp.clip(place - teacher_starts[last], 0, teacher_counts[last])

    both = covered_before(student_starts + student_counts) - covered_before(student_starts)
    return jnp.sum(teacher_counts) + jnp.sum(student_counts) - 2 * jnp.sum(both)


def _fresh_bytes(spans: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns where the bytes begin that no token before covers, and how many; 0 at padding."""
    starts, ends = spans.T
    starts = jnp.maximum(starts, jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]]))
    return starts, jnp.where(jnp.arange(len(spans)) < length, ends - starts, 0)
