"""Training on simulated devices, in its own process: the count is fixed at import."""

import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_mesh_equals_one_device_and_a_checkpoint_moves_between_meshes():
    found = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.training.multi_device"],
        cwd=_ROOT,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout.split() == ["equal"]
