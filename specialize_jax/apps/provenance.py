"""What made an output: the operative gin file, package versions and the git commit beside it."""

import datetime
import pathlib
import platform
import subprocess
import sys
from typing import Any

from etils import epath

import specialize_jax
from specialize_jax.apps import gin_setup
from specialize_jax.schemas import folders, results

_PACKAGES = [
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow", "grain"),
    *("seqio", "sentencepiece", "gin-config"),
]


def versions() -> dict[str, str]:
    """Returns the versions of this library, Python and the packages that shape results."""
    return {"python": platform.python_version(), **results.package_versions(_PACKAGES)}


def git_commit() -> str | None:
    """Returns the commit of the checkout that this code runs from; None outside a checkout.

    It ends in "-dirty" where tracked files differ from the commit.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=pathlib.Path(specialize_jax.__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def describe() -> dict[str, Any]:
    """Returns command, date, versions and commit."""
    return {
        "command": sys.argv,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "versions": versions(),
    }


def write(folder: epath.PathLike, command: str, *, gin: bool = False) -> None:
    """Writes `<command>_provenance.json` and, for gin-configured commands, `<command>.gin`."""
    folder = epath.Path(folder)
    folders.write_json(folder / f"{command}_provenance.json", describe())
    if gin:
        folders.write_bytes(folder / f"{command}.gin", gin_setup.operative_config().encode())
