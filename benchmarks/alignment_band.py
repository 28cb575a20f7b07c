"""The banded dynamic program: time and memory over lengths, and how often it is certified.

    python benchmarks/alignment_band.py --data_dir ../shared/data

Teacher tokens p50k_base, student tokens T5, of GSM8K's human solutions; for long examples whole
solutions are joined until one side would be longer than the length. Times are from lists of tokens
to ranges, compilation not counted: `band` is the banded pass alone, `with rerun` is `align_batch`,
where what is not certified runs again at full width.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from specialize_jax import alignment, tokenizers

Pairs = list[tuple[list[bytes], list[str]]]


def main() -> None:
    """Prints two tables."""
    flags = _flags()
    pairs = _tokenise(pathlib.Path(flags.data_dir))
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the start")
    _rates(pairs, flags.bands, flags.repeats)
    _lengths(pairs, flags.lengths, flags.bands, flags.batch, flags.repeats)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = os.environ.get("SPECIALIZE_JAX_DATA", "../shared/data")
    parser.add_argument("--data_dir", default=default, help="folder of public data sets")
    parser.add_argument("--bands", type=int, nargs="+", default=[8, 16, 32])
    lengths = [256, 512, 1024, 2048, 4096, 8192]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--batch", type=int, default=2, help="examples of each length")
    parser.add_argument("--repeats", type=int, default=3, help="runs; medians are printed")
    return parser.parse_args()


def _tokenise(folder: pathlib.Path) -> Pairs:
    """Returns GSM8K solutions, calculator annotations removed, as teacher and student tokens."""
    teacher = tokenizers.load(folder / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    student = tokenizers.load(folder / "tokenizer_t5" / "spiece.model")
    assert isinstance(teacher, tokenizers.TiktokenTokenizer)
    pairs = []
    with open(folder / "gsm8k" / "train.jsonl", encoding="utf-8") as lines:
        for line in lines:
            answer = re.sub(r"<<.*?>>", "", json.loads(line)["answer"])
            text = answer.replace("#### ", "The answer is ")
            ids = teacher.encode(text)
            pairs.append((teacher.token_bytes(ids), student.pieces(student.encode(text))))
    return pairs


def _rates(pairs: Pairs, bands: list[int], repeats: int) -> None:
    print(f"\n{len(pairs)} GSM8K solutions, sequences/s")
    print(f"{'w':>4s} {'certified':>10s} {'band':>8s} {'with rerun':>11s} {'full':>8s}")
    _table(tuple(zip(*pairs, strict=True)), "", bands, repeats, lambda s: f"{len(pairs) / s:,.0f}")


def _lengths(pairs: Pairs, lengths: list[int], bands: list[int], batch: int, repeats: int) -> None:
    print(f"\n{batch} examples of each length, milliseconds")
    head = f"{'tokens':>6s} {'w':>4s} {'certified':>10s} {'band':>8s} {'with rerun':>11s}"
    print(f"{head} {'full':>8s}")
    solutions = itertools.cycle(pairs)
    for length in lengths:
        sides: tuple[list[Any], list[Any]] = ([], [])
        for _ in range(batch):
            teacher, student = next(solutions)
            for more_t, more_s in solutions:
                if max(len(teacher) + len(more_t), len(student) + len(more_s)) > length:
                    break
                teacher, student = teacher + more_t, student + more_s
            sides[0].append(teacher)
            sides[1].append(student)
        _table(sides, f"{length:6d} ", bands, repeats, lambda s: f"{1e3 * s:,.1f}")


def _table(
    sides: tuple[Any, Any],
    start: str,
    bands: list[int],
    repeats: int,
    show: Callable[[float], str],
) -> None:
    full, whole = _time(lambda: alignment.align_batch(*sides), repeats)
    for band in bands:
        alone, banded = _time(lambda band=band: alignment.align_band(*sides, band=band), repeats)
        both, path = _time(lambda band=band: alignment.align_batch(*sides, band=band), repeats)
        _check_equal(path, whole)
        rate = f"{banded.certified.mean():10.2%}"
        times = f"{show(alone):>8s} {show(both):>11s} {show(full):>8s}"
        print(f"{start}{band:4d} {rate} {times}", flush=True)


def _time(run: Callable[[], alignment.Path], repeats: int) -> tuple[float, alignment.Path]:
    seconds, path = [], run()
    for _ in range(repeats):
        start = time.perf_counter()
        path = run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), path


def _check_equal(path: alignment.Path, whole: alignment.Path) -> None:
    for name in ("total_cost", "teacher_start", "teacher_end", "certified"):
        np.testing.assert_array_equal(getattr(path, name), getattr(whole, name))


if __name__ == "__main__":
    main()
