"""Layers of T5 but attention: projections, embedding, norm, feed-forward.

Letters: `B` rows, `Q` positions, `D` model width. Parameters are float32; matrix products run in
`dtype`; norms are float32 always.

Functions that only rearrange or gate activations are wrapped in `jax.checkpoint`: their inputs are
kept for the backward pass anyway, and recomputing them costs less than storing what lies between.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Names the dimensions of an activation for the partitioner.

    Outside a mesh, and for names that the axis rules in force do not list, this does nothing.
    """
    fallback = nn.spmd.RulesFallback.NO_CONSTRAINT
    return nn.with_logical_constraint(x, names, fallback=fallback)


def parameter(
    module: nn.Module,
    name: str,
    init: jax.nn.initializers.Initializer,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    """Declares a float32 parameter of `module` whose dimensions are named by `axes`."""
    boxed: Any = nn.with_logical_partitioning(init, axes)
    return module.param(name, boxed, shape, jnp.float32)


def dropout(rate: float) -> nn.Dropout:
    """Dropout with one mask for all positions of a row, as T5 was trained; rate 0 is off.

    Drawing random bits for every position as well would cost more than the layers' norms.
    """
    return nn.Dropout(rate, broadcast_dims=(-2,), deterministic=False)


class Dense(nn.Module):
    """A matrix product over the last dimension, without a bias.

    Attributes:
      features: width of the result.
      axes: logical names of the kernel's two dimensions, [in, out].
      kernel_init: initialiser of the kernel.
      dtype: the product's dtype.
    """

    features: int
    axes: tuple[str, str]
    kernel_init: jax.nn.initializers.Initializer
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies [..., in] by the kernel."""
        shape = (x.shape[-1], self.features)
        kernel = parameter(self, "kernel", self.kernel_init, self.axes, shape)
        # As one matrix: with two batch dimensions XLA's CPU backend would transpose a whole
        # activation for the kernel's gradient.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        return jnp.dot(rows, kernel.astype(self.dtype)).reshape(*x.shape[:-1], self.features)


class Embed(nn.Module):
    """The table of token embeddings."""

    vocab_size: int
    features: int
    dtype: str

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Looks up tokens [...] of int; an id outside the vocabulary gives NaN, never a guess."""
        shape = (self.vocab_size, self.features)
        init = nn.initializers.normal(1.0)
        embedding = parameter(self, "embedding", init, ("vocab", "embed"), shape)
        return jnp.take(embedding, tokens, axis=0, mode="fill").astype(self.dtype)


@jax.checkpoint
def _rms_norm(x: jax.Array, scale: jax.Array, epsilon: jax.Array) -> jax.Array:
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    scale = scale.reshape((1,) * (x.ndim - 1) + (-1,))
    return x32 * jax.lax.rsqrt(mean_square + epsilon) * scale


class RMSNorm(nn.Module):
    """T5's layer norm: scaled to unit mean square, no centring, no bias; in float32."""

    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last dimension; returns `dtype`."""
        scale = parameter(self, "scale", nn.initializers.ones, ("embed",), (x.shape[-1],))
        return _rms_norm(x, scale, jnp.float32(self.epsilon)).astype(self.dtype)


@jax.checkpoint
def _gated_gelu(gate: jax.Array, linear: jax.Array) -> jax.Array:
    return jax.nn.gelu(gate, approximate=True) * linear


class FeedForward(nn.Module):
    """The two-layer perceptron: gated GELU (T5 1.1; 2002.05202) or ReLU (T5 1.0).

    Attributes:
      embed_dim: `D`.
      mlp_dim: width between the layers.
      activation: "gated-gelu" or "relu".
      dropout_rate: on the hidden layer.
      dtype: dtype of the matrix products.
    """

    embed_dim: int
    mlp_dim: int
    activation: str
    dropout_rate: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, Q, D] (or [B, D] while decoding) to the same shape."""
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

        def project(name: str) -> jax.Array:
            return Dense(self.mlp_dim, ("embed", "mlp"), init, self.dtype, name=name)(x)

        if self.activation == "gated-gelu":
            hidden = _gated_gelu(project("wi_0"), project("wi_1"))
        else:
            hidden = jax.nn.relu(project("wi"))
        hidden = dropout(self.dropout_rate)(hidden)
        return Dense(self.embed_dim, ("mlp", "embed"), init, self.dtype, name="wo")(hidden)
