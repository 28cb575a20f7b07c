import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax.models import layers


def test_norm_is_computed_in_float32():
    norm = layers.RMSNorm(epsilon=1e-6, dtype="bfloat16")
    x = jnp.full((1, 4), 300.0, jnp.bfloat16)  # 300**2 loses its digits in bfloat16
    result = norm.apply({"params": {"scale": jnp.full(4, 2.0)}}, x)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.astype(jnp.float32), 2.0)


def test_layer_norm_centres_in_float32():
    norm = layers.LayerNorm(epsilon=0.0, dtype="bfloat16")
    x = jnp.array([[1024.0, 1032.0, 1024.0, 1032.0]], jnp.bfloat16)  # neighbours in bfloat16
    params = {"scale": jnp.full(4, 2.0), "bias": jnp.arange(4.0)}
    result = norm.apply({"params": params}, x)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.astype(jnp.float32), [[-2.0, 3.0, 0.0, 5.0]])


@pytest.mark.parametrize("shared", [True, False])
def test_dropout_draws_once_a_row_or_for_every_position(shared):
    x = jnp.ones((3, 5, 64))
    dropped = layers.dropout(0.5, shared=shared).apply({}, x, rngs={"dropout": jax.random.key(0)})
    same = np.all(dropped == dropped[:, :1])
    assert same == shared
    assert not np.array_equal(dropped[0], dropped[1])
    assert set(np.unique(dropped)) == {0.0, 2.0}
