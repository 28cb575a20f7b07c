"""Checkpoints of others <-> ours, without their libraries.

config, params = convert.load_hf("flan-t5-small")      # a folder with config.json, *.safetensors
model = t5.build(config)
convert.save_hf(config, params, "specialised")         # transformers reads it
"""

from specialize_jax.convert.hf import load_hf, save_hf

__all__ = ["load_hf", "save_hf"]
