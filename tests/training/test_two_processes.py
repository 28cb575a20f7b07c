"""Two real processes, four simulated devices each, train as one does, and share their fate."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from specialize_jax import training
from specialize_jax.training import checkpoints, metrics
from tests import simulated_devices
from tests.training import toy

STEPS = 9
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LIMIT = 120  # seconds that any run may take


def _start(model_dir, steps, devices, *flags):
    command = [sys.executable, "-m", "tests.training.several"]
    return subprocess.Popen(
        [*command, str(model_dir), str(steps), str(devices), *map(str, flags)],
        cwd=_ROOT,
        env=simulated_devices.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def _pair(model_dir, steps, *, flags=((), ())):
    """Two processes; whatever a test leaves of them is killed."""
    with socket.socket() as held, contextlib.ExitStack() as started:
        # Held to the end, and shared, so that no other test is given it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("", 0))
        where = f"--coordinator_address=127.0.0.1:{held.getsockname()[1]}"
        pair = []
        for i, extra in enumerate(flags):
            pair.append(
                _start(
                    model_dir, steps, 4, where, "--process_count=2", f"--process_index={i}", *extra
                )
            )
            started.callback(pair[-1].communicate)
            started.callback(pair[-1].kill)
        yield pair


def _end(process):
    """(exit status, output, errors) of a process that ends by itself."""
    out, err = process.communicate(timeout=_LIMIT)
    return process.returncode, out, err


def _wait_for_step(model_dir, step, pair):
    deadline = time.monotonic() + _LIMIT
    while (checkpoints.latest_step(model_dir / "checkpoints") or 0) < step:
        assert all(process.poll() is None for process in pair), "ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _lines(model_dir):
    return [metrics.untimed(line) for line in metrics.read(model_dir / "metrics.jsonl")]


def _params(model_dir):
    like = jax.eval_shape(toy.start).params
    return checkpoints.restore_params(model_dir / "checkpoints", STEPS, like)


def _assert_same_run(model_dir, expected, *, exactly=False):
    """Lines, each written once, and the last parameters are those of another run."""
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-5, "atol": 1e-6}
    ours, theirs = (_lines(folder) for folder in (model_dir, expected))
    assert [(line["step"], line["split"]) for line in ours] == [
        (line["step"], line["split"]) for line in theirs
    ]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        values = [[line[name] for name in line if name != "split"] for line in (one, other)]
        np.testing.assert_allclose(*values, **tolerance)
    ours, theirs = (_params(folder) for folder in (model_dir, expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def _kill_hung(model_dir, step, processes):
    """Kills processes that hang behind the checkpoint of a step."""
    _wait_for_step(model_dir, step, processes)
    for process in processes:
        process.kill()
        process.communicate()
    assert checkpoints.latest_step(model_dir / "checkpoints") == step


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a run of two processes that nothing stopped."""
    model_dir = tmp_path_factory.mktemp("uninterrupted")
    with _pair(model_dir, STEPS) as pair:
        results = [_end(process) for process in pair]
    assert [status for status, _, _ in results] == [0, 0], results
    # Only the first speaks for all.
    assert ["joined" in out for _, out, _ in results] == [True, False]
    assert ["starting at step 0" in err for _, _, err in results] == [True, False]
    return model_dir


def test_two_processes_train_as_one_device_does(uninterrupted, tmp_path):
    held_out = [toy.batch_at(10_000)] * 2
    evaluate = training.evaluator(toy.eval_step(), lambda: held_out)
    toy.run(tmp_path, STEPS, eval_fn=evaluate, eval_period=5)
    _assert_same_run(tmp_path, uninterrupted)


def test_both_die_and_one_goes_on_and_two_again(uninterrupted, tmp_path):
    hang = ("--trouble", "hang")
    with _pair(tmp_path, STEPS, flags=(hang, hang)) as pair:
        _kill_hung(tmp_path, 2, pair)
    for devices, step in ((8, 4), (4, 6)):
        alone = _start(tmp_path, STEPS, devices, *hang)
        _kill_hung(tmp_path, step, [alone])
    with _pair(tmp_path, STEPS) as pair:
        assert [_end(process)[0] for process in pair] == [0, 0]
    _assert_same_run(tmp_path, uninterrupted)


def test_sigterm_to_one_saves_the_same_step_in_both(uninterrupted, tmp_path):
    slow = ("--trouble", "slow")
    with _pair(tmp_path, STEPS, flags=(slow, slow)) as pair:
        _wait_for_step(tmp_path, 2, pair)
        pair[1].send_signal(signal.SIGTERM)
        results = [_end(process) for process in pair]
    assert [status for status, _, _ in results] == [143, 143], results
    reached = checkpoints.latest_step(tmp_path / "checkpoints")
    assert f"SIGTERM: saved step {reached} of {STEPS}" in results[0][2]
    with _pair(tmp_path, STEPS) as pair:
        assert [_end(process)[0] for process in pair] == [0, 0]
    _assert_same_run(tmp_path, uninterrupted, exactly=True)


@pytest.mark.parametrize("which", [1])
def test_when_one_fails_both_end_with_status_1(tmp_path, which):
    flags = [(), ()]
    flags[which] = ("--trouble", "fail")
    with _pair(tmp_path, STEPS, flags=flags) as pair:
        results = [_end(process) for process in pair]
    assert [status for status, _, _ in results] == [1, 1], results
    assert "ValueError: made to fail" in results[which][2]
    heard = f"another failed: process {which}: ValueError: made to fail"
    assert heard in results[1 - which][2]


def test_when_one_vanishes_the_other_ends_by_a_signal(tmp_path):
    """So that whoever watches starts both again."""
    with _pair(tmp_path, 100_000) as pair:
        _wait_for_step(tmp_path, 2, pair)
        pair[0].kill()
        assert _end(pair[1])[0] == -signal.SIGABRT
