"""Token costs: Levenshtein distances between surfaces, each distinct pair computed once.

A batch of token lists becomes two id arrays and one table of distances between distinct surfaces.
The table is filled by the bit-parallel method of Myers (https://doi.org/10.1145/316542.316550) in
the form of Hyyrö (https://doi.org/10.1007/s00453-002-0969-x, "Explaining and extending the
bit-parallel approximate string matching algorithm of Myers"): a column of the distance matrix is
two words, so a SIMD register advances dozens of pairs by one code point.

Letters: `B` batch, `T` teacher tokens, `S` student tokens; `P` and `Q` distinct teacher and student
surfaces.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment.reference import levenshtein, surface

Tokens = Sequence[str | bytes]

# Length classes of surfaces: up to so many code points, and the word that then holds a column of
# the distance matrix. Longer surfaces take the slow way.
_LIMITS = (4, 8, 16, 32)
_WORDS = (np.uint8, np.uint8, np.uint16, np.uint32)
_LONGEST = _LIMITS[-1]
# A kernel call fills a tile of at most this many students x teachers.
_TILE_ROWS, _TILE_COLUMNS = 128, 4096
_TILE_PAIRS = 1 << 16


class Indexed(NamedTuple):
    """Token lists as numbers: list `b` is `ids[offsets[b] : offsets[b + 1]]`."""

    ids: np.ndarray  # [sum of lengths] int32, rows of `surfaces`
    offsets: np.ndarray  # [B + 1] int64
    surfaces: list[str]  # distinct, in order of length class

    @property
    def lengths(self) -> np.ndarray:
        """[B] int64; tokens in each list."""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, width: int) -> np.ndarray:
        """Returns the ids of some lists as an array, id 0 where a list has ended.

        Args:
          rows: [R] int; which lists.
          width: tokens per row; no list may be longer.

        Returns:
          [R, width] int32.
        """
        if not len(self.ids):
            return np.zeros((len(rows), width), np.int32)
        columns = np.arange(width)[None, :]
        positions = np.minimum(self.offsets[rows][:, None] + columns, len(self.ids) - 1)
        return np.where(columns < self.lengths[rows][:, None], self.ids[positions], 0)


class _SurfaceIds(dict[str | bytes, int]):
    """Token -> number of its surface; a token not seen before is numbered on the way."""

    def __init__(self) -> None:
        self.surfaces: dict[str, int] = {}

    def __missing__(self, token: str | bytes) -> int:
        number = self[token] = self.surfaces.setdefault(surface(token), len(self.surfaces))
        return number


def index(batch: Sequence[Tokens]) -> Indexed:
    """Numbers the distinct surfaces of a batch by length class, then in order of appearance.

    Frequent surfaces appear early, so the part of the table that is read most stays small.
    """
    numbers = _SurfaceIds()
    offsets = np.zeros(len(batch) + 1, np.int64)
    np.cumsum([len(tokens) for tokens in batch], out=offsets[1:])
    # One dictionary look-up per token is most of the host's work: keep this loop in C.
    lookups = map(numbers.__getitem__, chain.from_iterable(batch))
    ids = np.fromiter(lookups, np.int32, int(offsets[-1]))
    order, surfaces = sorted_by_length(list(numbers.surfaces))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Indexed(rank[ids], offsets, surfaces)


def sorted_by_length(surfaces: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns [len(surfaces)] places and the surfaces in that order: length class, then place."""
    order = np.argsort(_length_class(surfaces), kind="stable")
    return order, [surfaces[k] for k in order]


