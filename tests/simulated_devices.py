"""Runs a module on simulated devices, in its own process: the count is fixed at import."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DEVICES = "--xla_force_host_platform_device_count"
UNOPTIMISED = "--xla_backend_optimization_level=0"
_PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds=300"


def environment() -> dict[str, str]:
    """Returns an environment for several devices on few cores.

    XLA has a thread a core, or a device if these are more. A device that runs two collectives at a
    time takes two, so that all may wait for one that never gets a thread. NPROC gives XLA more.
    """
    return os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": "64"}


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
        env=environment() | {"XLA_FLAGS": f"{UNOPTIMISED} {_PATIENCE} {_DEVICES}={count}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout.split()
