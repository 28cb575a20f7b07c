"""Runs a module on eight simulated devices, in its own process: the count is fixed at import."""

import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(module: str, *flags: str) -> list[str]:
    """Returns the words that `python -m module` prints; fails the test if it fails.

    Args:
      module: as `tests.losses.multi_device`.
      *flags: of the interpreter.
    """
    found = subprocess.run(
        [sys.executable, *flags, "-m", module],
        cwd=_ROOT,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout.split()
