"""`specialize-jax import`: published solutions become teacher records."""

import argparse

from etils import epath

from specialize_jax.apps import data_dir, provenance
from specialize_jax.schemas import folders
from specialize_jax.teacher import importers, records

EPILOG = """\
example:
  specialize-jax import --source gsm8k --source codex_top5_steps \\
      --data_dir ../shared/data --out out/line/records"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--source",
        action="append",
        required=True,
        choices=sorted(importers.SOURCES),
        help="repeatable; each becomes a folder of this name below --out",
    )
    data_dir.add_argument(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write below")


def main(args: argparse.Namespace) -> int:
    """Writes one records folder per source; finished ones are left as they are."""
    data = data_dir.folder(args.data_dir)
    for name in args.source:
        out = epath.Path(args.out) / name
        if folders.schema_of(out) == "teacher_records":
            print(f"{name}: already in {out}")
            continue
        source = importers.SOURCES[name]
        info = {**source.info, "source": f"{name} in {data}"}
        # Before the info file, which says that the folder is finished.
        provenance.write(folders.make_folder(out), "import")
        done = records.write(source.rows(data), out, info)
        dropped = ", ".join(f"{n} {reason}" for reason, n in done["dropped"].items()) or "none"
        print(f"{name}: {done['rows']} records in {out} (dropped: {dropped}; top {done['k']})")
    return 0
