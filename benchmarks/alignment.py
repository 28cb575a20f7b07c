"""Exact DTW from lists of tokens: ours against plain Python, the published way and numba.

    python benchmarks/alignment.py --data_dir ../shared/data

The texts are GSM8K's human solutions, teacher tokens p50k_base, student tokens T5. Ours is
`alignment.align_batch`: distances of distinct pairs, dynamic program, walk back. A baseline is
timed on a sample of the same texts, in the same rounds as ours, so that a busy machine slows all.

| name               | what it does                                                            |
|--------------------|-------------------------------------------------------------------------|
| plain Python       | `alignment.reference.align`, distances of distinct pairs cached; the    |
|                    | cache is empty at the start (cold) or holds the sample's pairs (warm)   |
| as published       | a compiled edit distance (`editdistance`) per cell, the rest Python     |
| numba              | compiled, one thread: an edit distance per cell, cost only, no path     |
| numba, ready costs | the same without the edit distances: the bare dynamic program           |

The last three run only where their package is installed. Wall time on a busy machine says little;
the processor time of all threads, printed beside it, says more.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from specialize_jax import alignment, tokenizers
from specialize_jax.alignment import reference

Pairs = list[tuple[list[bytes], list[str]]]


def main() -> None:
    """Prints medians over rounds, and ratios."""
    flags = _flags()
    pairs = _tokenise(pathlib.Path(flags.data_dir), flags.sequences)
    step = max(1, len(pairs) // flags.baseline_sequences)
    sample = pairs[::step]
    _describe(pairs, sample)
    _check(pairs, step)
    runs: dict[str, tuple[int, Callable[[], Any]]] = {
        "ours": (len(pairs), lambda: alignment.align_batch(*zip(*pairs, strict=True))),
        "plain Python, cold": (len(sample), lambda: _plain_python(sample, cold=True)),
        "plain Python, warm": (len(sample), lambda: _plain_python(sample, cold=False)),
        **_optional(sample),
    }
    times = _measure(runs, flags.repeats)
    medians = {name: np.median(rounds, axis=0) / runs[name][0] for name, rounds in times.items()}
    print(f"{'':20s} {'sequences/s':>12s} {'ours is':>9s} {'cpu us each':>13s} {'ours is':>9s}")
    for name, (wall, cpu) in medians.items():
        ratio = [theirs / ours for theirs, ours in zip((wall, cpu), medians["ours"], strict=True)]
        print(f"{name:20s} {1 / wall:12,.0f} {ratio[0]:8.1f}x {cpu * 1e6:13,.1f} {ratio[1]:8.1f}x")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = os.environ.get("SPECIALIZE_JAX_DATA", "../shared/data")
    parser.add_argument("--data_dir", default=default, help="folder of public data sets")
    parser.add_argument("--sequences", type=int, default=7473, help="solutions aligned by ours")
    parser.add_argument("--baseline_sequences", type=int, default=100, help="and by the others")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; medians are printed")
    return parser.parse_args()


def _tokenise(folder: pathlib.Path, sequences: int) -> Pairs:
    """Returns GSM8K solutions, calculator annotations removed, as teacher and student tokens."""
    teacher = tokenizers.load(folder / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    student = tokenizers.load(folder / "tokenizer_t5" / "spiece.model")
    assert isinstance(teacher, tokenizers.TiktokenTokenizer)
    pairs = []
    with open(folder / "gsm8k" / "train.jsonl", encoding="utf-8") as lines:
        for _, line in zip(range(sequences), lines, strict=False):
            answer = re.sub(r"<<.*?>>", "", json.loads(line)["answer"])
            text = answer.replace("#### ", "The answer is ")
            ids = teacher.encode(text)
            pairs.append((teacher.token_bytes(ids), student.pieces(student.encode(text))))
    return pairs


def _describe(pairs: Pairs, sample: Pairs) -> None:
    packages = ("jax", "jaxlib", "numpy", "numba", "editdistance")
    print(f"python {platform.python_version()}, {', '.join(filter(None, map(_version, packages)))}")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the start")
    lengths = np.array([(len(t), len(s)) for t, s in pairs])
    mean, largest = lengths.mean(0), lengths.max(0)
    cells = lengths.prod(1).mean()
    print(
        f"{len(pairs)} sequences (baselines: {len(sample)}), teacher x student tokens: "
        f"mean {mean[0]:.0f} x {mean[1]:.0f}, largest {largest[0]} x {largest[1]}, "
        f"{cells:,.0f} cells each"
    )


def _version(package: str) -> str | None:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _check(pairs: Pairs, step: int) -> None:
    """Compiles every shape, and makes sure that ours and plain Python agree."""
    path = alignment.align_batch(*zip(*pairs, strict=True))
    starts, ends = path.teacher_start[::step].tolist(), path.teacher_end[::step].tolist()
    for b, ranges in enumerate(_plain_python(pairs[::step], cold=False)):
        assert ranges == list(zip(starts[b], ends[b], strict=True))[: len(ranges)], b


def _plain_python(sample: Pairs, *, cold: bool) -> list[list[tuple[int, int]]]:
    if cold:
        reference._cached_levenshtein.cache_clear()
    return [reference.align(teacher, student) for teacher, student in sample]


def _optional(sample: Pairs) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Returns the baselines whose package is installed."""
    runs: dict[str, tuple[int, Callable[[], Any]]] = {}
    if _version("editdistance"):
        runs["as published"] = len(sample), lambda: [_published(t, s) for t, s in sample]
    if _version("numba"):
        distances, total_cost = _numba_programs()
        coded = [(_code_points(t), _code_points(s)) for t, s in sample]
        ready = [distances(*pair[0], *pair[1]) for pair in coded]
        total_cost(ready[0])  # compiles
        runs["numba"] = (
            len(sample),
            lambda: [total_cost(distances(*pair[0], *pair[1])) for pair in coded],
        )
        runs["numba, ready costs"] = len(sample), lambda: [total_cost(costs) for costs in ready]
    return runs


def _code_points(tokens: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the code points of all surfaces in one array, and where each surface starts."""
    surfaces = [reference.surface(token) for token in tokens]
    starts = np.cumsum([0, *map(len, surfaces)])
    return np.array(list(map(ord, "".join(surfaces))), np.int32), starts


def _published(teacher: list[bytes], student: list[str]) -> list[tuple[int, int]]:
    import editdistance

    surfaces = [[reference.surface(token) for token in side] for side in (teacher, student)]
    costs = [[editdistance.eval(t, s) for s in surfaces[1]] for t in surfaces[0]]
    return reference.dtw(costs, len(teacher), len(student))[1]


def _numba_programs() -> tuple[Callable[..., np.ndarray], Callable[[np.ndarray], int]]:
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


def _measure(
    runs: dict[str, tuple[int, Callable[[], Any]]], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Returns wall and processor seconds of every program, run once per round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (_, run) in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


if __name__ == "__main__":
    main()
