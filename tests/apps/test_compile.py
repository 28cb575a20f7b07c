"""The training step, compiled for TPU slices that do not exist. `make test` fetches libtpu."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LIBTPU = _ROOT / ".libtpu"
needs_libtpu = pytest.mark.skipif(
    not (_LIBTPU / "libtpu").exists(), reason="no libtpu in .libtpu: `make test` fetches it"
)


def run(*flags, path=_LIBTPU):
    paths = [str(_ROOT), str(path), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "specialize_jax.apps.main", "compile", *flags],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


@needs_libtpu
def test_a_small_step_on_four_chips(tmp_path):
    found = run(
        "--gin_file=testing/tiny.gin",
        "--topology=v5e:2x2",
        "--gin.BATCH_SIZE=8",
        "--gin.FSDP_PARTITIONS=2",
        "--gin.MODEL_PARTITIONS=2",
        f"--json={tmp_path}/found.json",
    )
    assert found.returncode == 0, found.stderr
    assert "8 rows of 512 + 96 tokens on 4 TPU v5 lite" in found.stdout
    assert "fits: peak" in found.stdout
    numbers = json.loads((tmp_path / "found.json").read_text())
    assert numbers["chips"] == 4
    assert 0 < numbers["state_bytes"] < numbers["peak_bytes"] < 2**30
    # Two encoder and two decoder layers: parameters are gathered in both passes of each.
    times, size = numbers["traffic"]["all-gather"]
    assert times >= 8 and size > 0
    assert numbers["traffic"]["all-reduce"][0] > 0


@needs_libtpu
def test_what_does_not_fit_is_said_with_the_compiler_s_words():
    found = run(
        "--gin_file=experiments/flan_t5_xxl_gsm8k.gin",
        "--topology=v5e:2x2",
        "--gin.ALIGNED_DIRS=()",
        "--gin.MODEL_PARTITIONS=4",
    )
    assert found.returncode == 1, found.stderr
    assert "does not fit: RESOURCE_EXHAUSTED" in found.stdout
    assert "hbm" in found.stdout.lower()


@needs_libtpu
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--topology=v9:2x2"], "cannot describe 'v9:2x2'.*expected a name as v5e:8x8"),
        (["--topology=v5e:2x2", "--gin.MODEL_PARTITIONS=3"], "1 x model may be one of 1, 2, 4"),
        (["--topology=v5e:2x2", "--gin.BATCH_SIZE=6"], "nearest that do: 4, 8"),
        (["--topology=v5e:2x2", "--lengths=512"], "two numbers as 1536,296, got '512'"),
    ],
)
def test_bad_input(flags, message):
    import re

    found = run("--gin_file=testing/tiny.gin", "--gin.BATCH_SIZE=8", *flags)
    assert found.returncode == 1
    assert re.search(message, found.stderr), found.stderr
    assert "Traceback" not in found.stderr


def test_without_libtpu_the_extra_is_named(tmp_path):
    found = run("--gin_file=testing/tiny.gin", "--topology=v5e:2x2", path=tmp_path)
    assert found.returncode == 1
    assert "libtpu is not installed: pip install '.[tpu]'" in found.stderr
