"""The whole program on a toy: exact resume, lines, stops."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from specialize_jax import training
from specialize_jax.training import checkpoints, chips, metrics
from tests.training import damage, toy

STEPS = 9
_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _assert_equal(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def _lines(model_dir):
    return [metrics.untimed(line) for line in metrics.read(model_dir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(final state, lines) of a run that nothing stopped."""
    model_dir = tmp_path_factory.mktemp("uninterrupted")
    state = jax.device_get(toy.run(model_dir, STEPS))
    return state, _lines(model_dir)


def test_a_run_saves_and_writes_lines(uninterrupted, tmp_path, capsys):
    evaluate = training.evaluator(
        training.make_eval_step(toy.loss_fn), lambda: [toy.batch_at(10_000)] * 2
    )
    state = toy.run(tmp_path, STEPS, eval_fn=evaluate, eval_period=4, config={"model": "toy"})
    _assert_equal(state, uninterrupted[0])
    lines = _lines(tmp_path)
    splits = [(line["step"], line["split"]) for line in lines]
    train, validation = "train", "validation"
    assert splits == [(3, train), (4, validation), (6, train), (8, validation)] + [
        (9, train),
        (9, validation),
    ]
    assert lines[0]["learning_rate"] == pytest.approx(3e-2)
    assert set(lines[0]) == {"step", "split", "loss", "tokens", "grad_norm", "learning_rate"}
    assert lines[-1]["loss"] < lines[1]["loss"]
    assert checkpoints.all_steps(tmp_path / "checkpoints") == [2, 4, 6, 8, 9]
    assert checkpoints.read_config(tmp_path / "checkpoints") == {"model": "toy"}
    shown = capsys.readouterr().err
    assert "starting at step 0" in shown
    assert "step 9/9  loss" in shown
    assert "tokens/s" in shown


@pytest.mark.parametrize("stop", [3, 4])
def test_stop_and_resume_equals_an_uninterrupted_run(uninterrupted, tmp_path, stop):
    """One stop between two checkpoints' periods, one between two lines."""
    steps = itertools.count()

    def stopped(state, batch):
        if next(steps) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return toy.train_step()(state, batch)

    before = signal.getsignal(signal.SIGTERM)
    state = toy.run(tmp_path, STEPS, train_step=stopped)
    assert signal.getsignal(signal.SIGTERM) is before
    assert state.step == stop + 1
    assert checkpoints.latest_step(tmp_path / "checkpoints") == stop + 1
    state = toy.run(tmp_path, STEPS, start=_never)
    _assert_equal(state, uninterrupted[0])
    assert _lines(tmp_path) == uninterrupted[1]


def _never():
    raise AssertionError("a run with a checkpoint does not start anew")


def test_a_finished_run_is_not_trained_further(uninterrupted, tmp_path):
    toy.run(tmp_path, STEPS)
    state = toy.run(tmp_path, STEPS, start=_never, batches=_never)
    _assert_equal(state, uninterrupted[0])
    assert _lines(tmp_path) == uninterrupted[1]


def test_kill_9_and_resume_equals_an_uninterrupted_run(uninterrupted, tmp_path):
    arguments = [sys.executable, "-m", "tests.training.toy", str(tmp_path), "100000"]
    process = subprocess.Popen(
        arguments,
        cwd=_ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while checkpoints.latest_step(tmp_path / "checkpoints") is None:
            assert process.poll() is None, "the run ended by itself"
            assert time.monotonic() < deadline, "no checkpoint within a minute"
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    reached = checkpoints.latest_step(tmp_path / "checkpoints")
    goal = reached + 3
    resumed = toy.run(tmp_path, goal, start=_never)
    assert resumed.step == goal
    whole = toy.run(tmp_path / "whole", goal)
    _assert_equal(resumed, whole)
    assert _lines(tmp_path) == _lines(tmp_path / "whole")


@damage.noisy
def test_a_damaged_last_checkpoint_costs_only_its_steps(uninterrupted, tmp_path):
    toy.run(tmp_path, STEPS)
    damage.cut_data_short(tmp_path / "checkpoints" / "9")
    with pytest.warns(UserWarning, match="checkpoints/9 is damaged"):
        state = toy.run(tmp_path, STEPS, start=_never)
    damage.wait_for_noise()
    _assert_equal(state, uninterrupted[0])
    assert _lines(tmp_path) == uninterrupted[1]


def test_nan_stops_with_its_step_and_saves_nothing_broken(tmp_path):
    def broken(start):
        for number, batch in enumerate(toy.batches(start)):
            if number == 4:
                batch["weights"] = batch["weights"] * np.nan
            yield batch

    with pytest.raises(training.NotFiniteError, match="loss_sum is nan at step 5"):
        toy.run(tmp_path, STEPS, batches=broken)
    assert checkpoints.all_steps(tmp_path / "checkpoints") == [2, 4]
    assert [line["step"] for line in _lines(tmp_path)] == [3]


def test_other_data_on_resume_is_an_error(tmp_path):
    toy.run(tmp_path, 2)
    with pytest.raises(ValueError, match="trained on data at .*'seed': 7.*'seed': 8"):
        toy.run(tmp_path, STEPS, data_state=lambda index: toy.data_state(index) | {"seed": 8})


def test_data_that_ends_early_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="data ended after step 1; train_steps=9"):
        toy.run(tmp_path, STEPS, batches=lambda start: iter([toy.batch_at(start)]))


def test_lines_say_how_long_data_was_waited_for(tmp_path, capsys):
    def slow(start):
        for batch in toy.batches(start):
            time.sleep(0.02)
            yield batch

    toy.run(tmp_path, STEPS, batches=slow)
    shares = [line["data_wait"] for line in metrics.read(tmp_path / "metrics.jsonl")]
    assert all(0 <= share <= 1 for share in shares) and max(shares) > 0.05
    assert "waited for data" in capsys.readouterr().err


def test_lines_say_the_share_of_the_peak_where_it_is_known(tmp_path, monkeypatch, capsys):
    chip = chips.Chip("made up", 1e9, 0, 0, 0)
    monkeypatch.setattr(chips, "find", lambda kind: chip)
    toy.run(tmp_path, STEPS, step_flops=1000)
    last = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line.get("mfu")][-1]
    assert 0 < last["mfu"] < 1
    assert f"MFU {last['mfu']:.1%}" in capsys.readouterr().err


def test_periods_have_to_be_positive(tmp_path):
    with pytest.raises(ValueError, match="Expected log_period >= 1, got 0"):
        toy.run(tmp_path, STEPS, log_period=0)
