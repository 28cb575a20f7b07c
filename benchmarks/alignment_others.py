"""The programs that `alignment_speed.py` compares ours with; each returns total costs.

numba and editdistance are no dependencies of ours: `optional` returns what is installed.
"""

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from specialize_jax.alignment import reference

Tokens = Sequence[str | bytes]
Pair = tuple[Tokens, Tokens]


def forget() -> None:
    """Empties what `plain_python` remembers."""
    reference._cached_levenshtein.cache_clear()


def plain_python(teacher: Tokens, student: Tokens) -> int:
    """A Python edit distance per distinct pair; the path is found too."""
    return reference.dtw(reference.costs(teacher, student), len(teacher), len(student))[0]


def optional(sample: Sequence[Pair]) -> dict[str, Callable[[], list[int]]]:
    """Returns the programs whose package is installed."""
    runs: dict[str, Callable[[], list[int]]] = {}
    if importlib.util.find_spec("editdistance"):
        runs["papers' program"] = lambda: [papers_program(*pair) for pair in sample]
    else:
        print("papers' program: not run, editdistance is not installed")
    if importlib.util.find_spec("numba"):
        distances, total_cost = numba_programs()
        coded = [(_code_points(teacher), _code_points(student)) for teacher, student in sample]
        ready = [distances(*pair[0], *pair[1]) for pair in coded]
        runs["numba"] = lambda: [total_cost(distances(*pair[0], *pair[1])) for pair in coded]
        runs["numba, ready costs"] = lambda: [total_cost(costs) for costs in ready]
    else:
        print("numba: not run, it is not installed")
    return runs


def papers_program(teacher: Tokens, student: Tokens) -> int:
    """A compiled edit distance per cell, the rest in Python; nothing is remembered."""
    import editdistance

    surfaces = [reference.surface(token) for token in student]
    costs = [[editdistance.eval(t, s) for s in surfaces] for t in map(reference.surface, teacher)]
    return reference.dtw(costs, len(teacher), len(student))[0]


def _code_points(tokens: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the code points of all surfaces in one array, and where each surface starts."""
    surfaces = [reference.surface(token) for token in tokens]
    starts = np.cumsum([0, *map(len, surfaces)])
    return np.array(list(map(ord, "".join(surfaces))), np.int32), starts


def numba_programs() -> tuple[Callable[..., np.ndarray], Callable[[np.ndarray], int]]:
    """Returns the compiled edit distances of one example, and the cost of its best path."""
    import numba

    @numba.njit
    def distances(
        teacher: np.ndarray, t_starts: np.ndarray, student: np.ndarray, s_starts: np.ndarray
    ) -> np.ndarray:
        costs = np.empty((len(t_starts) - 1, len(s_starts) - 1), np.int32)
        row = np.empty(len(student) + 1, np.int32)
        for i in range(costs.shape[0]):
            for j in range(costs.shape[1]):
                a, b = t_starts[i], s_starts[j]
                length = s_starts[j + 1] - b
                for n in range(length + 1):
                    row[n] = n
                for m in range(t_starts[i + 1] - a):
                    corner = row[0]
                    row[0] = m + 1
                    for n in range(length):
                        replace = corner + (teacher[a + m] != student[b + n])
                        corner = row[n + 1]
                        row[n + 1] = min(corner + 1, row[n] + 1, replace)
                costs[i, j] = row[length]
        return costs

    @numba.njit
    def total_cost(costs: np.ndarray) -> int:
        rows, columns = costs.shape
        above = np.full(columns + 1, 1 << 30, np.int32)
        above[0] = 0
        row = np.empty(columns + 1, np.int32)
        for i in range(rows):
            row[0] = 1 << 30
            for j in range(columns):
                row[j + 1] = costs[i, j] + min(above[j], above[j + 1], row[j])
            above, row = row, above
        return int(above[columns])

    return distances, total_cost
