import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax.models import activations, t5
from tests.models import tiny
from tests.quick_jit import quick_jit


def test_initial_scales_are_those_of_t5x():
    model = t5.build(dataclasses.replace(tiny.CONFIGS["t5"], d_model=128, d_kv=64, d_ff=256))
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
    model, params = tiny.compiled("t5", **variant)
    batch = tiny.batch("t5")
    batch["encoder_input_tokens"][1, 5:] = 0
    expected = model.logits(params, batch)
    cache = model.init_cache(params, batch["encoder_input_tokens"], 6)
    for position in range(6):
        given = cache["layers"][0]["own_key"]
        tokens = batch["decoder_input_tokens"][:, position]
        logits, cache = model.decode_step(params, cache, tokens)
        np.testing.assert_allclose(logits, expected[:, position], atol=1e-5, rtol=0)
        assert given.is_deleted()  # donated: the step wrote in place
    assert model.decode_step._cache_size() == 1  # one compilation for all positions


def test_packed_row_equals_its_examples_alone():
    model, params = tiny.compiled("t5")
    alone = tiny.batch("t5")
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
    model, params = tiny.compiled("t5")
    batch = tiny.batch("t5") | {"encoder_segment_ids": np.ones((2, 9), np.int32)}
    with pytest.raises(ValueError, match="both or neither.*got encoder_segment_ids alone"):
        model.logits(params, batch)


def test_padding_changes_nothing_and_the_future_is_not_seen():
    model, params = tiny.compiled("t5")
    batch = tiny.batch("t5")
    expected = model.logits(params, batch)
    padded = {key: np.pad(value, ((0, 0), (0, 3))) for key, value in batch.items()}
    np.testing.assert_allclose(model.logits(params, padded)[:, :6], expected, atol=1e-5, rtol=0)
    changed = batch | {"decoder_input_tokens": batch["decoder_input_tokens"].copy()}
    changed["decoder_input_tokens"][:, 4:] = 7
    np.testing.assert_array_equal(model.logits(params, changed)[:, :4], expected[:, :4])


def test_token_outside_the_vocabulary_is_loud():
    model, params = tiny.compiled("t5")
    batch = tiny.batch("t5")
    batch["decoder_input_tokens"][0, 2] = 40
    logits = model.logits(params, batch)
    assert np.all(np.isnan(logits[0, 2:]))
    assert np.all(np.isfinite(logits[1]))


def test_activation_constraints_follow_the_rules_in_force():
    model, params = tiny.plain("t5")
    batch = tiny.batch("t5")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    rules = {"batch": "data", "heads": "model", "length": None, "kv": None}
    tokens = batch["encoder_input_tokens"]
    with activations.sharded(mesh, rules | {"activation_embed": None}):
        text = jax.jit(model.logits).lower(params, batch).as_text()
        cache = jax.eval_shape(lambda p: model.init_cache(p, tokens, 6), params)
        jax.eval_shape(model.decode_step, params, cache, tokens[:, 0])  # ranks fit here, too
    assert '{"data"}, {}, {"model"}, {}' in text  # [B, Q, H, Dh] in attention
    assert '{"data"}, {}, {}' in text  # [B, Q, D] between layers
    again = jax.jit(lambda *arguments: model.logits(*arguments)).lower(params, batch).as_text()
    assert "sharding_constraint" not in again


def test_learns_two_examples_from_random_weights():
    model, params = tiny.plain("t5")
    batch = tiny.batch("t5")
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
