"""Schedules at hand-computed steps; optimizers by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax.training import optimizers


@pytest.mark.parametrize(
    "name, expected",
    [
        ("constant", {0: 0.0, 2: 0.5, 4: 1.0, 16: 1.0}),
        ("rsqrt", {0: 0.0, 2: 0.5, 4: 1.0, 16: 0.5, 64: 0.25}),
        ("cosine", {0: 0.0, 2: 0.5, 4: 1.0, 8: 0.5, 12: 0.0, 99: 0.0}),
    ],
)
def test_schedules(name, expected):
    rate = optimizers.schedule(name, base_learning_rate=0.1, warmup_steps=4, total_steps=12)
    for step, share in expected.items():
        np.testing.assert_allclose(rate(step), 0.1 * share, atol=1e-8)


@pytest.mark.parametrize(
    "micro_steps, updates, share",
    [(130_500, 4_350, 0.997), (38_200, 1_900, 0.994), (13_800, 4_600, 0.75), (31_700, 5_300, 0.93)],
)
def test_a_cosine_over_micro_steps_hardly_falls(micro_steps, updates, share):
    """The papers' script, ten epochs: reference/papers.md, A.6, behaviour 1."""
    rate = optimizers.schedule(
        "cosine", base_learning_rate=1.0, warmup_steps=10, total_steps=10 * micro_steps
    )
    np.testing.assert_allclose(rate(10 * updates), share, atol=5e-3)


def test_no_warmup_starts_at_the_peak():
    assert optimizers.schedule("constant", base_learning_rate=0.5)(0) == 0.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "linear"}, "Unknown schedule 'linear'.*constant, rsqrt, cosine"),
        ({"name": "rsqrt"}, "warmup_steps >= 1, got 0"),
        ({"name": "cosine"}, "total_steps, got None"),
        ({"name": "cosine", "total_steps": 0}, "total_steps >= 1, got 0"),
    ],
)
def test_schedule_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimizers.schedule(base_learning_rate=0.1, **arguments)


def test_unknown_optimizer_lists_the_choices():
    with pytest.raises(ValueError, match="Unknown optimizer 'sgd'.*adafactor, adamw"):
        optimizers.build("sgd", 0.1)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("adamw", {"decay_rate": 0.8}, "'adamw' has no setting 'decay_rate'; .* b1, b2, eps"),
        ("adafactor", {"b1": 0, "z": 1}, "no setting 'b1', 'z'; choose from: factored, mult"),
        ("adafactor", {"decay_rate": "0.8"}, "a number, .* for decay_rate, got '0.8'"),
        ("adafactor", {"step_offset": 5}, "step_offset of at most 0, .* got 5"),
    ],
)
def test_settings_that_do_not_exist_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        optimizers.build(name, 0.1, **settings)


SETTINGS = {
    "factored": False,
    "multiply_by_parameter_scale": False,
    "beta1": 0.5,
    "decay_rate": 0.5,
    "step_offset": -100,
    "clipping_threshold": None,
    "min_dim_size_to_factor": 4,
    "epsilon1": 1e-1,
    "b1": 0.5,
    "b2": 0.5,
    "eps": 1.0,
}


@pytest.mark.parametrize(
    "name, setting",
    [(name, setting) for name, known in optimizers.SETTINGS.items() for setting in known],
)
def test_every_setting_changes_the_second_update(name, setting):
    """And so reaches optax by the right name."""

    def second(**settings):
        # Factored, but for min_dim_size_to_factor, which is to make it so.
        usual = {} if "min_dim" in setting or name == "adamw" else {"min_dim_size_to_factor": 2}
        tx = optimizers.build(name, 0.1, **(usual | settings))
        params = {"w": jnp.linspace(1.0, 2.0, 24).reshape(4, 6)}
        state = tx.init(params)
        for power in (1, 3):
            updates, state = tx.update({"w": params["w"] ** power - 1}, state, params)
        return updates["w"]

    assert not np.allclose(second(), second(**{setting: SETTINGS[setting]}), rtol=1e-3)


def test_clip_bounds_the_gradient_and_is_off_by_default():
    params = {"w": jnp.zeros(4)}
    gradient = {"w": jnp.full(4, 50.0)}

    def first_moment(clip):
        tx = optimizers.build("adamw", 0.1, clip=clip)
        _, state = tx.update(gradient, tx.init(params), params)
        return np.linalg.norm(state[-1][0].mu["w"] if clip else state[0].mu["w"]) / 0.1

    np.testing.assert_allclose(first_moment(None), 100.0, rtol=1e-5)
    np.testing.assert_allclose(first_moment(5.0), 5.0, rtol=1e-5)


def test_adafactor_state_is_factored():
    tx = optimizers.build("adafactor", 0.1)
    leaves = jax.tree.leaves(tx.init({"w": jnp.zeros((128, 256))}))
    assert max(leaf.size for leaf in leaves) == 256
