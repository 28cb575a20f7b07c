"""The programs of a run on simulated devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from specialize_jax import losses, models, training
from specialize_jax.apps import program
from specialize_jax.training import optimizers, partitioning, train_state
from tests import simulated_devices
from tests.apps import mesh_step
from tests.quick_jit import quick_jit


def test_students_train_on_every_mesh_as_on_one_device():
    assert simulated_devices.run("tests.apps.mesh_step", "-W", "error") == ["equal"]


def test_settings_reach_schedule_and_optimizer(monkeypatch):
    monkeypatch.setattr(program, "build", lambda model, mesh, **settings: settings)
    model = models.build("t5_1_1_tiny", vocab_size=50)
    made = program.from_settings(
        model,
        partitioning.make_mesh(devices=jax.devices()[:1]),
        train_steps=10,
        objective="match_sample",
        rule=losses.Rule(),
        optimizer="adafactor",
        learning_rate=1.0,
        optimizer_settings={"min_dim_size_to_factor": 2},
        schedule="cosine",
        schedule_steps=20,
        warmup_steps=0,
        weight_decay=0.0,
        clip=None,
    )
    np.testing.assert_allclose(made["course"](10), 0.5)
    state = jax.eval_shape(lambda key: made["tx"].init(model.init(key)), jax.random.key(0))
    # Factored, though small, and a scale of a layer is not: the setting and the axes are there.
    layer = state[0].v_row["encoder"]["layers"]
    assert layer["mlp"]["wo"]["kernel"].shape == (2, 64)
    assert layer["pre_mlp_layer_norm"]["scale"].shape == (2, 1)


SMALL = {"num_encoder_layers": 1, "num_decoder_layers": 1, "d_model": 16, "vocab_size": 120}


@functools.cache
def _student(dtype):
    model = models.build("t5_1_1_tiny", dropout_rate=0.0, dtype=dtype, **SMALL)
    return model, quick_jit(model.init)(jax.random.key(0))


@functools.cache
def _step(tx, microbatches, dtype):
    loss_fn = program.make_loss_fn(
        _student(dtype)[0],
        objective="match_distribution",
        rule=losses.Rule(),
        chunk=16,
        mesh=partitioning.make_mesh(devices=jax.devices()[:1]),
    )
    return training.make_train_step(loss_fn, tx, num_microbatches=microbatches)


def _one_update(tx, *, microbatches=1, dtype="float32", empty=()):
    """The real loss, where rows `empty` are padding from end to end."""
    model, params = _student(dtype)
    batch = mesh_step.batch_for(model)
    for value in batch.values():
        value[list(empty)] = 0
    state = train_state.create(jax.tree.map(jnp.copy, params), tx, seed=0)
    state, metrics = _step(tx, microbatches, dtype)(state, batch)
    return state, {name: np.asarray(value) for name, value in metrics.items()}


GRADIENT = optax.sgd(1.0)
"""The change of the params is the gradient."""


@pytest.mark.parametrize(
    "empty", [(0, 4), (0, 1, 2, 4, 5, 6), tuple(range(8))], ids=["a part", "all but one", "all"]
)
def test_microbatches_equal_the_big_batch_where_parts_are_all_padding(empty):
    """Of four parts, part `i` has the rows `i` and `i + 4`."""
    whole, sums = _one_update(GRADIENT, empty=empty)
    parts, part_sums = _one_update(GRADIENT, empty=empty, microbatches=4)
    assert sums["tokens"] == part_sums["tokens"] and (sums["tokens"] > 0) == (len(empty) < 8)
    for name, value in sums.items():
        np.testing.assert_allclose(part_sums[name], value, rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        parts.params,
        whole.params,
    )


def test_activations_are_bfloat16_and_all_that_is_kept_float32():
    seen = []

    def record(gradients, state, params=None):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves((gradients, params)))
        return gradients, state

    spy = optax.GradientTransformation(lambda params: optax.EmptyState(), record)
    tx = optax.chain(spy, optimizers.build("adamw", 1e-3))
    state, rough = _one_update(tx, dtype="bfloat16", microbatches=4)
    model, params = _student("bfloat16")
    hidden = jax.eval_shape(model.hidden, params, mesh_step.batch_for(model))
    assert hidden.dtype == jnp.bfloat16
    # What microbatches are summed in is what the optimizer is given.
    assert len(seen) == 2 * len(jax.tree.leaves(params))
    kept = [leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.ndim]
    assert set(seen) == set(kept) == {jnp.dtype("float32")}
    assert all(value.dtype == np.float32 for value in rough.values())
    _, exact = _one_update(GRADIENT, microbatches=4)
    assert rough["loss_sum"] != exact["loss_sum"]
    for name in ("loss_sum", "grad_norm"):
        np.testing.assert_allclose(rough[name], exact[name], rtol=2e-2)
