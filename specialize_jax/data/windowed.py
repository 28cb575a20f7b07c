"""Which examples of a stream share a row: bin packing in two dimensions, a window at a time.

A row has room for encoder tokens and for target tokens. The next row starts with the example that
has waited longest, so none waits for ever; then the window's example that leaves the least room,
by Euclidean length of both rooms as shares of the row, joins it until none fits (norm-based greedy:
Panigrahy, Talwar, Uyeda and Wieder, "Heuristics for Vector Bin Packing", 2011). A pure function of
the stream.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np


def choose(sizes: np.ndarray, room: np.ndarray) -> list[int]:
    """Returns which of the waiting examples make the next row.

    Args:
      sizes: [W, 2] int; tokens of each waiting example, longest waiting first; W >= 1.
      room: [2] int; tokens of a row, at least those of every example.

    Returns:
      Indices of examples, 0 among them, in ascending order.
    """
    chosen = [0]
    left = room - sizes[0]
    is_free = np.arange(len(sizes)) > 0
    while (fits := is_free & (sizes <= left).all(-1)).any():
        emptiness = np.square((left - sizes) / room).sum(-1)
        best = int(np.where(fits, emptiness, np.inf).argmin())
        chosen.append(best)
        is_free[best] = False
        left = left - sizes[best]
    return sorted(chosen)


def groups(
    sizes: Iterable[tuple[int, int]], room: tuple[int, int], *, window: int
) -> Iterator[list[int]]:
    """Yields the examples of each row, by their place in the stream.

    Args:
      sizes: of the examples; none larger than `room`.
      room: of a row.
      window: examples that wait at a time; 1 gives every example a row of its own.
    """
    stream = enumerate(sizes)
    waiting: list[tuple[int, tuple[int, int]]] = []
    while True:
        waiting.extend(itertools.islice(stream, window - len(waiting)))
        if not waiting:
            return
        chosen = choose(np.array([size for _, size in waiting]), np.array(room))
        yield [waiting[index][0] for index in chosen]
        taken = set(chosen)
        waiting = [each for index, each in enumerate(waiting) if index not in taken]


def suggestion(tokens: tuple[int, int], lengths: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Returns lengths in the proportion of the tokens, so that both sides of a row can be full.

    Args:
      tokens: real encoder and decoder tokens.
      lengths: of a row; the side that is filled better keeps its length.
      multiple: the other side becomes a multiple of this.
    """
    filled = [count / length for count, length in zip(tokens, lengths, strict=True)]
    keep = 0 if filled[0] >= filled[1] else 1
    wanted = lengths[keep] * tokens[1 - keep] / tokens[keep]
    other = max(multiple, round(wanted / multiple) * multiple)
    return (lengths[0], other) if keep == 0 else (other, lengths[1])
