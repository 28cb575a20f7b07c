import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from specialize_jax.models import t5
from tests.quick_jit import quick_jit

TINY = t5.T5Config(
    d_model=16,
    d_kv=4,
    d_ff=24,
    num_heads=3,
    num_encoder_layers=2,
    num_decoder_layers=3,
    vocab_size=40,
)


@functools.cache
def _params(**shape):
    return quick_jit(t5.build(dataclasses.replace(TINY, **shape)).init)(jax.random.key(0))


def _plain(*, dtype="float32", dropout_rate=0.0, remat="none", attention="plain", **shape):
    """A model and parameters, which do not depend on the numerics."""
    numerics = {
        "dtype": dtype, "dropout_rate": dropout_rate, "remat": remat, "attention": attention,
    }  # fmt: skip
    return t5.build(dataclasses.replace(TINY, **shape, **numerics)), _params(**shape)


@functools.cache
def _model(**overrides):
    """The same with the model's functions compiled, once for all tests."""
    model, params = _plain(**overrides)
    compiled = dataclasses.replace(
        model,
        hidden=quick_jit(model.hidden),
        logits=quick_jit(model.logits),
        init_cache=quick_jit(model.init_cache, static_argnums=2),
        decode_step=quick_jit(model.decode_step, donate_argnums=1),
    )
    return compiled, params


def _batch(seed=0, rows=2, encoder_length=9, decoder_length=6):
    rng = np.random.default_rng(seed)
    return {
        "encoder_input_tokens": rng.integers(1, 40, (rows, encoder_length), dtype=np.int32),
        "decoder_input_tokens": rng.integers(1, 40, (rows, decoder_length), dtype=np.int32),
    }


def test_every_parameter_has_one_axis_name_per_dimension():
    model, params = _model()
    is_names = lambda node: isinstance(node, tuple)  # noqa: E731
    axes, treedef = jax.tree.flatten(model.axes(), is_leaf=is_names)
    assert treedef == jax.tree.structure(params)
    for names, leaf in zip(axes, jax.tree.leaves(params), strict=True):
        assert len(names) == leaf.ndim
        assert leaf.dtype == jnp.float32
    wi = model.axes()["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    assert wi == ("layers", "embed", "mlp")


def test_initial_scales_are_those_of_t5x():
    model = t5.build(dataclasses.replace(TINY, d_model=128, d_kv=64, d_ff=256))
    params = quick_jit(model.init)(jax.random.key(1))
    layer = params["decoder"]["layers"]
    deviations = {
        "query": (layer["self_attention"]["query"]["kernel"], (128 * 64) ** -0.5),
        "key": (layer["self_attention"]["key"]["kernel"], 128**-0.5),
        "out": (layer["self_attention"]["out"]["kernel"], (3 * 64) ** -0.5),
        "wi": (layer["mlp"]["wi_0"]["kernel"], 128**-0.5),
        "wo": (layer["mlp"]["wo"]["kernel"], 256**-0.5),
        "head": (params["logits_dense"]["kernel"], 128**-0.5),
        "embedding": (params["token_embedder"]["embedding"], 1.0),
    }
    for name, (kernel, expected) in deviations.items():
        np.testing.assert_allclose(np.std(kernel), expected, rtol=0.05, err_msg=name)
    per_layer = layer["mlp"]["wo"]["kernel"]
    assert not np.allclose(per_layer[0], per_layer[1])


@pytest.mark.parametrize(
    "variant",
    [{}, {"activation": "relu", "tied_embeddings": True, "rescale_output": True}],
    ids=["1.1", "1.0"],
)
def test_cached_decoding_equals_the_full_forward_pass(variant):
    model, params = _model(**variant)
    batch = _batch()
    batch["encoder_input_tokens"][1, 5:] = 0
    expected = model.logits(params, batch)
    cache = model.init_cache(params, batch["encoder_input_tokens"], 6)
    for position in range(6):
        given = cache["layers"][0]["self_key"]
        tokens = batch["decoder_input_tokens"][:, position]
        logits, cache = model.decode_step(params, cache, tokens)
        np.testing.assert_allclose(logits, expected[:, position], atol=1e-5, rtol=0)
        assert given.is_deleted()  # donated: the step wrote in place
    assert model.decode_step._cache_size() == 1  # one compilation for all positions


def test_packed_row_equals_its_examples_alone():
    model, params = _model()
    alone = _batch()
    alone["encoder_input_tokens"][0, 3:] = 0  # 3 and 5 tokens to read, 2 and 3 to write
    alone["encoder_input_tokens"][1, 5:] = 0
    packed = {key: np.zeros_like(tokens) for key, tokens in alone.items()}
    segments = {"encoder": [1] * 3 + [2] * 5 + [0], "decoder": [1] * 2 + [2] * 3 + [0]}
    for side, ids in segments.items():
        tokens = alone[f"{side}_input_tokens"]
        lengths = [ids.count(1), ids.count(2)]
        packed[f"{side}_input_tokens"][0, : sum(lengths)] = np.concatenate(
            [tokens[row, :length] for row, length in enumerate(lengths)]
        )
        packed[f"{side}_segment_ids"] = np.array([ids, [0] * len(ids)], np.int32)
    logits = model.logits(params, packed)
    expected = model.logits(params, alone)
    np.testing.assert_allclose(logits[0, :2], expected[0, :2], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits[0, 2:5], expected[1, :3], atol=1e-5, rtol=0)
    assert np.all(np.isfinite(logits))  # the second row is nothing but padding


def test_one_sided_segment_ids_are_refused():
    model, params = _model()
    batch = _batch() | {"encoder_segment_ids": np.ones((2, 9), np.int32)}
    with pytest.raises(ValueError, match="both or neither.*got encoder_segment_ids alone"):
        model.logits(params, batch)


def test_padding_changes_nothing_and_the_future_is_not_seen():
    model, params = _model()
    batch = _batch()
    expected = model.logits(params, batch)
    padded = {key: np.pad(value, ((0, 0), (0, 3))) for key, value in batch.items()}
    np.testing.assert_allclose(model.logits(params, padded)[:, :6], expected, atol=1e-5, rtol=0)
    changed = batch | {"decoder_input_tokens": batch["decoder_input_tokens"].copy()}
    changed["decoder_input_tokens"][:, 4:] = 7
    np.testing.assert_array_equal(model.logits(params, changed)[:, :4], expected[:, :4])


def test_token_outside_the_vocabulary_is_loud():
    model, params = _model()
    batch = _batch()
    batch["decoder_input_tokens"][0, 2] = 40
    logits = model.logits(params, batch)
    assert np.all(np.isnan(logits[0, 2:]))
    assert np.all(np.isfinite(logits[1]))


def test_dropout_is_on_with_a_key_and_a_rate_only():
    model, params = _model(dropout_rate=0.5)
    batch = _batch()
    plain = model.hidden(params, batch)
    dropped = model.hidden(params, batch, dropout_rng=jax.random.key(1))
    again = model.hidden(params, batch, dropout_rng=jax.random.key(1))
    other = model.hidden(params, batch, dropout_rng=jax.random.key(2))
    np.testing.assert_array_equal(dropped, again)
    assert not np.allclose(dropped, plain)
    assert not np.allclose(dropped, other)
    without, _ = _model()
    np.testing.assert_array_equal(
        without.hidden(params, batch, dropout_rng=jax.random.key(1)), plain
    )


def test_bfloat16_gives_finite_float32_logits_near_those_of_float32():
    model, params = _model()
    low, _ = _model(dtype="bfloat16")
    batch = _batch()
    assert low.hidden(params, batch).dtype == jnp.bfloat16
    logits = low.logits(params, batch)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model.logits(params, batch), atol=0.15)
    cache = low.init_cache(params, batch["encoder_input_tokens"], 6)
    step, cache = low.decode_step(params, cache, batch["decoder_input_tokens"][:, 0])
    assert step.dtype == jnp.float32
    np.testing.assert_allclose(step, logits[:, 0], atol=0.1)
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(cache["layers"])}
    assert kinds == {"bfloat16"}


