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


def _random(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def _segments_mask():
    """Two segments and padding in row 0, one segment in row 1; queries 5, keys 7."""
    queries = np.array([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]])
    keys = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 0]])
    return attention.mask_bias(queries[:, None, :, None] == keys[:, None, None, :])


MASKS = {
    "bias": (_random((1, 3, 5, 7), 3), None),
    "segments": (_segments_mask(), None),
    "bias and segments": (_random((1, 3, 5, 7), 3), _segments_mask()),
    "causal": (attention.mask_bias(np.tri(5, 7, 1, dtype=bool))[None, None], None),
}


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize(("bias", "mask"), MASKS.values(), ids=MASKS)
def test_fused_attention_equals_plain(bias, mask, scale):
    parts = [_random((2, 5, 3, 4), 0), _random((2, 7, 3, 4), 1), _random((2, 7, 3, 4), 2)]
    weights = _random((2, 5, 3, 4), 4)

    def value_and_gradients(attend):
        def loss(query, key, value, bias):
            return jnp.sum(weights * attend(query, key, value, bias, mask, scale=scale))

        result = attend(*parts, bias, mask, scale=scale)
        return result, jax.grad(loss, argnums=(0, 1, 2, 3))(*parts, bias)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=0),
        value_and_gradients(attention.fused),
        value_and_gradients(attention.plain),
    )


def test_plain_attention_equals_loops():
    query, key, value = (np.asarray(_random((2, 3, 2, 4), seed)) for seed in range(3))
    bias = np.asarray(_random((1, 2, 3, 3), 3))
    expected = np.zeros_like(query)
    for row, position, head in np.ndindex(2, 3, 2):
        logits = [
            0.5 * query[row, position, head] @ key[row, other, head]
            + bias[0, head, position, other]
            for other in range(3)
        ]
        weights = np.exp(logits) / np.sum(np.exp(logits))
        expected[row, position, head] = sum(w * value[row, k, head] for k, w in enumerate(weights))
    found = attention.plain(query, key, value, bias, scale=0.5)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_fused_attention_gives_way_where_dropout_is_in_force(rate):
    init = jax.nn.initializers.normal(0.5)
    x, bias = _random((2, 5, 8), 0), jnp.zeros((1, 1, 5, 5))

    def run(kind):
        module = attention.Attention(
            8, 2, 4, "float32", kind, inits=(init, init, init), dropout_rate=rate
        )
        params = module.init(
            {"params": jax.random.key(0), "dropout": jax.random.key(1)}, x, x, bias
        )
        return module.apply(params, x, x, bias, rngs={"dropout": jax.random.key(2)})

    np.testing.assert_allclose(run("fused"), run("plain"), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "length", "width", "chosen"),
    [
        ("bfloat16", 6, 8, "cudnn"),
        ("float32", 6, 8, "xla"),
        ("bfloat16", 5, 8, "xla"),
        ("bfloat16", 6, 12, "xla"),
        ("bfloat16", 6, 136, "xla"),
    ],
)
def test_on_a_gpu_cudnn_is_asked_only_for_what_it_takes(monkeypatch, dtype, length, width, chosen):
    """What is asked for; that the kernel's numbers are right needs a GPU."""
    asked = {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda q, k, v, bias, **settings: asked.update(settings, bias=bias) or q,
    )
    x = jnp.zeros((1, length, 2, width), dtype)
    attention.fused(x, x, x, jnp.zeros((1, 2, length, length)), None, scale=0.25)
    assert (asked["implementation"], asked["scale"]) == (chosen, 0.25)
    assert asked["bias"].dtype == (dtype if chosen == "cudnn" else "float32")
