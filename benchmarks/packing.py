"""How full packed rows are, for many lengths: ours against first fit, and which lengths to take.

    specialize-jax pack --gin_file=experiments/codex_gsm8k_cpu.gin --out out/line/packed
    python benchmarks/packing.py out/line/packed

Reads the training examples of a packed folder and packs their lengths again. First fit is what this
library did before: an example goes to the first of 128 open rows with room on both sides. Shares
are of all rows of the epoch, the half-empty last ones included. For every encoder length the
decoder length is tried that has the proportion of the tokens, rounded to a multiple.
"""

import argparse
import time
from collections.abc import Iterable

import numpy as np

from specialize_jax.data import windowed
from specialize_jax.data.packed import PackedRows

Sizes = list[tuple[int, int]]


def main() -> None:
    """Prints a table, and the shortest rows that are filled well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", help="what `specialize-jax pack` wrote")
    parser.add_argument("--inputs", type=int, nargs="+", default=[1024, 1536, 2048, 3072, 4096])
    parser.add_argument("--multiple", type=int, default=8, help="of decoder lengths")
    parser.add_argument("--window", type=int, default=1024, help="examples that wait at a time")
    parser.add_argument("--goal", type=float, default=0.95, help="share filled on both sides")
    flags = parser.parse_args()
    rows = PackedRows(flags.folder, "train", batch_rows=1)
    sizes = _sizes(rows)
    tokens = (sum(n for n, _ in sizes), sum(m for _, m in sizes))
    now = (rows.info["lengths"]["inputs"], rows.info["lengths"]["targets"])
    largest = np.max(sizes, axis=0)
    print(
        f"{len(sizes)} examples of {rows.info['mixture']}: {tokens[0]} encoder and {tokens[1]} "
        f"decoder tokens, {tokens[0] / tokens[1]:.2f} to 1; longest {largest[0]} + {largest[1]}"
    )
    pairs = {now}
    for inputs in flags.inputs:
        wanted = inputs * tokens[1] / tokens[0]
        pairs.add((inputs, round(wanted / flags.multiple) * flags.multiple))
    print(
        f"{'lengths':>12s} {'first fit: rows, filled':>28s} {'ours: rows, filled':>28s} {'s':>6s}"
    )
    good = []
    for room in sorted(pairs):
        if (largest > room).any():
            print(f"{room[0]:>7d}+{room[1]:<4d} too short for the longest example")
            continue
        start = time.perf_counter()
        ours = _filled(windowed.groups(sizes, room, window=flags.window), sizes, room)
        seconds = time.perf_counter() - start
        before = _filled(_first_fit(sizes, room), sizes, room)
        mark = " (this folder)" if room == now else ""
        cells = [f"{n:8d} {a:8.2%} {b:8.2%}" for n, a, b in (before, ours)]
        print(f"{room[0]:>7d}+{room[1]:<4d} {cells[0]:>28s} {cells[1]:>28s} {seconds:6.2f}{mark}")
        if min(ours[1:]) >= flags.goal:
            good.append(room)
    if good:
        inputs, targets = good[0]
        print(f"recommended: TASK_FEATURE_LENGTHS = {{'inputs': {inputs}, 'targets': {targets}}}")
    else:
        print(f"no lengths tried fill both sides to {flags.goal:.0%}; try longer --inputs")


def _sizes(rows: PackedRows) -> Sizes:
    """Returns the lengths of all training examples, in an order that packing did not choose."""
    sizes: Sizes = []
    for batch in rows.in_order():
        segments = [batch[f"{side}_segment_ids"][0] for side in ("encoder", "decoder")]
        counts = [np.bincount(side)[1:].tolist() for side in segments]
        sizes += zip(*counts, strict=True)
    return [sizes[i] for i in np.random.default_rng(0).permutation(len(sizes))]


def _first_fit(sizes: Sizes, room: tuple[int, int], open_rows: int = 128) -> Iterable[list[int]]:
    rows: list[tuple[list[int], list[int]]] = []
    for index, size in enumerate(sizes):
        fitting = (row for row in rows if size[0] <= row[1][0] and size[1] <= row[1][1])
        members, left = found = next(fitting, ([], list(room)))
        if not members:
            rows.append(found)
        members.append(index)
        left[0] -= size[0]
        left[1] -= size[1]
        if len(rows) > open_rows:
            yield rows.pop(0)[0]
    yield from (members for members, _ in rows)


def _filled(
    groups: Iterable[list[int]], sizes: Sizes, room: tuple[int, int]
) -> tuple[int, float, float]:
    """Returns the number of rows, and the shares of both sides that are real tokens."""
    rows = list(groups)
    assert sorted(index for members in rows for index in members) == list(range(len(sizes)))
    shares = [sum(size[side] for size in sizes) / (len(rows) * room[side]) for side in (0, 1)]
    return len(rows), shares[0], shares[1]


if __name__ == "__main__":
    main()
