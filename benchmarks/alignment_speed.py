"""How fast the alignment op is: ratios to other programs, growth with length, the whole job.

    python benchmarks/alignment_speed.py --data ../shared/data [--json FILE] [--parts ratios,job]

GSM8K's human solutions, teacher tokens p50k_base, student tokens T5; medians. Four parts:

- `ratios`: `alignment.align_batch` from lists of tokens to ranges, in turn with other programs on
  a sample of the same texts, so that a busy machine slows all. Every total cost is compared.

  | name               | what it does                                                            |
  |--------------------|-------------------------------------------------------------------------|
  | papers' program    | a compiled edit distance (`editdistance`) per cell, the rest Python     |
  | plain Python       | `alignment.reference`: a Python edit distance per distinct pair,        |
  |                    | remembered within the run                                               |
  | numba              | compiled, one thread: an edit distance per cell, cost only, no path     |
  | numba, ready costs | the same without the edit distances: the bare dynamic program           |

- `lengths`: whole solutions joined; full width, `band=` and `offsets`.
- `job`: `specialize-jax align`, Parquet in and out, on records of `made_up_records`.
- `device`: where there is a GPU, the dynamic program's bytes against its memory bandwidth.

numba and editdistance are no dependencies of ours; without them their lines are left out.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import alignment_others as others
import jax
import made_up_records
import numpy as np

from specialize_jax import alignment, tokenizers
from specialize_jax.alignment import batch
from specialize_jax.alignment.transfer import MODES
from specialize_jax.teacher import records

PARTS = ("ratios", "lengths", "job", "device")
# Bytes per second of main memory, from the makers' data sheets, by JAX's name of the device.
BANDWIDTH = {
    "NVIDIA H200": 4.8e12,
    "NVIDIA H100 80GB HBM3": 3.35e12,
    "NVIDIA A100-SXM4-80GB": 2.04e12,
}


class Solution(NamedTuple):
    """One text in both tokenizations."""

    text: str
    teacher: list[bytes]
    student: list[str]
    spans: np.ndarray  # [S, 2], the student's


def main() -> None:
    """Runs the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = os.environ.get("SPECIALIZE_JAX_DATA", "../shared/data")
    parser.add_argument("--data", default=default, help="folder of public data sets")
    parser.add_argument("--json", help="also writes the numbers to this file")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of these, with commas")
    parser.add_argument("--sequences", type=int, default=7473, help="solutions aligned by ours")
    parser.add_argument("--baseline_sequences", type=int, default=100, help="and by the others")
    parser.add_argument("--longest", type=int, default=8192, help="tokens, for `lengths`")
    parser.add_argument("--answers", type=int, default=20_000, help="for `job`")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are printed")
    flags = parser.parse_args()
    if unknown := set(flags.parts.split(",")) - set(PARTS):
        parser.error(
            f"--parts: expected some of {','.join(PARTS)}, got {','.join(sorted(unknown))}"
        )
    data = pathlib.Path(flags.data)
    solutions = read(data, flags.sequences)
    found: dict[str, Any] = {"machine": describe(solutions)}
    for part in flags.parts.split(","):
        print(f"\n{part}", flush=True)
        found[part] = {
            "ratios": lambda: ratios(solutions, flags.baseline_sequences, flags.repeats),
            "lengths": lambda: lengths(solutions, flags.longest, flags.repeats),
            "job": lambda: job(flags.answers, data),
            "device": lambda: device(flags.repeats),
        }[part]()
    if flags.json:
        pathlib.Path(flags.json).write_text(json.dumps(found, indent=1) + "\n")


