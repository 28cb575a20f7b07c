"""A tiny T5 with random parameters, and folders of it to spoil."""

import pathlib
from typing import Any

import jax
import numpy as np

from specialize_jax import convert
from specialize_jax.models import t5

CONFIG = t5.T5Config(
    d_model=8, d_kv=4, d_ff=12, num_heads=2, num_encoder_layers=2, num_decoder_layers=3,
    vocab_size=128,
)  # fmt: skip


def params(config: t5.T5Config = CONFIG, seed: int = 0) -> dict[str, Any]:
    """Random numpy parameters, nothing left at zero or one."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(t5.build(config).init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def folder(path: pathlib.Path, config: t5.T5Config = CONFIG) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes a Hugging Face folder of small shards; returns it and what is in it."""
    made = params(config)
    convert.save_hf(config, made, path, max_shard_bytes=4000)
    return path, made


def assert_same(found: Any, expected: Any) -> None:
    """Same tree, dtypes and values."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
