"""Shapes and numerics of T5, and the published sizes by name."""

import dataclasses
import functools

from specialize_jax.models import choices

ACTIVATIONS = ("gated-gelu", "relu")


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Shape and numerics of a T5.

    Attributes:
      d_model: `D`.
      d_kv: width of a head.
      d_ff: width of the feed-forward layer.
      num_heads: `H`.
      num_encoder_layers: `L` of the encoder.
      num_decoder_layers: `L` of the decoder.
      vocab_size: `V`, padded to 32,128 in every published T5.
      relative_buckets: buckets of the relative bias.
      relative_max_distance: distances from here on share a bucket.
      activation: one of `ACTIVATIONS`.
      tied_embeddings: the unembedding is the embedding (T5 1.0).
      rescale_output: the last states are multiplied by D**-0.5 (T5 1.0).
      dropout_rate: used only where a dropout key is given; 0 is off.
      layer_norm_epsilon: added to the mean square.
      dtype: of activations and matrix products, one of `choices.DTYPES`.
      remat: one of `choices.REMAT`.
      attention: one of `choices.ATTENTION`.
    """

    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    vocab_size: int = 32128
    relative_buckets: int = 32
    relative_max_distance: int = 128
    activation: str = "gated-gelu"
    tied_embeddings: bool = False
    rescale_output: bool = False
    dropout_rate: float = 0.0
    layer_norm_epsilon: float = 1e-6
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "plain"

    def __post_init__(self) -> None:
        """Refuses names that nothing stands behind."""
        choices.check(self, activation=ACTIVATIONS)


def _first_sizes() -> dict[str, T5Config]:
    """T5 1.0, trained with dropout 0.1 (1910.10683, section 3.1.2)."""
    first = functools.partial(
        T5Config, activation="relu", tied_embeddings=True, rescale_output=True, dropout_rate=0.1
    )
    return {
        "t5_small": first(512, 64, 2048, 8, 6, 6),
        "t5_base": first(768, 64, 3072, 12, 12, 12),
        "t5_large": first(1024, 64, 4096, 16, 24, 24),
        "t5_3b": first(1024, 128, 16384, 32, 24, 24),
        "t5_11b": first(1024, 128, 65536, 128, 24, 24),
    }


def _sizes() -> dict[str, T5Config]:
    shapes = {
        "small": T5Config(512, 64, 1024, 6, 8, 8),
        "base": T5Config(768, 64, 2048, 12, 12, 12),
        "large": T5Config(1024, 64, 2816, 16, 24, 24),
        "xl": T5Config(2048, 64, 5120, 32, 24, 24),
        "xxl": T5Config(4096, 64, 10240, 64, 24, 24),
    }
    sizes = {"t5_1_1_tiny": T5Config(64, 16, 128, 4, 2, 2)}
    sizes |= {f"t5_1_1_{size}": config for size, config in shapes.items()}
    flan = functools.partial(dataclasses.replace, dropout_rate=0.1)
    sizes |= {f"flan_t5_{size}": flan(config) for size, config in shapes.items()}
    return sizes | _first_sizes()


SIZES: dict[str, T5Config] = _sizes()
"""Published shapes by name, and `t5_1_1_tiny` for CPUs. Flan-T5 was tuned with dropout 0.1; T5 1.1
was trained without; T5 1.0 with 0.1."""
