"""One tiny student of each family, compiled once for all tests."""

import dataclasses
import functools

import jax
import numpy as np

from specialize_jax import models
from specialize_jax.models import gpt2, t5
from tests.quick_jit import quick_jit

PAD = 39
CONFIGS = {
    "t5": t5.T5Config(
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_heads=3,
        num_encoder_layers=2,
        num_decoder_layers=3,
        vocab_size=40,
    ),
    "gpt2": gpt2.GPT2Config(
        d_model=16, d_ff=24, num_heads=4, num_layers=3, vocab_size=40, num_positions=20, pad_id=PAD
    ),
}


@functools.cache
def params(family, **shape):
    """Parameters, none of which is zero or one as it is at first, so that each one counts."""
    config = dataclasses.replace(CONFIGS[family], **shape)
    fresh = quick_jit(models.FAMILIES[family].build(config).init)(jax.random.key(0))
    leaves, treedef = jax.tree.flatten(fresh)
    rng = np.random.default_rng(0)
    noisy = [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(treedef, noisy)


def plain(family, **overrides):
    """A model and parameters, which do not depend on the numerics."""
    config = dataclasses.replace(CONFIGS[family], **overrides)
    shape = {k: v for k, v in overrides.items() if k not in models.NUMERICS}
    shape.pop("prefix_attention", None)
    return models.FAMILIES[family].build(config), params(family, **shape)


@functools.cache
def compiled(family, **overrides):
    """The same with the model's functions compiled."""
    model, its_params = plain(family, **overrides)
    fast = dataclasses.replace(
        model,
        hidden=quick_jit(model.hidden),
        logits=quick_jit(model.logits),
        init_cache=quick_jit(model.init_cache, static_argnums=2),
        decode_step=quick_jit(model.decode_step, donate_argnums=1),
    )
    return fast, its_params


def batch(family, rows=2, encoder_length=9, decoder_length=6):
    """Random tokens without padding."""
    rng = np.random.default_rng(0)
    lengths = {"encoder_input_tokens": encoder_length, "decoder_input_tokens": decoder_length}
    tokens = {
        field: rng.integers(1, PAD, (rows, length), dtype=np.int32)
        for field, length in lengths.items()
    }
    return tokens if family == "t5" else {"decoder_input_tokens": tokens["decoder_input_tokens"]}
