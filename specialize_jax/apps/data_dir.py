"""The folder of public data sets, which several commands read, and what stands in for it."""

import argparse
import functools
import os

from etils import epath

from specialize_jax.data import tfds_rows
from specialize_jax.evaluation.readers import DATA_DIR_VARIABLE, gsm8k


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --data_dir."""
    parser.add_argument(
        "--data_dir",
        default=os.environ.get(DATA_DIR_VARIABLE),
        metavar="DIR",
        help=f"folder of public data sets (default: the variable {DATA_DIR_VARIABLE})",
    )


def add_tfds_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --tfds_data_dir, as t5x has it; `use_tfds` takes it."""
    parser.add_argument(
        "--tfds_data_dir",
        default=os.environ.get("TFDS_DATA_DIR"),
        metavar="DIR",
        help="folder of TensorFlow Datasets, for GSM8K where the data folder has none; downloaded "
        "where it is missing (default: the variable TFDS_DATA_DIR)",
    )


def use_tfds(value: str | None) -> None:
    """Lets GSM8K be read from TensorFlow Datasets, if a folder of it is named.

    Not without: nobody asked for TensorFlow then, nor for a download.
    """
    gsm8k.ELSEWHERE.clear()
    if value:
        gsm8k.ELSEWHERE["gsm8k"] = functools.partial(tfds_rows.gsm8k, data_dir=value)


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