def edit_distance_costs(
    teacher_surfaces: Sequence[Tokens], student_surfaces: Sequence[Tokens]
) -> np.ndarray:
    """Returns the edit distance of every teacher token to every student token of its example.

    Distances count code points of the tokens without U+0020 and U+2581 (`reference.surface`).

    Args:
      teacher_surfaces: `B` lists of up to `T` tokens; bytes are read as UTF-8 with replacement.
      student_surfaces: `B` lists of up to `S` tokens.

    Returns:
      [B, T, S] int32; `T` and `S` are the longest lists. Padding is 0, and `dtw` never reads it.

    Raises:
      ValueError: the two sides have different numbers of lists.
    """
    check_same_number(teacher_surfaces, student_surfaces)
    teacher, student = index(teacher_surfaces), index(student_surfaces)
    rows = np.arange(len(teacher_surfaces))
    width_t, width_s = (max(side.lengths, default=0) for side in (teacher, student))
    costs = np.zeros((len(rows), width_t, width_s), np.int32)
    if costs.size:
        shape = len(student.surfaces), len(teacher.surfaces)
        dtype = table_dtype(teacher.surfaces, student.surfaces)
        table: np.ndarray = np.empty(shape, dtype)
        fill_table(table, teacher.surfaces, student.surfaces)
        t, s = teacher.padded(rows, width_t), student.padded(rows, width_s)
        costs[:] = table[s[:, None, :], t[:, :, None]]
        costs *= np.arange(width_t)[None, :, None] < teacher.lengths[:, None, None]
        costs *= np.arange(width_s)[None, None, :] < student.lengths[:, None, None]
    return costs


def check_same_number(teacher: Sequence[Tokens], student: Sequence[Tokens]) -> None:
    """Raises ValueError unless there are as many teacher lists as student lists."""
    if len(teacher) != len(student):
        raise ValueError(
            "teacher_surfaces and student_surfaces must hold one list per example, "
            f"got {len(teacher)} and {len(student)} lists"
        )


def table_dtype(teacher: Sequence[str], student: Sequence[str]) -> type:
    """Returns the numpy type that holds every distance between two lists: int8 or int32."""
    longest = max(map(len, chain(teacher, student)), default=0)
    return np.int8 if longest < 128 else np.int32


def fill_table(table: np.ndarray, teacher: Sequence[str], student: Sequence[str]) -> None:
    """Writes the edit distances between two lists of surfaces.

    Args:
      table: [Q, P] of `table_dtype(teacher, student)`; overwritten.
      teacher: `P` surfaces in order of length class, as `index` gives them.
      student: `Q` surfaces, likewise.
    """
    text_ends = np.searchsorted(_length_class(student), range(len(_LIMITS)), side="right")
    word_ends = np.searchsorted(_length_class(teacher), range(len(_LIMITS)), side="right")
    _fill_long(table, teacher, student, int(word_ends[-1]), int(text_ends[-1]))
    texts, alphabet = _encode(student[: text_ends[-1]])
    tiles: list[tuple[slice, slice, jax.Array]] = []
    for word, columns in zip(_WORDS, _spans(word_ends, _TILE_COLUMNS), strict=True):
        for column in columns:
            masks = _bit_masks(teacher[column], alphabet, word)
            for length, rows in zip(_LIMITS, _spans(text_ends, _TILE_ROWS), strict=True):
                for row in rows:
                    tiles.append((row, column, _myers(*masks, *_texts(texts, row, length))))
    # Every kernel was started before the first is waited for.
    for row, column, distances in tiles:
        height, width = row.stop - row.start, column.stop - column.start
        table[row, column] = np.asarray(distances)[:height, :width]


def pair_distances(
    teacher: Sequence[str], student: Sequence[str], p: np.ndarray, q: np.ndarray
) -> np.ndarray:
    """Returns the edit distances of chosen pairs, for where a table of all would be too large.

    Args:
      teacher: `P` surfaces.
      student: `Q` surfaces.
      p: [N] int; teacher surfaces.
      q: [N] int; the student surface that each is compared with.

    Returns:
      [N] of `table_dtype(teacher, student)`.
    """
    distances: np.ndarray = np.empty(len(p), table_dtype(teacher, student))
    # The class of a pair is that of its longer surface.
    classes = np.maximum(_length_class(teacher)[p], _length_class(student)[q])
    for n in np.flatnonzero(classes == len(_LIMITS)):
        distances[n] = levenshtein(teacher[p[n]], student[q[n]])
    lengths_t, lengths_s = _lengths(teacher), _lengths(student)
    for k, (limit, word) in enumerate(zip(_LIMITS, _WORDS, strict=True)):
        of_class = np.flatnonzero(classes == k)
        if not len(of_class):
            continue
        # Longer surfaces are cut off here, and belong to no pair of this class.
        codes_t, codes_s = (
            _code_points(side, limit).astype(np.int32) for side in (teacher, student)
        )
        for start in range(0, len(of_class), _TILE_PAIRS):
            rows = of_class[start : start + _TILE_PAIRS]
            spare = _power_of_two(len(rows)) - len(rows)
            picked_t, picked_s = (np.pad(side[rows], (0, spare)) for side in (p, q))
            found = _myers_pairs(
                codes_t[picked_t],
                lengths_t[picked_t].astype(np.int8),
                codes_s[picked_s],
                lengths_s[picked_s].astype(np.int8),
                word=word,
            )
            distances[rows] = np.asarray(found)[: len(rows)]
    return distances


