"""Checkpoints that are not what they were."""

import gc
import pathlib
import shutil
import time

import pytest


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


# When one array cannot be read, Orbax leaves the reads of the others to fail by themselves, in
# another thread. Tests of damage let that noise pass, and wait so that no other test sees it.
noisy = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def wait_for_noise() -> None:
    time.sleep(0.1)
    gc.collect()
