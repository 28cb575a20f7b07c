"""`specialize-jax import`: published solutions become teacher records."""

import argparse
import os

from etils import epath

from specialize_jax.apps import provenance
from specialize_jax.schemas import folders
from specialize_jax.teacher import importers, records

EPILOG = """\
example:
  specialize-jax import --source gsm8k --source codex_top5_steps \\
      --data_dir ../shared/data --out out/line/records"""


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data_dir, which several commands take."""
    parser.add_argument(
        "--data_dir",
        default=os.environ.get("SPECIALIZE_JAX_DATA"),
        metavar="DIR",
        help="folder of public data sets (default: the variable SPECIALIZE_JAX_DATA)",
    )


def data_folder(value: str | None) -> epath.Path:
    """Returns the data folder.

    Raises:
      ValueError: none was given, or it is not a folder.
    """
    if not value:
        raise ValueError("expected --data_dir DIR or the variable SPECIALIZE_JAX_DATA, got neither")
    folder = epath.Path(value)
    if not folder.is_dir():
        raise ValueError(f"data folder '{value}' does not exist or is no folder (--data_dir)")
    return folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--source",
        action="append",
        required=True,
        choices=sorted(importers.SOURCES),
        help="repeatable; each becomes a folder of this name below --out",
    )
    add_data_dir(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write below")


def main(args: argparse.Namespace) -> int:
    """Writes one records folder per source; finished ones are left as they are."""
    data_dir = data_folder(args.data_dir)
    for name in args.source:
        out = epath.Path(args.out) / name
        if folders.schema_of(out) == "teacher_records":
            print(f"{name}: already in {out}")
            continue
        source = importers.SOURCES[name]
        info = {**source.info, "source": f"{name} in {data_dir}"}
        done = records.write(source.rows(data_dir), out, info)
        provenance.write(out, "import")
        dropped = ", ".join(f"{n} {reason}" for reason, n in done["dropped"].items()) or "none"
        print(f"{name}: {done['rows']} records in {out} (dropped: {dropped}; top {done['k']})")
    return 0