def read(data: pathlib.Path, sequences: int) -> list[Solution]:
    """Returns GSM8K solutions, calculator annotations removed."""
    teacher = tokenizers.load(data / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    student = tokenizers.load(data / "tokenizer_t5" / "spiece.model")
    assert isinstance(teacher, tokenizers.TiktokenTokenizer)
    solutions = []
    with open(data / "gsm8k" / "train.jsonl", encoding="utf-8") as lines:
        for line in itertools.islice(lines, sequences):
            answer = re.sub(r"<<.*?>>", "", json.loads(line)["answer"])
            text = answer.replace("#### ", "The answer is ")
            ids, spans = student.encode_with_spans(text)
            tokens = teacher.token_bytes(teacher.encode(text))
            solutions.append(Solution(text, tokens, student.pieces(ids), spans))
    return solutions


def describe(solutions: Sequence[Solution]) -> dict[str, Any]:
    """Prints and returns what the numbers depend on."""
    packages = ("jax", "jaxlib", "numpy", "numba", "editdistance")
    versions = {name: version for name in packages if (version := _version(name))}
    sizes = np.array([(len(s.teacher), len(s.student)) for s in solutions])
    found = {
        "python": platform.python_version(),
        **versions,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "solutions": len(solutions),
        "mean_tokens": sizes.mean(0).round(1).tolist(),
        "cells_each": round(float(sizes.prod(1).mean())),
    }
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    return found


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def measure(
    runs: dict[str, Callable[[], Any]], repeats: int, before: Callable[[], Any] = lambda: None
) -> dict[str, tuple[float, float]]:
    """Returns median wall and processor seconds of every program, run once per round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _, (name, run) in itertools.product(range(repeats), runs.items()):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(np.median(rounds, axis=0).tolist()) for name, rounds in seconds.items()}


def sides(solutions: Sequence[Solution]) -> tuple[list[list[bytes]], list[list[str]]]:
    """Returns what `align_batch` takes."""
    return [s.teacher for s in solutions], [s.student for s in solutions]


# ---- ratios ----


def ratios(solutions: Sequence[Solution], number: int, repeats: int) -> dict[str, Any]:
    """Compares `align_batch` with programs that do the same, after showing its cold start."""
    cold(solutions)
    sample = solutions[:: max(1, len(solutions) // number)]
    ours = functools.partial(alignment.align_batch, *sides(solutions))
    expected = ours().total_cost[:: max(1, len(solutions) // number)].tolist()
    pairs = list(zip(*sides(sample), strict=True))
    runs = {"plain Python": lambda: [others.plain_python(*pair) for pair in pairs]}
    runs |= others.optional(pairs)
    for name, run in runs.items():
        assert run() == expected, name
    medians = measure({"ours": ours, **runs}, repeats, before=others.forget)
    found = {}
    print(f"{'':20s} {'sequences/s':>12s} {'ours is':>9s} {'cpu us each':>13s} {'ours is':>9s}")
    for name, times in medians.items():
        each = [t / (len(solutions) if name == "ours" else len(sample)) for t in times]
        ratio = [e * len(solutions) / t for e, t in zip(each, medians["ours"], strict=True)]
        found[name] = {"sequences_per_s": 1 / each[0], "ratio": ratio[0], "cpu_ratio": ratio[1]}
        print(
            f"{name:20s} {1 / each[0]:12,.0f} {ratio[0]:8.1f}x {each[1] * 1e6:13,.1f} "
            f"{ratio[1]:8.1f}x"
        )
    return found


def cold(solutions: Sequence[Solution]) -> None:
    """Prints the first call's time of one length bucket and of all; must run before the others."""
    bucket = [s for s in solutions if 64 < max(len(s.teacher), len(s.student)) <= 80][:128]
    for name, part in (("one length bucket", bucket), ("all", solutions)):
        times = []
        for _ in range(2):
            start = time.perf_counter()
            alignment.align_batch(*sides(part))
            times.append(time.perf_counter() - start)
        print(f"first call, {name}: {times[0]:.2f} s, then {times[1]:.3f} s")


# ---- lengths ----


def lengths(solutions: Sequence[Solution], longest: int, repeats: int) -> list[dict[str, Any]]:
    """Prints milliseconds over lengths, two examples of each; `band` reruns what it must."""
    print(f"{'tokens':>6s} {'full':>9s} {'band=16':>9s} {'certified':>10s} {'offsets':>9s}  ms")
    found, more = [], itertools.cycle(solutions)
    for length in (64 << n for n in range(int(math.log2(longest / 64)) + 1)):
        examples = [joined(more, length) for _ in range(2)]
        spans = [np.array(_spans(e.teacher)) for e in examples], [e.spans for e in examples]
        runs = {
            "full": functools.partial(alignment.align_batch, *sides(examples)),
            "band": functools.partial(alignment.align_batch, *sides(examples), band=16),
            "offsets": functools.partial(alignment.offsets, *spans),
        }
        whole, banded, _ = (run() for run in runs.values())
        for name in ("total_cost", "teacher_start", "teacher_end"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(banded, name))
        certified = alignment.align_band(*sides(examples), band=16).certified.mean()
        times = {name: 1e3 * wall for name, (wall, _) in measure(runs, repeats).items()}
        found.append({"tokens": length, "certified": float(certified), "ms": times})
        print(
            f"{length:6d} {times['full']:9,.1f} {times['band']:9,.1f} {certified:10.0%} "
            f"{times['offsets']:9,.2f}",
            flush=True,
        )
    return found


def joined(solutions: Any, length: int) -> Solution:
    """Joins whole solutions, a newline between, until the next would make a side too long."""
    text, teacher, student, spans = "", [], [], [np.zeros((0, 2), int)]
    for n in range(100_000):
        more = next(solutions)
        size = max(len(teacher) + len(more.teacher), len(student) + len(more.student)) + 1
        if size > length and (text or n < 1000):
            if text:
                break
            continue  # no solution that is too long by itself
        start = len(text.encode())
        spans.append(more.spans + start)
        text += more.text + "\n"
        teacher += [*more.teacher, b"\n"]
        student += more.student
    return Solution(text, teacher, student, np.concatenate(spans))


def _spans(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    return list(itertools.pairwise([0, *itertools.accumulate(map(len, tokens))]))


# ---- job ----


def job(answers: int, data: pathlib.Path) -> dict[str, dict[str, float]]:
    """Prints answers/s of `specialize-jax align` for each mode; a process starts and compiles."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        info = dict.fromkeys(("teacher", "tokenizer", "sampling", "source"))
        records.write(made_up_records.rows(data, answers), f"{folder}/records", info)
        student = str(data / "tokenizer_t5" / "spiece.model")
        for mode in MODES:
            command = [sys.executable, "-m", "specialize_jax.apps.main", "align"]
            command += ["--records", f"{folder}/records", "--out", f"{folder}/{mode}"]
            command += ["--student_tokenizer", student, "--mode", mode]
            wall, cpu = time.perf_counter(), _processor_seconds()
            subprocess.run(command, check=True, capture_output=True)
            wall, cpu = time.perf_counter() - wall, _processor_seconds() - cpu
            found[mode] = {"answers_per_s": answers / wall, "cpu_us": cpu / answers * 1e6}
            print(
                f"{mode:12s} {answers} answers in {wall:.1f} s: {answers / wall:9,.0f}/s, "
                f"{cpu / answers * 1e6:,.0f} us of processor time each",
                flush=True,
            )
    return found


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- device ----


def device(repeats: int) -> dict[str, float]:
    """Prints cells/s of the dynamic program, and its bytes against the device's bandwidth.

    The bytes that have to move at least: each cost read once, each move written once.
    """
    width, height = 96, 1 << 12
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "gpu":
        print(f"no GPU here ({kind}): not run")
        return {}
    costs = jax.random.randint(jax.random.key(0), (width, width, height), 0, 9, np.int8)
    ends = [np.full(height, width)] * 2

    def run() -> Any:
        return jax.block_until_ready(batch._wavefront(costs, *ends, state_dtype=np.int16))

    run()
    seconds = measure({"ours": run}, repeats)["ours"][0]
    moved = (width * width + width * (2 * width - 1)) * height
    found = {"cells_per_s": costs.size / seconds, "bytes_per_s": moved / seconds}
    share = f"{moved / seconds / BANDWIDTH[kind]:.1%}" if kind in BANDWIDTH else "bandwidth unknown"
    print(f"{kind}: {found['cells_per_s']:,.3g} cells/s, {moved / seconds:,.3g} bytes/s, {share}")
    return found


if __name__ == "__main__":
    main()
