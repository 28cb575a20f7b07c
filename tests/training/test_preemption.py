"""SIGTERM at bad moments: nothing is lost, and the next run does what this one did not."""

import os
import signal

import jax
import pytest

from specialize_jax import training
from specialize_jax.training import checkpoints, manifest, preemption
from tests.training import toy

STEPS = 6


def _terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("uninterrupted")
    return jax.device_get(toy.full_run(model_dir, STEPS)), toy.lines(model_dir)


def _assert_goes_on(model_dir, uninterrupted, **options):
    state = toy.full_run(model_dir, STEPS, **options)
    toy.assert_equal(state, uninterrupted[0])
    assert toy.lines(model_dir) == uninterrupted[1]


@pytest.fixture
def cut_evaluation():
    """(held-out loss of a hundred batches, at its second call cut after three; batches given)."""
    given = []
    calls = []

    def batches():
        calls.append(None)
        for number in range(100 if len(calls) == 2 else 2):
            if number == 3:
                _terminate()
                _terminate()  # which says nothing new
            given.append(number)
            yield toy.batch_at(10_000)

    return training.evaluator(training.make_eval_step(toy.loss_fn), batches), given


def test_a_long_held_out_loss_is_cut_and_made_up_for(uninterrupted, tmp_path, cut_evaluation):
    evaluate, given = cut_evaluation
    state = toy.full_run(tmp_path, STEPS, eval_fn=evaluate)
    assert state.step == 4  # saved there
    assert given == [0, 1, 0, 1, 2, 3]
    assert checkpoints.latest_step(tmp_path / "checkpoints") == 4
    assert toy.lines(tmp_path)[-1]["step"] == 3
    _assert_goes_on(tmp_path, uninterrupted)


def test_the_last_held_out_loss_is_not_forgotten(uninterrupted, tmp_path, cut_evaluation):
    with pytest.raises(
        preemption.Stopped, match="saved step 6; its held-out loss is still to come"
    ):
        toy.full_run(tmp_path, STEPS, eval_fn=cut_evaluation[0], eval_period=3, save_period=3)
    assert checkpoints.latest_step(tmp_path / "checkpoints") == STEPS
    assert [line["step"] for line in toy.lines(tmp_path)] == [3, 3, 6]
    state = toy.full_run(tmp_path, STEPS, eval_period=3, save_period=3)
    toy.assert_equal(state, uninterrupted[0])
    assert toy.lines(tmp_path)[-1] == uninterrupted[1][-1]


def test_in_the_first_compilation_it_waits_for_the_step(uninterrupted, tmp_path):
    def loss_fn(params, batch, rng):
        _terminate()  # Python runs here once: while the step is traced
        return toy.loss_fn(params, batch, rng)

    step = training.make_train_step(loss_fn, toy.make_tx(), learning_rate=toy.RATE)
    assert toy.full_run(tmp_path, STEPS, train_step=step).step == 1
    assert checkpoints.all_steps(tmp_path / "checkpoints") == [1]
    _assert_goes_on(tmp_path, uninterrupted)


def test_before_the_first_step_it_saves_the_start(uninterrupted, tmp_path):
    def start():
        _terminate()
        return toy.start()

    assert toy.full_run(tmp_path, STEPS, start=start).step == 0
    assert checkpoints.all_steps(tmp_path / "checkpoints") == [0]
    _assert_goes_on(tmp_path, uninterrupted)


def test_while_a_checkpoint_is_written_it_is_finished(uninterrupted, tmp_path, monkeypatch):
    """The second SIGTERM comes in the last save of a run that a first one stopped."""
    came = []
    write = manifest.write

    def slow(step_folder):
        _terminate()
        write(step_folder)

    monkeypatch.setattr(manifest, "write", slow)
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("not noted"))
    try:
        state = toy.full_run(tmp_path, STEPS, eval_fn=None, keep=None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not came
    steps = checkpoints.all_steps(tmp_path / "checkpoints")
    assert 2 <= state.step < STEPS and steps[-1] == state.step
    for step in steps:
        assert checkpoints.check(tmp_path / "checkpoints", step)
    monkeypatch.undo()


def test_elsewhere_nothing_is_cut():
    assert list(preemption.until_stopped(range(3))) == [0, 1, 2]
