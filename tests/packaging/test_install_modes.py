"""One import name, one set of gin files: in a checkout, an editable install, a wheel, an sdist."""

import configparser
import json
import pathlib
import site
import sys
import venv
import zipfile

import pytest

import specialize_jax
from tests.packaging.checkout import (
    PROBE,
    ROOT,
    copy_checkout,
    packaged_files,
    python,
    run,
)

_NO_NETWORK = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return copy_checkout(tmp_path_factory.mktemp("source") / "checkout")


@pytest.fixture(scope="module")
def wheel(checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", out, checkout, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", *_NO_NETWORK, "--target", target, wheel, cwd=target)
    return target


def _expected(origin: pathlib.Path) -> dict[str, object]:
    gin_files = sorted(p.relative_to(ROOT / "gin").as_posix() for p in ROOT.glob("gin/**/*.gin"))
    return {
        "origin": str(origin / "specialize_jax" / "__init__.py"),
        "tasks": "specialize_jax.tasks",
        "gin_files": gin_files,
        "version": specialize_jax.__version__,
    }


def _names(wheel: pathlib.Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_checkout_finds_tasks_and_gin_files() -> None:
    assert json.loads(python("-c", PROBE, cwd=ROOT)) == _expected(ROOT)


def test_gin_folder_does_not_shadow_gin_config() -> None:
    found = python("-c", "import gin; print(gin.__file__, gin.configurable)", cwd=ROOT)
    assert not found.startswith(str(ROOT / "gin"))
    assert not (ROOT / "gin" / "__init__.py").exists()


def test_wheel_carries_the_package_the_license_and_nothing_else(wheel: pathlib.Path) -> None:
    names = _names(wheel)
    metadata = {name for name in names if ".dist-info/" in name}
    missing = packaged_files() - names
    assert not missing, f"no __init__.py, or no line in package_data: {sorted(missing)}"
    assert names - metadata == packaged_files()
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)


def test_wheel_metadata(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        (scripts,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        lines = archive.read(metadata).decode().splitlines()
        entry_points = configparser.ConfigParser()
        entry_points.read_string(archive.read(scripts).decode())
    assert f"Version: {specialize_jax.__version__}" in lines
    assert "License-Expression: Apache-2.0" in lines
    assert "Requires-Python: >=3.11" in lines
    # Only what benchmarks compare with needs torch.
    torch = [line for line in lines if line.startswith("Requires-Dist: torch")]
    assert torch == ['Requires-Dist: torch; extra == "bench"']
    assert dict(entry_points["console_scripts"]) == {
        "specialize-jax": "specialize_jax.apps.main:main"
    }


def test_installed_wheel_finds_tasks_and_gin_files(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    found = python("-c", PROBE, cwd=tmp_path, PYTHONPATH=str(installed))
    assert json.loads(found) == _expected(installed)


def test_wheel_by_way_of_an_sdist_is_the_same(
    checkout: pathlib.Path, wheel: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # Without --wheel, `build` makes the sdist first and the wheel from what the sdist holds.
    python("-m", "build", "--no-isolation", "--outdir", tmp_path, checkout, cwd=tmp_path)
    (rebuilt,) = tmp_path.glob("*.whl")
    assert _names(rebuilt) == _names(wheel)


def test_editable_install_finds_tasks_and_gin_files(tmp_path: pathlib.Path) -> None:
    source = copy_checkout(tmp_path / "checkout")
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    # A path line lends the packages of this environment, pip and setuptools too, but its .pth files
    # are not read again: an editable install of the real checkout stays out of sight.
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    interpreter = environment / "bin" / "python"
    pip = ("-m", "pip", "install", "--ignore-installed", *_NO_NETWORK)
    run(interpreter, *pip, "--editable", source, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert json.loads(run(interpreter, "-c", PROBE, cwd=elsewhere)) == _expected(source)
    assert "align" in run(environment / "bin" / "specialize-jax", "--help", cwd=elsewhere)
