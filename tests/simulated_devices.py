"""Runs a module on simulated devices, in its own process: the count is fixed at import."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(module: str, *flags: str, arguments: Sequence[object] = (), count: int = 8) -> list[str]:
    """Returns the words that `python -m module` prints; fails the test if it fails.

    Args:
      module: as `tests.losses.multi_device`.
      *flags: of the interpreter.
      arguments: of the module.
      count: of devices.
    """
    found = subprocess.run(
        [sys.executable, *flags, "-m", module, *map(str, arguments)],
        cwd=_ROOT,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout.split()
