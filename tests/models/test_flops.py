"""FLOPs counted from shapes, against the compiler's own count of a program without loops."""

import jax
import numpy as np
import pytest

from specialize_jax import models

# Layers of one kind each: the compiler counts a scan's body once.
STUDENTS = [
    ("t5_1_1_tiny", {"num_encoder_layers": 1, "num_decoder_layers": 1}),
    ("t5_small", {"num_encoder_layers": 1, "num_decoder_layers": 1}),
    ("gpt2_tiny", {"num_layers": 1}),
]


@pytest.mark.parametrize("size, layers", STUDENTS)
def test_counts_what_the_compiler_counts(size, layers):
    model = models.build(size, **layers, **({"d_model": 256, "d_ff": 512} if "t5" in size else {}))
    inputs, targets = 96, 160
    batch = {"decoder_input_tokens": jax.ShapeDtypeStruct((1, targets), np.int32)}
    if not model.decoder_only:
        batch["encoder_input_tokens"] = jax.ShapeDtypeStruct((1, inputs), np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0))
    cost = jax.jit(model.logits).lower(params, batch).compile().cost_analysis()
    assert model.row_flops(inputs, targets) == pytest.approx(cost["flops"], rel=0.03)


@pytest.mark.parametrize("size", ["t5_1_1_tiny", "t5_small", "gpt2_tiny"])
def test_decoding_counts_what_the_compiler_counts(size):
    model = models.build(size, **({"d_model": 256, "d_ff": 512} if "t5" in size else {}))
    rows, inputs, most = 2, 96, 40
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((rows, inputs), np.int32)
    cache = jax.eval_shape(lambda p, t: model.init_cache(p, t, most), params, tokens)
    last = jax.ShapeDtypeStruct((rows,), np.int32)
    # One step has no loop, whatever the number of layers.
    step = jax.jit(model.decode_step).lower(params, cache, last).compile()
    found = model.decoding_flops(inputs, most)
    assert rows * found.token == pytest.approx(step.cost_analysis()["flops"], rel=0.03)


@pytest.mark.parametrize("size, layers", STUDENTS)
def test_reading_the_inputs_counts_what_the_compiler_counts(size, layers):
    model = models.build(size, **layers, **({"d_model": 256, "d_ff": 512} if "t5" in size else {}))
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, 96), np.int32)
    read = jax.jit(lambda p, t: model.init_cache(p, t, 8)).lower(params, tokens).compile()
    found = model.decoding_flops(96, 8)
    # The compiler's count has the norms in it, which weigh in one layer of a tiny model.
    assert found.inputs == pytest.approx(read.cost_analysis()["flops"], rel=0.06)


@pytest.mark.parametrize("size", ["t5_1_1_xxl", "t5_large", "gpt2_xl"])
def test_a_token_is_multiplied_with_every_matrix_of_the_decoder(size):
    model = models.build(size)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    if not model.decoder_only:
        shapes = {name: part for name, part in shapes.items() if name != "encoder"}
        if not model.config.tied_embeddings:
            del shapes["token_embedder"]
        # Keys and values of the inputs are made once.
        layers = shapes["decoder"]["layers"]["encoder_decoder_attention"]
        del layers["key"], layers["value"]
    else:
        shapes["position_embedder"] = {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert model.decoding_flops(512, 512).weights == pytest.approx(parameters, rel=1e-3)


def test_xxl_is_near_the_rule_of_two_flops_a_parameter():
    model = models.build("t5_1_1_xxl")
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert model.row_flops(512, 512) == pytest.approx(2 * 512 * parameters, rel=0.1)