def _lengths(surfaces: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(len, surfaces), np.int64, len(surfaces))


def _length_class(surfaces: Sequence[str]) -> np.ndarray:
    return np.searchsorted(_LIMITS, _lengths(surfaces))


def _spans(ends: np.ndarray, size: int) -> list[list[slice]]:
    """Cuts the classes that end at `ends` into slices of at most `size`, class by class."""
    starts = [0, *ends[:-1]]
    return [
        [slice(a, min(a + size, end)) for a in range(int(start), int(end), size)]
        for start, end in zip(starts, ends, strict=True)
    ]


def _fill_long(
    table: np.ndarray, teacher: Sequence[str], student: Sequence[str], p: int, q: int
) -> None:
    """Fills columns from `p` and rows from `q`, too long for a word; few in real vocabularies."""
    for column in range(p, len(teacher)):
        table[:q, column] = _one_to_many(teacher[column], student[:q])
        table[q:, column] = [levenshtein(teacher[column], other) for other in student[q:]]
    for row in range(q, len(student)):
        table[row, :p] = _one_to_many(student[row], teacher[:p])


def _one_to_many(word: str, texts: Sequence[str]) -> np.ndarray:
    """Returns the edit distances [len(texts)] of a word of any length to texts of few letters."""
    lengths = _lengths(texts)
    codes = _code_points(texts, max(1, lengths.max(initial=0))).T
    # `rows[k]`: distance of the word so far to the first `k` code points of each text.
    rows = np.tile(np.arange(len(codes) + 1, dtype=np.int32)[:, None], len(texts))
    for char in word:
        different = codes != ord(char)
        corner = rows[0].copy()
        rows[0] += 1
        for k in range(len(codes)):
            best = np.minimum(np.minimum(rows[k + 1], rows[k]) + 1, corner + different[k])
            corner, rows[k + 1] = rows[k + 1].copy(), best
    return rows[lengths, np.arange(len(texts))]


def _code_points(surfaces: Sequence[str], width: int) -> np.ndarray:
    """Returns the code points as [len(surfaces), width] int64, -1 behind the end."""
    text = np.array(surfaces, dtype=f"<U{width}")
    codes = text.view(np.uint32).reshape(len(surfaces), width).astype(np.int64)
    return np.where(np.arange(width)[None, :] < _lengths(surfaces)[:, None], codes, -1)


def _encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the characters of some texts.

    Returns:
      [Q, _LONGEST + 1] int32, each text's character numbers (row in the alphabet) and, last, its
      length; and the alphabet, sorted code points led by -1 for "no character".
    """
    codes = _code_points(texts, _LONGEST)
    alphabet = np.unique(np.append(codes, -1))
    numbers = np.searchsorted(alphabet, codes)
    return np.column_stack([numbers, _lengths(texts)]).astype(np.int32), alphabet


def _texts(texts: np.ndarray, rows: slice, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns some encoded texts for the kernel: [R, length] numbers and [R] lengths."""
    picked = texts[rows]
    padded = np.zeros((_power_of_two(len(picked)), texts.shape[1]), np.int32)
    padded[: len(picked)] = picked
    return padded[:, :length], padded[:, -1].astype(np.int8)


def _bit_masks(
    patterns: Sequence[str], alphabet: np.ndarray, word: Any
) -> tuple[jax.Array, jax.Array]:
    """Returns where each character stands in each pattern, and which bits a pattern uses.

    Args:
      patterns: surfaces, no longer than `word` has bits.
      alphabet: sorted code points; row 0 stands for "no character", which occurs nowhere.
      word: an unsigned numpy type.

    Returns:
      [A, C] of `word`, bit `k` set where the character is the pattern's `k`-th; and [C] of `word`.
    """
    width = _power_of_two(len(patterns))
    bits = np.iinfo(word).bits
    codes = _code_points(patterns, bits)
    numbers = np.minimum(np.searchsorted(alphabet, codes), len(alphabet) - 1)
    numbers = np.where(alphabet[numbers] == codes, numbers, 0)
    occurrences = np.zeros((_power_of_two(len(alphabet)), width), word)
    for bit in range(bits):
        occurrences[numbers[:, bit], np.arange(len(patterns))] |= word(1 << bit)
    occurrences[0] = 0
    mask = np.zeros(width, np.int64)
    mask[: len(patterns)] = (1 << _lengths(patterns)) - 1
    return jax.device_put((occurrences, mask.astype(word)))


