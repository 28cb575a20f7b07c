"""What the repository must hold for the package to work: symlinks, one version, a usable lock."""

import importlib.metadata
import pathlib
import re
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import specialize_jax
from tests.packaging import oldest
from tests.packaging.checkout import ROOT

_SYMLINKS = {"specialize_jax/tasks": "../tasks", "specialize_jax/gin_configs": "../gin"}


@pytest.mark.parametrize(("link", "target"), _SYMLINKS.items())
def test_package_reaches_its_folders_by_relative_symlinks(link: str, target: str) -> None:
    assert pathlib.Path.readlink(ROOT / link) == pathlib.Path(target)


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout"
)
@pytest.mark.parametrize("link", _SYMLINKS)
def test_symlinks_are_committed_as_symlinks(link: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage", link], cwd=ROOT, capture_output=True, text=True, check=True
    )
    mode = listed.stdout.split(" ")[0]
    assert mode == "120000", f"git holds {link} with mode {mode or '(none: not added)'}"


@pytest.mark.parametrize("name", ["setup.py", "pyproject.toml", "Makefile"])
def test_version_is_written_in_one_place(name: str) -> None:
    quoted = re.findall(r"[\"'](.+?)[\"']", (ROOT / name).read_text())
    assert specialize_jax.__version__ not in quoted, f"{name} repeats the version"


def _locked() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def test_lock_names_only_exact_versions_and_no_index() -> None:
    for line in _locked():
        requirement = Requirement(line)  # an option (--index-url), a path or a URL does not parse
        assert requirement.url is None, line
        assert [s.operator for s in requirement.specifier] == ["=="], line


def test_lock_is_free_of_torch() -> None:
    assert not [line for line in _locked() if Requirement(line).name == "torch"]


def test_lower_bounds_are_read_from_requirements() -> None:
    found = oldest.lower_bounds(["jax>=0.9", "etils[epath]>=1.2", 'uv; extra == "dev"', "a<2,>=1"])
    assert found == {"jax": "0.9", "etils": "1.2", "a": "1"}


def test_two_lower_bounds_of_one_package_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"jax has two lower bounds, 0\.9 and 0\.10"):
        oldest.lower_bounds(["jax>=0.9", 'jax>=0.10; extra == "tpu"'])


def test_every_core_dependency_has_a_lower_bound_that_the_lock_meets() -> None:
    locked = {canonicalize_name(r.name): r for r in map(Requirement, _locked())}
    requirements = map(Requirement, importlib.metadata.requires("specialize_jax") or [])
    core = [r for r in requirements if r.marker is None]
    assert core, "specialize_jax is not installed with its dependencies; run `make venv`"
    for requirement in core:
        assert oldest.lower_bounds([str(requirement)]), f"{requirement} has no lower bound"
        (pin,) = locked[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} but lock has {pin}"


def test_installed_version_is_the_version_of_the_checkout() -> None:
    assert importlib.metadata.version("specialize_jax") == specialize_jax.__version__
