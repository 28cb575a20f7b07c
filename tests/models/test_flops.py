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


def test_xxl_is_near_the_rule_of_two_flops_a_parameter():
    model = models.build("t5_1_1_xxl")
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert model.row_flops(512, 512) == pytest.approx(2 * 512 * parameters, rel=0.1)
