"""The modules of T5: layers, stacks, and the whole.

Letters: `B` rows, `Tin` encoder tokens, `S` decoder tokens, `H` heads, `Dh` width of a head, `D`
model width.

Layers are stacked on the first axis of each parameter and scanned, so compile time does not grow
with depth. The relative bias is one per stack and is computed once. Packed rows need no positions:
differences of row indices are right within a segment, and other segments are masked.

Dropout is off where `config.dropout_rate` is 0; who wants it off passes a config that says so.
Initial scales and dropout shapes as in https://github.com/google-research/t5x (examples/t5).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from specialize_jax.models import activations, attention, boundary, layers
from specialize_jax.models.interface import Batch, Cache
from specialize_jax.models.t5_config import T5Config


def _attention(config: T5Config) -> attention.Attention:
    """T5's: logits are not divided by the root of a head's width.

    The initial scale of the query kernel makes up for that, as in t5x.
    """
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    query_init = nn.initializers.variance_scaling(1.0 / config.d_kv, "fan_in", "normal")
    return attention.Attention(
        config.d_model,
        config.num_heads,
        config.d_kv,
        config.dtype,
        config.attention,
        inits=(query_init, init, init),
        dropout_rate=config.dropout_rate,
    )


def _norm(config: T5Config) -> layers.RMSNorm:
    return layers.RMSNorm(config.layer_norm_epsilon, config.dtype)


def _feed_forward(config: T5Config) -> layers.FeedForward:
    return layers.FeedForward(
        config.d_model, config.d_ff, config.activation, config.dropout_rate, config.dtype
    )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each normalised before and added after."""

    config: T5Config

    def setup(self) -> None:
        """Declares the layer's parts."""
        self.pre_attention_layer_norm = _norm(self.config)
        self.attention = _attention(self.config)
        self.pre_mlp_layer_norm = _norm(self.config)
        self.mlp = _feed_forward(self.config)
        self.dropout = layers.dropout(self.config.dropout_rate)

    def __call__(self, x: jax.Array, bias: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        """One step of the scan over layers: x [B, Tin, D] is carried, nothing is stacked."""
        y = self.pre_attention_layer_norm(x)
        y = self.attention(y, y, bias, mask)
        x = x + self.dropout(y)
        y = self.mlp(self.pre_mlp_layer_norm(x))
        x = x + self.dropout(y)
        return activations.constrain(x, "batch", "length", "activation_embed"), None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward."""

    config: T5Config

    def setup(self) -> None:
        """Declares the layer's parts."""
        self.pre_self_attention_layer_norm = _norm(self.config)
        self.self_attention = _attention(self.config)
        self.pre_cross_attention_layer_norm = _norm(self.config)
        self.encoder_decoder_attention = _attention(self.config)
        self.pre_mlp_layer_norm = _norm(self.config)
        self.mlp = _feed_forward(self.config)
        self.dropout = layers.dropout(self.config.dropout_rate)

    def __call__(
        self,
        x: jax.Array,
        encoded: jax.Array,
        bias: jax.Array,
        mask: jax.Array,
        cross_mask: jax.Array,
    ) -> tuple[jax.Array, None]:
        """One step of the scan over layers: x [B, S, D] is carried, nothing is stacked."""
        y = self.pre_self_attention_layer_norm(x)
        y = self.self_attention(y, y, bias, mask)
        x = x + self.dropout(y)
        y = self.pre_cross_attention_layer_norm(x)
        y = self.encoder_decoder_attention(y, encoded, cross_mask, None)
        x = x + self.dropout(y)
        y = self.mlp(self.pre_mlp_layer_norm(x))
        x = x + self.dropout(y)
        return activations.constrain(x, "batch", "length", "activation_embed"), None

    def cross_keys_values(self, encoded: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What `step` attends to in the encoder: keys and values [B, H, Tin, Dh]."""
        return self.encoder_decoder_attention.keys_values(encoded)

    def step(
        self, x: jax.Array, cache: Cache, column: jax.Array, bias: jax.Array, seen: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """The layer at one position, x [B, D], with this layer's part of the cache.

        Args:
          x: [B, D].
          cache: this layer's part.
          column: [] int32, where keys and values go.
          bias: [B, H, L] float32, of what the decoder has read.
          seen: [B, 1, Tin] float32, a mask's bias, of the inputs.
        """
        own = attention.Seen(cache["own_key"], cache["own_value"], bias)
        y = self.pre_self_attention_layer_norm(x)
        y, key, value = self.self_attention.extend(y, own, column)
        x = x + y
        y = self.pre_cross_attention_layer_norm(x)
        inputs = attention.Seen(cache["input_key"], cache["input_value"], seen)
        x = x + self.encoder_decoder_attention.step(y, inputs)
        x = x + self.mlp(self.pre_mlp_layer_norm(x))
        return x, {**cache, "own_key": key, "own_value": value}


def relative_bias(config: T5Config, bidirectional: bool) -> attention.RelativeBias:
    """A stack's relative bias; decoders look back only."""
    return attention.RelativeBias(
        config.num_heads, config.relative_buckets, config.relative_max_distance, bidirectional
    )


class Encoder(nn.Module):
    """The encoder stack."""

    config: T5Config

    def setup(self) -> None:
        """Declares the stack's parts."""
        self.relpos_bias = relative_bias(self.config, bidirectional=True)
        self.layers = layers.stack(EncoderLayer, self.config, self.config.num_encoder_layers, 2)
        self.encoder_norm = _norm(self.config)
        self.dropout = layers.dropout(self.config.dropout_rate)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Encodes embedded tokens [B, Tin, D] under a mask bias [B, 1, 1 or Tin, Tin]."""
        bias = self.relpos_bias(x.shape[1], x.shape[1])
        x, _ = self.layers(self.dropout(x), bias, mask)
        return self.dropout(self.encoder_norm(x))


class Decoder(nn.Module):
    """The decoder stack, and the head where it is not the embedding."""

    config: T5Config

    def setup(self) -> None:
        """Declares the stack's parts."""
        self.relpos_bias = relative_bias(self.config, bidirectional=False)
        self.layers = layers.stack(DecoderLayer, self.config, self.config.num_decoder_layers, 4)
        self.decoder_norm = _norm(self.config)
        self.dropout = layers.dropout(self.config.dropout_rate)

    def __call__(
        self, x: jax.Array, encoded: jax.Array, mask: jax.Array, cross_mask: jax.Array
    ) -> jax.Array:
        """Decodes embedded tokens [B, S, D] under mask biases over [S, S] and [S, Tin]."""
        bias = self.relpos_bias(x.shape[1], x.shape[1])
        x, _ = self.layers(self.dropout(x), encoded, bias, mask, cross_mask)
        return self.dropout(self.decoder_norm(x))


class T5(nn.Module):
    """Embedding, both stacks, and the head where the embedding is not used again."""

    config: T5Config

    def setup(self) -> None:
        """Declares the model's parts."""
        config = self.config
        self.token_embedder = layers.Embed(config.vocab_size, config.d_model, config.dtype)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if not config.tied_embeddings:
            init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
            self.logits_dense = layers.Dense(
                config.vocab_size, ("embed", "vocab"), init, config.dtype
            )

    def encode(self, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        """Encodes tokens [B, Tin]; a position sees those of its own segment."""
        mask = segments[:, None, :, None] == segments[:, None, None, :]
        return self.encoder(self.embed(tokens), attention.mask_bias(mask))

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Embeds tokens [B, positions]."""
        embedded = self.token_embedder(tokens)
        return activations.constrain(embedded, "batch", "length", "activation_embed")

    def hidden(self, batch: Batch) -> jax.Array:
        """The decoder's last states [B, S, D], rescaled where the variant wants it."""
        encoder_segments, decoder_segments = _segments(batch)
        encoded = self.encode(batch["encoder_input_tokens"], encoder_segments)
        length = batch["decoder_input_tokens"].shape[1]
        causal = jnp.tri(length, dtype=bool)[None, None]
        own = decoder_segments[:, None, :, None] == decoder_segments[:, None, None, :]
        cross = decoder_segments[:, None, :, None] == encoder_segments[:, None, None, :]
        hidden = self.decoder(
            self.embed(batch["decoder_input_tokens"]),
            encoded,
            attention.mask_bias(own & causal),
            attention.mask_bias(cross),
        )
        return self.rescale(hidden)

    def rescale(self, hidden: jax.Array) -> jax.Array:
        """Multiplies by D**-0.5 in T5 1.0."""
        return hidden * self.config.d_model**-0.5 if self.config.rescale_output else hidden

    def __call__(self, batch: Batch) -> None:
        """Touches every parameter, for initialisation."""
        hidden = self.hidden(batch)
        if not self.config.tied_embeddings:
            self.logits_dense(hidden)


def _segments(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Segment ids of both sides: given together, or one segment a row with token 0 as padding."""
    given = boundary.given_together(batch, "encoder_segment_ids", "decoder_segment_ids")
    if given is not None:
        return given
    encoder = (batch["encoder_input_tokens"] > 0).astype(jnp.int32)
    # Padding of the decoder stands at the end, where the causal mask already hides it.
    return encoder, jnp.ones_like(batch["decoder_input_tokens"])
