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


def test_no_warmup_starts_at_the_peak():
    assert optimizers.schedule("constant", base_learning_rate=0.5)(0) == 0.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "linear"}, "Unknown schedule 'linear'.*constant, rsqrt, cosine"),
        ({"name": "rsqrt"}, "warmup_steps >= 1, got 0"),
        ({"name": "cosine"}, "total_steps, got None"),
    ],
)
def test_schedule_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimizers.schedule(base_learning_rate=0.1, **arguments)


def test_unknown_optimizer_lists_the_choices():
    with pytest.raises(ValueError, match="Unknown optimizer 'sgd'.*adafactor, adamw"):
        optimizers.build("sgd", 0.1)


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
