"""Shapes and numerics of GPT-2, and the published sizes by name."""

import dataclasses

from specialize_jax.models import choices


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Shape and numerics of a GPT-2.

    Attributes:
      d_model: `D`, a multiple of `num_heads`.
      d_ff: width of the feed-forward layer.
      num_heads: `H`.
      num_layers: `L`.
      vocab_size: `V`.
      num_positions: `P`, rows of the table of positions: a prompt and its continuation together
        are at most this long.
      pad_id: the leading run of this token is padding; published GPT-2 has no padding token, and
        its end of text stands in.
      prefix_attention: positions where `decoder_causal_attention` is 1 see each other in both
        directions (a prefix LM). Published GPT-2 is causal throughout and ignores the field.
      dropout_rate: used only where a dropout key is given; 0 is off.
      layer_norm_epsilon: added to the variance.
      dtype: of activations and matrix products, one of `choices.DTYPES`.
      remat: one of `choices.REMAT`.
      attention: one of `choices.ATTENTION`.
    """

    d_model: int
    d_ff: int
    num_heads: int
    num_layers: int
    vocab_size: int = 50257
    num_positions: int = 1024
    pad_id: int = 50256
    prefix_attention: bool = False
    dropout_rate: float = 0.0
    layer_norm_epsilon: float = 1e-5
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "plain"

    def __post_init__(self) -> None:
        """Refuses choices that nothing stands behind, and numbers that do not go together."""
        choices.check(self)
        if self.d_model % self.num_heads:
            raise ValueError(
                f"Expected num_heads to divide d_model, got {self.num_heads} and {self.d_model}."
            )
        # Padding without an embedding would be NaN, and so would be all that attends beside it.
        if self.pad_id >= self.vocab_size:
            raise ValueError(
                f"Expected pad_id below vocab_size, {self.vocab_size}, got {self.pad_id}: a "
                "student with a vocabulary of its own needs a pad_id of its own."
            )

    @property
    def head_dim(self) -> int:
        """`Dh`."""
        return self.d_model // self.num_heads


def _size(d_model: int, num_heads: int, num_layers: int, dropout_rate: float = 0.1) -> GPT2Config:
    return GPT2Config(d_model, 4 * d_model, num_heads, num_layers, dropout_rate=dropout_rate)


SIZES: dict[str, GPT2Config] = {
    "gpt2_tiny": _size(64, 4, 2, dropout_rate=0.0),
    "gpt2_small": _size(768, 12, 12),
    "gpt2_medium": _size(1024, 16, 24),
    "gpt2_large": _size(1280, 20, 36),
    "gpt2_xl": _size(1600, 25, 48),
}
"""Published shapes by name, with dropout as published, and `gpt2_tiny` for CPUs."""
