"""What FlanT5-XL and XXL need on TPU slices, by `specialize-jax compile`: a table for RESULTS.md.

    PYTHONPATH=.libtpu nice -n 10 python benchmarks/compile_table.py --out out/compile_table

Every row is a process of its own, one after the other, 1 to 4 minutes each on two quiet cores. A
row that is finished is not compiled again while its command stays the same: an interrupted run
goes on, and `--print` only prints. Needs libtpu (`make test` fetches it into .libtpu), no TPU.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import pathlib
import re
import subprocess
import sys
import time

GIN_FILE = "experiments/flan_t5_xxl_gsm8k.gin"
GIB = 2**30
# As in training.chips, by the name in front of the topology's colon.
MEMORY = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
      size: of the student.
      topology: of a slice.
      fsdp: parts of the state.
      model: parts of each matrix product.
      rows: of the batch, on all slices.
      slices: number of slices.
      optimizer: "adamw" or "adafactor".
      microbatches: parts of the batch.
      program: of `specialize-jax compile`.
      gin: further settings, `NAME=value`.
    """

    size: str
    topology: str
    fsdp: int
    model: int
    rows: int
    slices: int = 1
    optimizer: str = "adamw"
    microbatches: int = 1
    program: str = "train"
    gin: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Returns the arguments of `specialize-jax compile`."""
        settings = {
            "ALIGNED_DIRS": "()",
            "SIZE": f"'{self.size}'",
            "FSDP_PARTITIONS": self.fsdp,
            "MODEL_PARTITIONS": self.model,
            "EVAL_BATCH_SIZE" if self.program == "decode" else "BATCH_SIZE": self.rows,
            "OPTIMIZER": f"'{self.optimizer}'",
            "MICROBATCHES": self.microbatches,
        }
        return [
            f"--gin_file={GIN_FILE}",
            f"--topology={self.topology}",
            f"--num_slices={self.slices}",
            *(["--chip_config=megacore"] if self.topology.startswith("v4") else []),
            f"--program={self.program}",
            *(f"--gin.{name}={value}" for name, value in settings.items()),
            *(f"--gin.{binding}" for binding in self.gin),
        ]


XL, XXL = "flan_t5_xl", "flan_t5_xxl"
# Batches of 1 row a chip of 16 GiB, 2 of 32, 4 of 95 (of 2,048 + 512 tokens, about four examples);
# on the smallest slice that fits, 1.
ROWS = [
    Row(XL, "v6e:1x1", 1, 1, 1),
    Row(XL, "v5e:2x2", 4, 1, 4),
    Row(XL, "v5e:4x4", 16, 1, 16),
    Row(XL, "v6e:16x16", 16, 1, 512),
    Row(XXL, "v5e:2x4", 8, 1, 8),
    Row(XXL, "v5e:4x4", 16, 1, 16),
    Row(XXL, "v5e:4x4", 4, 4, 16),  # the same chips, half the links' time
    Row(XXL, "v5e:8x8", 16, 4, 64),
    Row(XXL, "v5e:16x16", 16, 4, 1024, slices=4),
    Row(XXL, "v4:2x2x1", 4, 1, 4),
    Row(XXL, "v4:2x2x2", 8, 1, 8),
    Row(XXL, "v4:4x4x4", 16, 1, 128),
    Row(XXL, "v5p:2x2x1", 4, 1, 4),
    Row(XXL, "v5p:4x4x4", 16, 1, 4096, slices=16),
    Row(XXL, "v6e:2x2", 4, 1, 4),
    Row(XXL, "v6e:2x4", 8, 1, 8),
    Row(XXL, "v6e:16x16", 16, 1, 2048, slices=4),
    Row(XL, "v5e:2x2", 1, 4, 64, program="decode"),
    Row(XXL, "v5e:4x4", 4, 4, 64, program="decode"),
]


def main() -> None:
    """Compiles what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", default="out/compile_table", help="folder of finished rows")
    parser.add_argument("--print", action="store_true", help="compile nothing")
    parser.add_argument("--only", default="", help="only rows with this in their command")
    flags = parser.parse_args()
    folder = pathlib.Path(flags.out)
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for row in ROWS:
        path = folder / f"{hashlib.sha256(json.dumps(row.flags()).encode()).hexdigest()[:16]}.json"
        wanted = flags.only in " ".join(row.flags())
        if not path.exists() and wanted and not flags.print:
            compile_row(row, path)
        if path.exists() and wanted:
            done.append((row, json.loads(path.read_text())))
    commits = sorted({found["commit"] for _, found in done})
    print(f"\n{len(done)} of {len(ROWS)} rows, of commit {', '.join(commits)}\n")
    print(table(done))


