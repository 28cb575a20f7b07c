"""`specialize-jax report DIR [DIR ...] --out DIR`: one page about a run, from its files alone."""

import argparse
import sys

from etils import epath

from specialize_jax import report

EPILOG = """\
example:
  specialize-jax report out/line/records/gsm8k out/line/records/codex_top5_steps \\
      out/line/aligned out/line/packed out/line/model --out out/line/report"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="teacher records, aligned examples, packed rows, a MODEL_DIR or an evaluation folder",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write the report to")


def main(args: argparse.Namespace) -> int:
    """Writes the report; returns 1 when matplotlib or jinja2 is not installed.

    Damaged files are named on stderr and in the report; the rest is shown, so they do not fail it.
    """
    try:
        written = report.write(args.folders, args.out)
    except ModuleNotFoundError as error:
        print(f"specialize-jax report: error: {error}", file=sys.stderr)
        return 1
    for problem in written["problems"]:
        print(f"specialize-jax report: {problem}", file=sys.stderr)
    print(epath.Path(args.out) / "index.html")
    return 0
