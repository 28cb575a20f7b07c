"""What holds of every family: axes, numerics, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny
from tests.quick_jit import quick_jit

families = pytest.mark.parametrize("family", tiny.CONFIGS)


@families
def test_every_parameter_has_one_axis_name_per_dimension(family):
    model, params = tiny.plain(family)
    is_names = lambda node: isinstance(node, tuple)  # noqa: E731
    axes, treedef = jax.tree.flatten(model.axes(), is_leaf=is_names)
    assert treedef == jax.tree.structure(params)
    for names, leaf in zip(axes, jax.tree.leaves(params), strict=True):
        assert len(names) == leaf.ndim
        assert leaf.dtype == jnp.float32
    wo = model.axes()["decoder"]["layers"]["mlp"]["wo"]
    assert wo["kernel"] == ("layers", "mlp", "embed")


@families
def test_dropout_is_on_with_a_key_and_a_rate_only(family):
    model, params = tiny.compiled(family, dropout_rate=0.5)
    batch = tiny.batch(family)
    plain = model.hidden(params, batch)
    dropped = model.hidden(params, batch, dropout_rng=jax.random.key(1))
    again = model.hidden(params, batch, dropout_rng=jax.random.key(1))
    other = model.hidden(params, batch, dropout_rng=jax.random.key(2))
    np.testing.assert_array_equal(dropped, again)
    assert not np.allclose(dropped, plain)
    assert not np.allclose(dropped, other)
    without, _ = tiny.compiled(family)
    np.testing.assert_array_equal(
        without.hidden(params, batch, dropout_rng=jax.random.key(1)), plain
    )


@families
def test_bfloat16_gives_finite_float32_logits_near_those_of_float32(family):
    model, params = tiny.compiled(family)
    low, _ = tiny.compiled(family, dtype="bfloat16")
    batch = tiny.batch(family)
    assert low.hidden(params, batch).dtype == jnp.bfloat16
    logits = low.logits(params, batch)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model.logits(params, batch), atol=0.15)
    first = batch["decoder_input_tokens"][:, :1]
    cache = low.init_cache(params, batch.get("encoder_input_tokens", first), 6)
    step, cache = low.decode_step(params, cache, first[:, 0])
    assert step.dtype == jnp.float32
    np.testing.assert_allclose(step, logits[:, 0], atol=0.1)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(cache["layers"])} == {"bfloat16"}


@pytest.mark.parametrize("remat", ["full", "minimal"])
@families
def test_rematerialisation_keeps_gradients(family, remat):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        _gradient(family, remat=remat, dropout_rate=0.5),
        _gradient(family, remat="none", dropout_rate=0.5),
    )


@families
def test_fused_attention_keeps_gradients(family):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        _gradient(family, attention="fused"),
        _gradient(family, attention="plain"),
    )


@functools.cache
def _gradient(family, **numerics):
    model, params = tiny.plain(family, **numerics)
    batch, key = tiny.batch(family), jax.random.key(3)
    batch[next(iter(batch))][1, :3] = tiny.PAD if family == "gpt2" else 0  # some is masked

    def loss(params):
        return jnp.mean(model.hidden(params, batch, dropout_rng=key) ** 2)

    return quick_jit(jax.grad(loss))(params)
