"""Checkpoints that are not what they were."""

import gc
import pathlib
import shutil
import time

import pytest

from specialize_jax.training import manifest


def remove_data(step_folder: pathlib.Path) -> None:
    for part in ("d", "ocdbt.process_0"):
        shutil.rmtree(step_folder / "params" / part)


def cut_data_short(step_folder: pathlib.Path) -> None:
    for path in step_folder.rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_progress(step_folder: pathlib.Path) -> None:
    shutil.rmtree(step_folder / "progress")


def leave_only_the_folder(step_folder: pathlib.Path) -> None:
    shutil.rmtree(step_folder)
    step_folder.mkdir()


def _flip_a_byte(path: pathlib.Path) -> None:
    """In the middle, by one bit; the length stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _largest(folder: pathlib.Path) -> pathlib.Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_params(step_folder: pathlib.Path) -> None:
    _flip_a_byte(_largest(step_folder / "params"))


def flip_optimizer(step_folder: pathlib.Path) -> None:
    _flip_a_byte(_largest(step_folder / "optimizer"))


def flip_progress(step_folder: pathlib.Path) -> None:
    """A digit becomes another: still JSON, of another run."""
    [path] = [p for p in (step_folder / "progress").iterdir() if p.name == "metadata"]
    content = path.read_text()
    changed = content.replace('"index": 4', '"index": 5')
    assert changed != content
    path.write_text(changed)


def append_to_params(step_folder: pathlib.Path) -> None:
    with _largest(step_folder / "params").open("ab") as file:
        file.write(b"more")


def remove_one_file(step_folder: pathlib.Path) -> None:
    _largest(step_folder / "optimizer").unlink()


def flip_manifest(step_folder: pathlib.Path) -> None:
    """In a hash, which is then another; a flip elsewhere is in `test_manifest.py`."""
    path = step_folder / manifest.NAME
    content = path.read_bytes()
    at = content.index(b'"sha256": "') + len(b'"sha256": "')
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def cut_manifest(step_folder: pathlib.Path) -> None:
    path = step_folder / manifest.NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# What Orbax notices by itself, and what only the manifest tells.
ORBAX_SEES = [remove_data, cut_data_short, remove_progress, leave_only_the_folder]
MANIFEST_SEES = [
    *[flip_params, flip_optimizer, flip_progress, append_to_params],
    *[remove_one_file, flip_manifest, cut_manifest],
]


# When one array cannot be read, Orbax leaves the reads of the others to fail by themselves, in
# another thread. Tests of damage let that noise pass, and wait so that no other test sees it.
noisy = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def wait_for_noise() -> None:
    time.sleep(0.1)
    gc.collect()
