"""FLOPs of matrix products, counted from shapes: a multiplication and an addition are two.

What is counted is what a model's equations need: no rematerialisation, and attention over the whole
length, masked or not, as it is computed.
"""

from specialize_jax.models.gpt2_config import GPT2Config
from specialize_jax.models.t5_config import T5Config


def t5_row(config: T5Config, inputs: int, targets: int) -> int:
    """Forward FLOPs of a row of T5.

    Args:
      config: of the model.
      inputs: encoder tokens, padding included.
      targets: decoder tokens.
    """
    d, inner = config.d_model, config.num_heads * config.d_kv
    matrices = 3 if config.activation == "gated-gelu" else 2
    dense = 4 * d * inner + matrices * d * config.d_ff
    encoder = inputs * dense + 2 * inputs * inputs * inner
    crossed = 2 * (targets + inputs) * d * inner + 2 * targets * inputs * inner
    decoder = targets * dense + 2 * targets * targets * inner + crossed
    layers = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder
    return 2 * (layers + targets * d * config.vocab_size)


def gpt2_row(config: GPT2Config, inputs: int, targets: int) -> int:
    """Forward FLOPs of a row of GPT-2.

    Args:
      config: of the model.
      inputs: not read; a decoder-only row has one sequence.
      targets: tokens of the row.
    """
    del inputs
    d = config.d_model
    layer = targets * (4 * d * d + 2 * d * config.d_ff) + 2 * targets * targets * d
    return 2 * (config.num_layers * layer + targets * d * config.vocab_size)
