"""The checkout that the packaging tests look at, copies of it, and runs that see one only."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Folders and files that a wheel or an editable install is built from.
_BUILD_INPUTS = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
_SOURCES = ("specialize_jax", "tasks", "gin")

# Prints where the library was imported from, and what must not depend on how it got there.
PROBE = """
import importlib.resources, json, specialize_jax, specialize_jax.tasks
gin = importlib.resources.files("specialize_jax") / "gin_configs"
print(json.dumps({
    "origin": specialize_jax.__file__,
    "tasks": specialize_jax.tasks.__name__,
    "gin_files": sorted(str(p.relative_to(gin)) for p in gin.rglob("*.gin")),
    "version": specialize_jax.__version__,
}))
"""


def copy_checkout(destination: pathlib.Path) -> pathlib.Path:
    """Copies what a build reads, symlinks as symlinks: building then leaves the checkout clean."""
    destination.mkdir()
    for name in _BUILD_INPUTS:
        shutil.copy2(ROOT / name, destination / name)
    for name in _SOURCES:
        shutil.copytree(
            ROOT / name,
            destination / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]"),
        )
    return destination


def packaged_files() -> set[str]:
    """Returns where each file of `specialize_jax/`, `tasks/` and `gin/` belongs in a wheel."""
    files = set()
    for folder, inside in (
        ("specialize_jax", "specialize_jax"),
        ("tasks", "specialize_jax/tasks"),
        ("gin", "specialize_jax/gin_configs"),
    ):
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT / folder)
            if path.is_file() and not path.is_symlink() and "__pycache__" not in relative.parts:
                files.add(f"{inside}/{relative.as_posix()}")
    return files


def run(*command: str | pathlib.Path, cwd: pathlib.Path, **environment: str) -> str:
    """Runs a command with nothing of the checkout on its path.

    Returns:
      What it printed to stdout.

    Raises:
      AssertionError: If it failed; the message holds all that it printed.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python(*arguments: str | pathlib.Path, cwd: pathlib.Path, **environment: str) -> str:
    """Runs this test's interpreter; see `run`."""
    return run(sys.executable, *arguments, cwd=cwd, **environment)
