"""A disk that takes no more: a clear error, and nothing that was good is lost."""

import contextlib
import errno
import os
import pathlib
import resource
import subprocess
import sys

import jax
import pytest

from specialize_jax.training import checkpoints, disk, manifest, metrics
from tests.training import toy

STEPS = 9
_ROOT = pathlib.Path(__file__).resolve().parents[2]

# In a process of its own: the limit is on everything that a process writes.
_LIMITED = """
import pathlib, resource, sys, time
from tests.training import toy

before = pathlib.Path(sys.argv[1]) / "checkpoints" / "4" / "manifest.json"

def batches(start):
    for number, batch in enumerate(toy.batches(start)):
        if number == 4:
            while not before.exists():
                time.sleep(0.01)
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, most))
        yield batch

toy.full_run(sys.argv[1], int(sys.argv[2]), batches=batches)
"""


def _space(number):
    return OSError(number, os.strerror(number))


def _assert_goes_on(model_dir, tmp_path):
    state = jax.device_get(toy.full_run(model_dir, STEPS))
    toy.assert_equal(state, jax.device_get(toy.full_run(tmp_path / "whole", STEPS)))
    assert toy.lines(model_dir) == toy.lines(tmp_path / "whole")


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path):
    model_dir = tmp_path / "m"
    found = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(model_dir), str(STEPS)],
        cwd=_ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    folder = model_dir / "checkpoints"
    # Orbax's own tasks may complain before and after.
    said = [line for line in found.stderr.splitlines() if "CheckpointError: Cannot" in line]
    last = said[-1]
    assert f"CheckpointError: Cannot write the checkpoint of step 6 to {folder}: files may" in last
    assert "(File too large); it has 10," in last and "bytes are free there" in last
    assert {p.name for p in folder.iterdir()} == {"2", "4", "config.json"}
    assert checkpoints.check(folder, 4)
    _assert_goes_on(model_dir, tmp_path)


def test_a_manifest_that_finds_no_room_is_an_error_too(tmp_path, monkeypatch):
    write = manifest.write

    def full(step_folder):
        if step_folder.name == "4":
            raise _space(errno.ENOSPC)
        write(step_folder)

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(checkpoints.CheckpointError, match="step 4 to .*: the disk is full"):
        toy.full_run(tmp_path / "m", STEPS)
    # It is complete all the same, and serves.
    assert checkpoints.all_steps(tmp_path / "m" / "checkpoints") == [2, 4]
    monkeypatch.undo()
    _assert_goes_on(tmp_path / "m", tmp_path)


def test_what_else_went_wrong_comes_first(tmp_path, monkeypatch):
    def full(step_folder):
        raise _space(errno.EDQUOT)

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(ZeroDivisionError) as caught, checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(toy.start(), data_state={})
        raise ZeroDivisionError("first")
    assert "Besides: Cannot write the checkpoint of step 0" in caught.value.__notes__[0]
    assert "the quota is used up" in caught.value.__notes__[0]


@contextlib.contextmanager
def _at_most(size):
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = metrics.MetricsFile(path)
    lines.write(1, "train", {"loss": 1.5})
    before = path.read_bytes()
    with _at_most(len(before) + 10):  # a part of the next line would fit
        with pytest.raises(checkpoints.CheckpointError, match=f"a line of step 2 to {path}: files"):
            lines.write(2, "train", {"loss": 1.25})
        assert path.read_bytes() == before
    with _at_most(5):
        with pytest.raises(
            checkpoints.CheckpointError, match=f"lines up to step 2 to {path}: files"
        ):
            lines.cut_after(2)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert path.read_bytes() == before
    lines.write(2, "train", {"loss": 1.25})
    assert [line["step"] for line in metrics.read(path)] == [1, 2]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (_space(errno.ENOSPC), "the disk is full (No space left on device)"),
        (_space(errno.EROFS), "the disk cannot be written any more (Read-only file system)"),
        (ValueError("RESOURCE_EXHAUSTED: Disk quota exceeded [28]"), "the quota is used up"),
        (ValueError("another"), None),
        (None, None),
    ],
)
def test_reasons(error, meaning):
    later = RuntimeError("saving failed")
    later.__cause__ = error
    for one in (error, later):
        found = disk.reason(one)
        assert found is None if meaning is None else found.startswith(meaning)


def test_other_failures_are_named_as_they_are():
    with pytest.raises(checkpoints.CheckpointError, match="Cannot write x to /y: KeyError: 'k'"):
        with disk.writing("x", "/y"):
            raise KeyError("k")
    with pytest.raises(checkpoints.CheckpointError, match="^inner$"):
        with disk.writing("x", "/y"):
            raise checkpoints.CheckpointError("inner")