def _power_of_two(n: int) -> int:
    """Rounds up, not below 16, so that few shapes are ever compiled."""
    return max(16, 1 << (n - 1).bit_length())


@jax.jit
def _myers(
    occurrences: jax.Array, mask: jax.Array, codes: jax.Array, lengths: jax.Array
) -> jax.Array:
    """Returns the distances of `R` texts to `C` patterns.

    Args:
      occurrences: [A, C] unsigned; see `_bit_masks`.
      mask: [C] unsigned; the bits that a pattern uses.
      codes: [R, L] int32; the texts, padded.
      lengths: [R] int8; of the texts.

    Returns:
      [R, C] int8.
    """

    def equal(k: jax.Array) -> jax.Array:
        return occurrences.at[codes[:, k]].get(mode="promise_in_bounds")

    used = jnp.broadcast_to(mask[None, :], (codes.shape[0], mask.shape[0]))
    return _advance(equal, used, lengths[:, None], codes.shape[1])


@functools.partial(jax.jit, static_argnames="word")
def _myers_pairs(
    patterns: jax.Array,
    pattern_lengths: jax.Array,
    texts: jax.Array,
    text_lengths: jax.Array,
    *,
    word: Any,
) -> jax.Array:
    """Returns the distances of `N` texts to a pattern each.

    Args:
      patterns: [N, L] int32; code points, padded.
      pattern_lengths: [N] int8; at most the bits of `word`.
      texts: [N, L] int32.
      text_lengths: [N] int8.
      word: an unsigned numpy type of at least `L` bits.

    Returns:
      [N] int8.
    """
    bits = jnp.left_shift(jnp.ones((), word), jnp.arange(patterns.shape[1]).astype(word))
    inside = jnp.arange(patterns.shape[1])[None, :] < pattern_lengths[:, None]

    def equal(k: jax.Array) -> jax.Array:
        occurs = inside & (patterns == texts[:, k][:, None])
        return jnp.where(occurs, bits[None, :], 0).sum(1, dtype=word)

    used = jnp.where(inside, bits[None, :], 0).sum(1, dtype=word)
    return _advance(equal, used, text_lengths, texts.shape[1])


def _advance(
    equal: Callable[[jax.Array], jax.Array], used: jax.Array, lengths: jax.Array, steps: int
) -> jax.Array:
    """Advances columns of the distance matrix by one code point of their text at a time.

    Bit `k` of `plus` (`minus`) says that the distance grows (shrinks) by one from row `k` to row
    `k + 1` of the present column, so the last row of the last column is the length of the text
    plus the growing minus the shrinking bits.

    Args:
      equal: from a position in the texts to the bits where the patterns have the text's character.
      used: unsigned, one per pair; the bits that its pattern uses.
      lengths: int8, broadcasts against `used`; of the texts.
      steps: at least every length.

    Returns:
      int8, the distances.
    """
    one = jnp.ones((), used.dtype)

    def step(k: jax.Array, columns: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        plus, minus = columns
        same = equal(k)
        diagonal = (((same & plus) + plus) ^ plus) | same | minus
        right_plus = ((minus | ~(diagonal | plus)) << one) | one
        right_minus = (diagonal & plus) << one
        inside = k < lengths
        return (
            jnp.where(inside, right_minus | ~(diagonal | right_plus), plus),
            jnp.where(inside, right_plus & diagonal, minus),
        )

    # Unrolled, so that the columns stay in registers through one fused loop over the tile.
    start = (used, jnp.zeros_like(used))
    plus, minus = jax.lax.fori_loop(0, steps, step, start, unroll=min(steps, 8))
    grow = jax.lax.population_count(plus & used).astype(jnp.int8)
    shrink = jax.lax.population_count(minus & used).astype(jnp.int8)
    return lengths + grow - shrink
