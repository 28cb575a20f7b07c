"""One update: memorising, microbatches, keys, metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax import training
from specialize_jax.training import optimizers, train_state
from tests.training import toy


def _assert_trees_close(ours, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, expected)


@pytest.mark.parametrize("name, rate", [("adamw", 3e-2), ("adafactor", 1e-1)])
def test_memorises_eight_examples(name, rate):
    tx = optimizers.build(name, rate)
    step = training.make_train_step(toy.no_dropout, tx)
    state = train_state.create(toy.init_params(), tx, seed=0)
    batch = toy.batch_at(0)
    # Targets that follow no rule but the input's: each row is remembered by its own tokens.
    batch["inputs"] = np.tile(np.arange(8, dtype=np.int32)[:, None], (1, toy.LENGTH))
    batch["targets"] = np.random.default_rng(0).permutation(8).astype(np.int32)[batch["inputs"]]
    for _ in range(150):
        state, metrics = step(state, batch)
    assert metrics["loss_sum"] / metrics["tokens"] < 0.01
    assert state.step == 150


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_microbatches_equal_the_big_batch_whatever_the_padding(parts):
    """Rows have 1 to 6 tokens, one has none: a mean of means would differ."""
    batch = toy.batch_at(0)
    batch["weights"][3] = 0
    tx = optimizers.build("adamw", 1e-2, clip=0.1)
    results = []
    for number in (1, parts):
        step = training.make_train_step(toy.no_dropout, tx, num_microbatches=number)
        results.append(step(train_state.create(toy.init_params(), tx, seed=0), batch))
    _assert_trees_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_the_mean_over_weighted_tokens():
    batch = toy.batch_at(0)
    tx = optimizers.build("adamw", 1e-2)
    params = toy.init_params()

    def mean(params):
        loss_sum, metrics = toy.no_dropout(params, batch, None)
        return loss_sum / metrics["tokens"]

    gradients = jax.grad(mean)(params)
    expected = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradients)))
    step = training.make_train_step(toy.no_dropout, tx)
    _, metrics = step(train_state.create(params, tx, seed=0), batch)
    np.testing.assert_allclose(metrics["grad_norm"], expected, rtol=1e-5)


def test_dropout_follows_the_seed_and_the_step():
    batch = toy.batch_at(0)
    step = training.make_train_step(toy.loss_fn, toy.make_tx())

    def loss(seed, at):
        state = train_state.create(toy.init_params(), toy.make_tx(), seed=seed)
        _, metrics = step(state._replace(step=jnp.int32(at)), batch)
        return float(metrics["loss_sum"])

    assert loss(0, 0) == loss(0, 0)
    assert loss(0, 0) != loss(0, 1)
    assert loss(0, 0) != loss(1, 0)


def test_a_batch_without_weighted_tokens_changes_no_gradient_to_nan():
    batch = toy.batch_at(0)
    batch["weights"][:] = 0
    step = training.make_train_step(toy.loss_fn, toy.make_tx())
    state, metrics = step(toy.start(), batch)
    assert metrics["grad_norm"] == 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))


def test_eval_step_draws_nothing_and_reports_sums():
    metrics = training.make_eval_step(toy.loss_fn)(toy.init_params(), toy.batch_at(0))
    expected, _ = toy.loss_fn(toy.init_params(), toy.batch_at(0), None)
    np.testing.assert_allclose(metrics["loss_sum"], expected, rtol=1e-6)


def test_the_learning_rate_of_the_update_is_reported():
    step = training.make_train_step(toy.loss_fn, toy.make_tx(), learning_rate=toy.RATE)
    state, rates = toy.start(), []
    for _ in range(4):
        state, metrics = step(state, toy.batch_at(0))
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [0, 1.5e-2, 3e-2, 3e-2], rtol=1e-6)


def test_rows_that_cannot_be_split_are_an_error():
    step = training.make_train_step(toy.loss_fn, toy.make_tx(), num_microbatches=3)
    with pytest.raises(ValueError, match=r"num_microbatches=3 divides, got \['inputs'\] with 8"):
        step(toy.start(), toy.batch_at(0))


def test_mesh_without_shardings_is_an_error():
    mesh = training.partitioning.make_mesh()
    with pytest.raises(ValueError, match="mesh and shardings together"):
        training.make_train_step(toy.loss_fn, toy.make_tx(), mesh=mesh)
