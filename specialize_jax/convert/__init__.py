"""Checkpoints of others <-> ours, without their libraries.

config, params = convert.load_hf("flan-t5-small")      # a folder with config.json, *.safetensors
model = t5.build(config)
convert.save_hf(config, params, "specialised")         # transformers reads it
config, params = convert.load_t5x("checkpoint_1114000", "flan_t5_xxl")
"""

from specialize_jax.convert.hf import load_hf, save_hf
from specialize_jax.convert.hf_reading import open_hf
from specialize_jax.convert.hf_writing import write_hf
from specialize_jax.convert.lazy import DTYPES, Lazy, check_dtype, pieces
from specialize_jax.convert.t5x import load_t5x, open_t5x
from specialize_jax.convert.vocabulary import fit as fit_vocabulary

__all__ = [
    "DTYPES",
    "Lazy",
    "check_dtype",
    "fit_vocabulary",
    "load_hf",
    "load_t5x",
    "open_hf",
    "open_t5x",
    "pieces",
    "save_hf",
    "write_hf",
]
