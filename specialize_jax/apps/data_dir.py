"""The folder of public data sets, which several commands read."""

import argparse
import os

from etils import epath

from specialize_jax.evaluation.readers import DATA_DIR_VARIABLE


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --data_dir."""
    parser.add_argument(
        "--data_dir",
        default=os.environ.get(DATA_DIR_VARIABLE),
        metavar="DIR",
        help=f"folder of public data sets (default: the variable {DATA_DIR_VARIABLE})",
    )


def folder(value: str | None) -> epath.Path:
    """Returns the data folder.

    Raises:
      ValueError: none was given, or it is not a folder.
    """
    if not value:
        raise ValueError(f"expected --data_dir DIR or {DATA_DIR_VARIABLE}, got neither")
    path = epath.Path(value)
    if not path.is_dir():
        raise ValueError(f"data folder '{value}' does not exist or is no folder (--data_dir)")
    return path
