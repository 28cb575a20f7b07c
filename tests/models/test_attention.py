import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax.models import attention


def _bucket(relative_position, *, bidirectional, num_buckets, max_distance):
    """One position, in plain Python; borders of the logarithm are nudged by the same epsilon."""
    bucket = 0
    if bidirectional:
        num_buckets //= 2
        if relative_position > 0:
            bucket = num_buckets
        distance = abs(relative_position)
    else:
        distance = max(-relative_position, 0)
    exact = num_buckets // 2
    if distance < exact:
        return bucket + distance
    share = (math.log(distance / exact) + 1.2e-7) / math.log(max_distance / exact)
    return bucket + min(exact + int(share * (num_buckets - exact)), num_buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_buckets_equal_plain_python(bidirectional, num_buckets, max_distance):
    settings = dict(bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance)
    positions = np.arange(-600, 601)
    expected = [_bucket(int(position), **settings) for position in positions]
    np.testing.assert_array_equal(attention.relative_buckets(positions, **settings), expected)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (3, 7), (7, 3)])
def test_relative_bias_equals_a_gather_over_all_pairs(queries, keys):
    bias = attention.RelativeBias(num_heads=2, num_buckets=8, max_distance=6, bidirectional=True)
    table = jax.random.normal(jax.random.key(0), (2, 8))
    positions = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    buckets = attention.relative_buckets(
        positions, bidirectional=True, num_buckets=8, max_distance=6
    )

    def skewed(table):
        return bias.apply({"params": {"rel_embedding": table}}, queries, keys)

    np.testing.assert_array_equal(skewed(table)[0], table[:, buckets])
    weights = jax.random.normal(jax.random.key(1), (2, queries, keys))
    np.testing.assert_allclose(
        jax.grad(lambda t: jnp.sum(skewed(t)[0] * weights))(table),
        jax.grad(lambda t: jnp.sum(t[:, buckets] * weights))(table),
        atol=1e-6,
    )