@pytest.mark.parametrize("remat", ["full", "minimal"])
def test_rematerialisation_keeps_gradients(remat):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        _gradient(remat),
        _gradient("none"),
    )


@functools.cache
def _gradient(remat):
    model, params = _plain(dropout_rate=0.5, remat=remat)
    batch, key = _batch(), jax.random.key(3)
    return quick_jit(jax.grad(lambda p: jnp.sum(model.hidden(p, batch, dropout_rng=key) ** 2)))(
        params
    )


def test_fused_attention_keeps_logits_and_gradients():
    batch = _batch()
    batch["encoder_input_tokens"][1, 5:] = 0
    params = _params()

    def value_and_gradient(attention):
        model, _ = _plain(attention=attention)

        def loss(params):
            logits = model.logits(params, batch)
            return jnp.sum(logits**2), logits

        return quick_jit(jax.value_and_grad(loss, has_aux=True))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
        value_and_gradient("fused"),
        value_and_gradient("plain"),
    )


def test_activation_constraints_follow_the_axis_rules_in_force():
    model, params = _plain()
    batch = _batch()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    rules = (("batch", "data"), ("heads", "model"), ("length", None), ("kv", None))
    tokens = batch["encoder_input_tokens"]
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules + (("activation_embed", None),)):
        text = jax.jit(model.logits).lower(params, batch).as_text()
        cache = jax.eval_shape(lambda p: model.init_cache(p, tokens, 6), params)
        jax.eval_shape(model.decode_step, params, cache, tokens[:, 0])  # ranks fit here, too
    assert '{"data"}, {}, {"model"}, {}' in text  # [B, Q, H, Dh] in attention
    assert '{"data"}, {}, {}' in text  # [B, Q, D] between layers
    assert "sharding_constraint" not in jax.jit(model.logits).lower(params, batch).as_text()


def test_learns_two_examples_from_random_weights():
    model, params = _plain()
    batch = _batch()
    targets = np.roll(batch["decoder_input_tokens"], -1, axis=1)

    def loss(params):
        log_probs = jax.nn.log_softmax(model.hidden(params, batch) @ model.unembed(params))
        return -jnp.mean(jnp.take_along_axis(log_probs, targets[..., None], axis=-1))

    @quick_jit
    def step(params, momentum):
        value, gradient = jax.value_and_grad(loss)(params)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
        return jax.tree.map(lambda p, m: p - 0.05 * m, params, momentum), momentum, value

    momentum = jax.tree.map(jnp.zeros_like, params)
    first = None
    for _ in range(60):
        params, momentum, value = step(params, momentum)
        first = value if first is None else first
    assert first > 3.0
    assert value < 0.3