def compile_row(row: Row, path: pathlib.Path) -> None:
    """Runs one command and writes what it found, or why it does not fit."""
    numbers = path.with_suffix(".numbers")
    command = [sys.executable, "-m", "specialize_jax.apps.main", "compile", *row.flags()]
    print(" ".join(command[2:]), flush=True)
    start = time.perf_counter()
    done = subprocess.run([*command, f"--json={numbers}"], capture_output=True, text=True)
    refused = re.search(r"does not fit: (.*)", done.stdout)
    if done.returncode and not refused:
        raise SystemExit(f"status {done.returncode}\n{done.stdout}\n{done.stderr}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    found = {
        "flags": row.flags(),
        "commit": commit.stdout.strip()[:7],
        "seconds": time.perf_counter() - start,
        "refused": refused[1] if refused else None,
        "found": None if refused else json.loads(numbers.read_text()),
        "output": done.stdout,
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
    numbers.unlink(missing_ok=True)
    print(done.stdout, flush=True)


def table(done: list[tuple[Row, dict]]) -> str:
    """Returns Markdown."""
    head = "| student | slices | chips | data x fsdp x model | what | rows | peak a chip | "
    lines = [
        head + "gather + permute | reduce | between slices | least time |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for row, found in done:
        lines.append(f"| {' | '.join(_cells(row, found))} |")
    return "\n".join(lines)


def _cells(row: Row, one: dict) -> list[str]:
    chip, _, shape = row.topology.partition(":")
    chips = row.slices * math.prod(map(int, shape.split("x")))
    said = [
        row.size.removeprefix("flan_t5_").upper(),
        (f"{row.slices} x " if row.slices > 1 else "") + f"{chip} {shape}",
        str(chips),
        f"{chips // (row.fsdp * row.model)} x {row.fsdp} x {row.model}",
        row.optimizer if row.program == "train" else row.program,
        str(row.rows),
    ]
    if (found := one["found"]) is None:
        return [*said, f"does not fit: {_short(one['refused'])}", "", "", "", ""]
    moved = {kind: size / GIB for kind, (_, size) in found["traffic"].items()}
    columns = (
        ("all-gather", "collective-permute"),
        ("all-reduce", "reduce-scatter"),
        ("between-slices",),
    )
    return [
        *said,
        f"{found['peak_bytes'] / GIB:.2f} of {MEMORY[chip]} GiB",
        *(f"{sum(moved.get(kind, 0) for kind in kinds):.1f} GiB" for kinds in columns),
        "; ".join(_slowest(one) for one in found["estimates"].items()),
    ]


def _slowest(one: tuple[str, dict[str, float]]) -> str:
    name, estimate = one
    what = max(estimate, key=lambda kind: estimate[kind])
    others = f"; arithmetic {1e3 * estimate['arithmetic']:.0f}" if what != "arithmetic" else ""
    label = "" if name == "step" else f"{name} "
    return f"{label}{1e3 * estimate[what]:.3g} ms ({what}{others})"


def _short(message: str) -> str:
    """Returns what a person reads of the compiler's message: how much is needed, of what."""
    found = re.search(
        r"required for (.*? \([\d.]+\w\)) exceeds available HBM (\([\d.]+\w\))", message
    )
    return f"{found[1]} in {found[2]}" if found else message[:120].strip()


if __name__ == "__main__":
    main()
