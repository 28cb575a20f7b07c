"""NaN and divergence: what stops a run, what it leaves, and that nothing sound is lost."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax import training
from specialize_jax.training import checkpoints, stops, train_state
from tests.training import toy

STEPS = 9
BROKEN = 5  # the update that meets NaN: between two lines, two steps after a checkpoint


def batches(start, factor=np.nan):
    """The toy's data, spoiled from the batch of update BROKEN on."""
    for number, batch in enumerate(toy.batches(start), start // toy.BATCH + 1):
        if number >= BROKEN:
            batch["weights"] = batch["weights"] * np.float32(factor)
        yield batch


def assert_equal(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def restored(model_dir):
    with checkpoints.Checkpoints(model_dir / "checkpoints") as saved:
        return saved.restore_latest(jax.eval_shape(toy.start))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The checkpoint of the last sound step, of a run that ends there."""
    model_dir = tmp_path_factory.mktemp("sound")
    toy.run(model_dir, BROKEN - 1)
    return restored(model_dir)


def root_loss(params, batch, rng):
    """The toy's loss and a square root, whose gradient does not exist where `root` is 0."""
    loss_sum, metrics = toy.loss_fn(params, batch, rng)
    loss_sum += jnp.sqrt(jnp.mean(batch["root"]) * jnp.sum(params["embed"] ** 2))
    return loss_sum, metrics | {"loss_sum": loss_sum}


def with_root(index, weight=1.0, root=1.0):
    batch = toy.batch_at(index)
    weights = np.where(batch["weights"] > 0, np.float32(weight), 0)
    return batch | {"weights": weights, "root": np.full(toy.BATCH, root, np.float32)}


@pytest.mark.parametrize("spoiled", [{"weight": np.nan}, {"weight": np.inf}, {"root": 0.0}])
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_broken_update_is_not_applied_nor_is_any_after_it(name, spoiled):
    step = training.make_train_step(root_loss, toy.make_tx(name), num_microbatches=2)
    state, _ = step(toy.start(name), with_root(0))
    before = jax.device_get(state)
    state, metrics = step(state, with_root(8, **spoiled))
    assert not np.isfinite(metrics["grad_norm"])
    assert np.isfinite(metrics["loss_sum"]) == ("root" in spoiled)
    for batch in (with_root(8), with_root(0, **spoiled), with_root(16)):
        state, metrics = step(state, batch)
    assert state.step == ~1
    assert_equal(train_state.before_halt(state), before)
    state, metrics = step(train_state.before_halt(state), with_root(8))
    assert state.step == 2 and np.isfinite(metrics["grad_norm"])


@pytest.mark.parametrize("log_period", [1, 3, 100])
def test_nan_keeps_the_state_before_it(sound, tmp_path, log_period):
    options = {"batches": batches, "log_period": log_period, "save_period": 100}
    for start in (toy.start, None):  # the same command again comes to the same step
        with pytest.raises(training.NotFiniteError) as error:
            toy.run(tmp_path, STEPS, **options | ({"start": start} if start else {}))
        assert f"loss_sum is nan and grad_norm is nan at step {BROKEN}." in str(error.value)
        assert f"saved as {tmp_path}/checkpoints/{BROKEN - 1}." in str(error.value)
        assert checkpoints.all_steps(tmp_path / "checkpoints") == [BROKEN - 1]
    found = restored(tmp_path)
    assert_equal(found.state, sound.state)
    assert found.data_state == sound.data_state == toy.data_state((BROKEN - 1) * toy.BATCH)


def test_from_the_state_that_nan_left_a_run_goes_on_as_if_nothing_had_been(tmp_path):
    with pytest.raises(training.NotFiniteError):
        toy.run(tmp_path / "nan", STEPS, batches=batches)
    assert_equal(toy.run(tmp_path / "nan", STEPS), toy.run(tmp_path / "whole", STEPS))
    text = (tmp_path / "nan" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9]


def test_the_examples_of_the_batch_are_named(tmp_path):
    def two(row):
        return [f"task/{row}/{i}" for i in range(2)]

    with pytest.raises(training.NotFiniteError) as error:
        toy.run(tmp_path, STEPS, batches=batches, describe_row=two)
    rows = range((BROKEN - 1) * toy.BATCH, BROKEN * toy.BATCH)
    assert f"Rows {rows[0]} to {rows[-1]} of the data were its batch: task/{rows[0]}/0, " in str(
        error.value
    )
    assert "and 8 more" in str(error.value)
    left = json.loads((tmp_path / f"stopped_at_{BROKEN}.json").read_text())
    assert left["step"] == BROKEN and left["loss_sum"] == "nan"
    assert left["rows"] == {str(row): two(row) for row in rows}


def test_nan_that_stood_in_the_parameters_saves_nothing(tmp_path):
    def start():
        state = toy.start()
        state.params["embed"] = state.params["embed"].at[3].set(jnp.nan)
        return state

    with pytest.raises(training.NotFiniteError, match="not finite either, so nothing was saved"):
        toy.run(tmp_path, STEPS, start=start)
    assert checkpoints.all_steps(tmp_path / "checkpoints") == []


def test_formats_whose_loss_is_not_finite_are_named(tmp_path):
    kept = []
    words = stops.LastWords(tmp_path, 2, lambda *save: kept.append(save), None, ("a", "b", "c"))
    found = {
        "loss_sum": np.float32(np.inf),
        "grad_norm": np.float32(1.0),
        "group_loss_sum": np.array([1.0, np.inf, np.nan], np.float32),
    }
    state = toy.start()
    halted = state._replace(step=~jnp.int32(6))
    error = words.not_finite(7, found, halted)
    assert "loss_sum is inf and grad_norm is 1.0 at step 7 (not finite: b, c)" in str(error)
    assert "Rows 12 to 13 of the data were its batch: examples whose names nobody knows" in str(
        error
    )
    [(saved, step)] = kept
    assert saved.step == step == 6
    left = json.loads((tmp_path / "stopped_at_7.json").read_text())
    assert left["group_loss_sum"] == [1.0, "inf", "nan"]


@pytest.mark.parametrize(
    ("losses", "stops_at"),
    [
        ([11.0, 9.0, 7.0, 6.0, 3.0, 1.0], None),  # from random weights
        ([1.0, 7.0, 8.0, 5.9, 7.0, 7.0], None),  # two spikes that do not last
        ([1.0, 7.0, 8.0, 6.1], 3),
        ([1.0, None, 7.0, None, 8.0, 6.1], 5),
        ([8.0, 2.0, 7.5, 7.5, 0.5, 6.0, 6.0, 6.0], 7),  # above the best of all lines
    ],
)
def test_the_rule_of_divergence(losses, stops_at):
    watch = stops.Watch(5.0)
    found = []
    for loss in losses:
        found.append(watch.add(loss))
        watch = stops.Watch(5.0, json.loads(json.dumps(watch.to_json())))
    assert found == [number == stops_at for number in range(len(losses))]
    assert not any(map(stops.Watch(None).add, losses))


def test_a_rise_has_to_be_positive():
    with pytest.raises(ValueError, match="max_rise None or above 0, got -1"):
        stops.Watch(-1)


def test_divergence_stops_and_stays_stopped(tmp_path):
    """The data turn into noise: the loss jumps from below 1 to about ln 16 and stays."""

    def turning(start):
        for number, batch in enumerate(toy.batches(start), start // toy.BATCH + 1):
            if number > 30:
                batch["targets"] = (
                    np.random.default_rng(number)
                    .permutation(batch["targets"].reshape(-1))
                    .reshape(batch["targets"].shape)
                )
            yield batch

    options = {"batches": turning, "log_period": 10, "max_loss_rise": 0.5, "save_period": 15}
    describe = {"describe_row": lambda row: [f"row {row}"]}
    with pytest.raises(training.DivergedError, match="at step 60 .* 3rd line in a row") as error:
        toy.run(tmp_path, 100, **options, **describe)
    assert f"saved as {tmp_path}/checkpoints/60" in str(error.value)
    assert "Rows 472 to 479 of the data were its batch: row 472, " in str(error.value)
    left = json.loads((tmp_path / "stopped_at_60.json").read_text())
    assert left["loss"] > left["best_loss"] + 0.5
    # The same command remembers what the best line was.
    with pytest.raises(training.DivergedError, match="at step 70"):
        toy.run(tmp_path, 100, **options, start=None)
    assert toy.run(tmp_path, 75, **options | {"max_loss_rise": None}).step == 75
