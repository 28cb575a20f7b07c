"""FLOPs of matrix products, counted from shapes: a multiplication and an addition are two.

What is counted is what a model's equations need: no rematerialisation, and attention over the whole
length, masked or not, as it is computed.
"""

from typing import NamedTuple

from specialize_jax.models.gpt2_config import GPT2Config
from specialize_jax.models.t5_config import T5Config


class Decoding(NamedTuple):
    """What cached decoding of a row computes.

    Attributes:
      inputs: FLOPs of reading the inputs, once; no logits.
      token: FLOPs of a token, which attends to the whole cache, filled or not, as it is computed.
      weights: parameters that a token is multiplied with.
    """

    inputs: int
    token: int
    weights: int


def t5_row(config: T5Config, inputs: int, targets: int) -> int:
    """Forward FLOPs of a row of T5.

    Args:
      config: of the model.
      inputs: encoder tokens, padding included.
      targets: decoder tokens.
    """
    d, inner = config.d_model, config.num_heads * config.d_kv
    dense = _t5_layer(config)
    encoder = inputs * dense + 2 * inputs * inputs * inner
    crossed = 2 * (targets + inputs) * d * inner + 2 * targets * inputs * inner
    decoder = targets * dense + 2 * targets * targets * inner + crossed
    layers = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder
    return 2 * (layers + targets * d * config.vocab_size)


def t5_decoding(config: T5Config, inputs: int, most: int) -> Decoding:
    """Cached decoding of a row of T5.

    Args:
      config: of the model.
      inputs: encoder tokens, padding included.
      most: decoder tokens that the cache holds.
    """
    d, inner = config.d_model, config.num_heads * config.d_kv
    layer = _t5_layer(config) + 2 * d * inner
    weights = config.num_decoder_layers * layer + d * config.vocab_size
    attended = config.num_decoder_layers * 2 * (inputs + most) * inner
    return Decoding(t5_row(config, inputs, 0), 2 * (weights + attended), weights)


def _t5_layer(config: T5Config) -> int:
    """Returns the parameters of self-attention and feed-forward."""
    d, inner = config.d_model, config.num_heads * config.d_kv
    matrices = 3 if config.activation == "gated-gelu" else 2
    return 4 * d * inner + matrices * d * config.d_ff


def gpt2_row(config: GPT2Config, inputs: int, targets: int) -> int:
    """Forward FLOPs of a row of GPT-2.

    Args:
      config: of the model.
      inputs: not read; a decoder-only row has one sequence.
      targets: tokens of the row.
    """
    del inputs
    d = config.d_model
    layer = targets * _gpt2_layer(config) + 2 * targets * targets * d
    return 2 * (config.num_layers * layer + targets * d * config.vocab_size)


def gpt2_decoding(config: GPT2Config, inputs: int, most: int) -> Decoding:
    """Cached decoding of a row of GPT-2.

    Args:
      config: of the model.
      inputs: tokens of the prompt, padding included.
      most: tokens behind it.
    """
    d, cached = config.d_model, inputs - 1 + most
    weights = config.num_layers * _gpt2_layer(config) + d * config.vocab_size
    # Of the prompt's last layer nothing but keys and values is read.
    read = (config.num_layers - 1) * (_gpt2_layer(config) + 2 * inputs * d) + 2 * d * d
    token = weights + config.num_layers * 2 * cached * d
    return Decoding(2 * inputs * read, 2 * token, weights)


def _gpt2_layer(config: GPT2Config) -> int:
    return 4 * config.d_model**2 + 2 * config.d_model * config.d_ff
