"""Where the real data lies, and a clear skip where it does not."""

import os
import pathlib

import pytest

_BESIDE_CHECKOUT = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def data_dir() -> pathlib.Path:
    """Returns the folder of public data sets, or skips the calling test when it is absent."""
    folder = pathlib.Path(os.environ.get("SPECIALIZE_JAX_DATA", _BESIDE_CHECKOUT))
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} is no folder (set SPECIALIZE_JAX_DATA)")
    return folder
