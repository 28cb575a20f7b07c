"""The modules of GPT-2: a layer, the stack, and the whole.

Letters: `B` rows, `S` tokens, `L` layers, `H` heads, `Dh` width of a head, `D` model width.

Names of parameters are T5's where the part is the same. Initial scales and dropout as in
https://github.com/openai/gpt-2 (src/model.py) and section 2.3 of the GPT-2 paper (Language Models
are Unsupervised Multitask Learners, 2019): a normal of 0.02 throughout, 0.01 for positions, and the
projections back into the residual stream divided by the root of their number.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from specialize_jax.models import activations, attention, boundary, layers
from specialize_jax.models.gpt2_config import GPT2Config
from specialize_jax.models.interface import Batch, Cache

_STDDEV = 0.02
_POSITIONS_STDDEV = 0.01


def _inits(config: GPT2Config) -> tuple[Any, Any]:
    """Initialisers of kernels: of any, and of those whose result is added to the stream."""
    into_stream = _STDDEV * (2 * config.num_layers) ** -0.5
    return nn.initializers.normal(_STDDEV), nn.initializers.normal(into_stream)


def _norm(config: GPT2Config) -> layers.LayerNorm:
    return layers.LayerNorm(config.layer_norm_epsilon, config.dtype)


def _dropout(config: GPT2Config) -> nn.Dropout:
    return layers.dropout(config.dropout_rate, shared=False)


class DecoderLayer(nn.Module):
    """Self-attention and feed-forward, each normalised before and added after.

    Attributes:
      config: the model's.
      keeps: a call also returns the keys and values, [B, H, S, Dh] each, that `step` reads.
    """

    config: GPT2Config
    keeps: bool = False

    def setup(self) -> None:
        """Declares the layer's parts."""
        config = self.config
        init, out_init = _inits(config)
        self.pre_attention_layer_norm = _norm(config)
        self.attention = attention.Attention(
            config.d_model,
            config.num_heads,
            config.head_dim,
            config.dtype,
            config.attention,
            inits=(init, init, out_init),
            scale=config.head_dim**-0.5,
            use_bias=True,
            dropout_rate=config.dropout_rate,
            dropout_shared=False,
        )
        self.pre_mlp_layer_norm = _norm(config)
        self.mlp = layers.FeedForward(
            config.d_model,
            config.d_ff,
            "gelu",
            dropout_rate=0.0,
            dtype=config.dtype,
            use_bias=True,
            inits=(init, out_init),
        )
        self.dropout = _dropout(config)

    def __call__(
        self, x: jax.Array, bias: jax.Array, before: tuple[jax.Array, jax.Array] | None = None
    ) -> tuple[jax.Array, Any]:
        """One step of the scan over layers: x [B, S, D] is carried.

        Args:
          x: [B, S, D].
          bias: [B, 1, S, P + S] float32, a mask's.
          before: keys and values [H, P, Dh] of what stands before every row; None: `P` is 0.
        """
        y = self.pre_attention_layer_norm(x)
        # Projected twice as written, once as compiled.
        kept = self.attention.keys_values(y) if self.keeps else None
        x = x + self.dropout(self.attention(y, y, bias, before=before))
        x = x + self.dropout(self.mlp(self.pre_mlp_layer_norm(x)))
        return activations.constrain(x, "batch", "length", "activation_embed"), kept

    def step(
        self,
        x: jax.Array,
        cache: Cache,
        column: jax.Array,
        bias: jax.Array,
        seen: jax.Array,
        before: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, Cache]:
        """The layer at one position, x [B, D], with this layer's part of the cache.

        Args:
          x: [B, D].
          cache: this layer's part.
          column: [] int32, where keys and values go.
          bias: [B, 1, L] float32, a mask's bias, of what was read behind the prompt.
          seen: [B, 1, Tin] float32, of the prompt.
          before: as in a call.
        """
        y = self.pre_attention_layer_norm(x)
        own = attention.Seen(cache["own_key"], cache["own_value"], bias)
        others = [attention.Seen(cache["input_key"], cache["input_value"], seen)]
        if before is not None:
            others.insert(0, attention.Seen(*before, jnp.zeros((1, 1, 1))))
        y, key, value = self.attention.extend(y, own, column, *others)
        x = x + y
        x = x + self.mlp(self.pre_mlp_layer_norm(x))
        return x, {**cache, "own_key": key, "own_value": value}


class Decoder(nn.Module):
    """The stack and the norm after it."""

    config: GPT2Config
    keeps: bool = False

    def setup(self) -> None:
        """Declares the stack's parts."""
        depth = self.config.num_layers
        self.layers = layers.stack(DecoderLayer, self.config, depth, 1, keeps=self.keeps)
        self.decoder_norm = _norm(self.config)

    def __call__(self, x: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
        """Maps x [B, S, D] under a mask bias [B, 1, S, S]; and what the layers keep, [L, ...]."""
        x, kept = self.layers(x, bias)
        return self.decoder_norm(x), kept


class GPT2(nn.Module):
    """Embeddings and the stack; the head is the embedding of tokens."""

    config: GPT2Config
    keeps: bool = False

    def setup(self) -> None:
        """Declares the model's parts."""
        config = self.config
        self.token_embedder = layers.Embed(
            config.vocab_size, config.d_model, config.dtype, stddev=_STDDEV
        )
        self.position_embedder = layers.Embed(
            config.num_positions,
            config.d_model,
            config.dtype,
            stddev=_POSITIONS_STDDEV,
            axis="abspos_buckets",
        )
        self.decoder = Decoder(config, self.keeps)
        self.dropout = _dropout(config)

    def embed(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Embeds tokens [...] at positions [...]."""
        return self.token_embedder(tokens) + self.position_embedder(positions)

    def __call__(self, batch: Batch) -> tuple[jax.Array, Any]:
        """The last states [B, S, D], and what the layers keep."""
        tokens = batch["decoder_input_tokens"]
        segments, positions = layout(self.config, batch)
        x = activations.constrain(
            self.embed(tokens, positions), "batch", "length", "activation_embed"
        )
        mask = visible(self.config, batch, segments)
        return self.decoder(self.dropout(x), attention.mask_bias(mask))


def layout(config: GPT2Config, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Segment and position of every token, [B, S] each.

    Given together for packed rows; otherwise a row is one segment, its padding on the left is
    another, and positions count from the first real token. Padding on the right needs no care:
    what stands before it does not see it.
    """
    tokens = batch["decoder_input_tokens"]
    given = boundary.given_together(batch, "decoder_segment_ids", "decoder_positions")
    if given is not None:
        return given
    if tokens.shape[1] > config.num_positions:
        raise ValueError(
            f"Expected rows of at most {config.num_positions} tokens, for that many positions are "
            f"known, got {tokens.shape[1]}; packed rows may be longer and bring decoder_positions."
        )
    real = jnp.cumsum(tokens != config.pad_id, axis=1) > 0
    positions = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)
    return real.astype(jnp.int32), positions


def visible(config: GPT2Config, batch: Batch, segments: jax.Array) -> jax.Array:
    """Which key a query sees: [B, 1, S, S] of bool."""
    seen = jnp.tri(segments.shape[1], dtype=bool)[None, None]
    if config.prefix_attention and "decoder_causal_attention" in batch:
        prefix = batch["decoder_causal_attention"] > 0
        seen = seen | (prefix[:, None, :, None] & prefix[:, None, None, :])
    return seen & (segments[:, None, :, None] == segments[:, None, None, :])
