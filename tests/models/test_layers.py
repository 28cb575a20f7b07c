import jax.numpy as jnp
import numpy as np

from specialize_jax.models import layers


def test_norm_is_computed_in_float32():
    norm = layers.RMSNorm(epsilon=1e-6, dtype="bfloat16")
    x = jnp.full((1, 4), 300.0, jnp.bfloat16)  # 300**2 loses its digits in bfloat16
    result = norm.apply({"params": {"scale": jnp.full(4, 2.0)}}, x)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.astype(jnp.float32), 2.0)
