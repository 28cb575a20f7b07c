"""Layers but attention: projections, embedding, norms, feed-forward, and the stack of layers.

Letters: `B` rows, `Q` positions, `D` model width. Parameters are float32; matrix products run in
`dtype`; norms are float32 always.

Functions that only rearrange or gate activations are wrapped in `jax.checkpoint`: their inputs are
kept for the backward pass anyway, and recomputing them costs less than storing what lies between.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from specialize_jax.models import choices

_Initializer: TypeAlias = jax.nn.initializers.Initializer
_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Names the dimensions of an activation for the partitioner.

    Outside a mesh, and for names that the axis rules in force do not list, this does nothing.
    """
    fallback = nn.spmd.RulesFallback.NO_CONSTRAINT
    return nn.with_logical_constraint(x, names, fallback=fallback)


def parameter(
    module: nn.Module,
    name: str,
    init: _Initializer,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    """Declares a float32 parameter of `module` whose dimensions are named by `axes`."""
    boxed: Any = nn.with_logical_partitioning(init, axes)
    return module.param(name, boxed, shape, jnp.float32)


def dropout(rate: float, *, shared: bool = True) -> nn.Dropout:
    """Dropout; rate 0 is off.

    Args:
      rate: share of the entries that are set to zero.
      shared: one mask for all positions of a row, as T5 was trained: random bits for every
        position as well would cost more than the layers' norms. GPT-2 draws for every entry.
    """
    return nn.Dropout(rate, broadcast_dims=(-2,) if shared else (), deterministic=False)


def stack(layer: type[nn.Module], config: Any, length: int, num_shared: int, **fields: Any) -> Any:
    """Stacks layers, scanned, so that compile time does not grow with depth.

    Args:
      layer: maps (carry, *shared) to (carry, what is stacked or None).
      config: the layer's first field; its `remat` says what the backward pass finds stored.
      length: how many.
      num_shared: arguments beside the carry, the same for all layers.
      **fields: the layer's other fields.
    """
    if config.remat != "none":
        layer = nn.remat(layer, policy=choices.REMAT[config.remat], prevent_cse=False)
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast,) * num_shared,
        length=length,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scanned(config, **fields)


class Dense(nn.Module):
    """A matrix product over the last dimension.

    Attributes:
      features: width of the result.
      axes: logical names of the kernel's two dimensions, [in, out].
      kernel_init: initialiser of the kernel.
      dtype: the product's dtype.
      use_bias: whether a bias, at first zero, is added.
    """

    features: int
    axes: tuple[str, str]
    kernel_init: _Initializer
    dtype: str
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies [..., in] by the kernel."""
        shape = (x.shape[-1], self.features)
        kernel = parameter(self, "kernel", self.kernel_init, self.axes, shape)
        # As one matrix: with two batch dimensions XLA's CPU backend would transpose a whole
        # activation for the kernel's gradient.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        product = jnp.dot(rows, kernel.astype(self.dtype))
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = parameter(self, "bias", zeros, self.axes[1:], (self.features,))
            product = product + bias.astype(self.dtype)[None]
        return product.reshape(*x.shape[:-1], self.features)


class Embed(nn.Module):
    """A table of embeddings, of tokens or of positions.

    Attributes:
      size: number of rows.
      features: `D`.
      dtype: of what is looked up.
      stddev: of the initial entries.
      axis: logical name of the rows.
    """

    size: int
    features: int
    dtype: str
    stddev: float = 1.0
    axis: str = "vocab"

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Looks up ids [...] of int; one outside the table gives NaN, never a guess."""
        shape = (self.size, self.features)
        init = nn.initializers.normal(self.stddev)
        embedding = parameter(self, "embedding", init, (self.axis, "embed"), shape)
        return jnp.take(embedding, ids, axis=0, mode="fill").astype(self.dtype)


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
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: jax.Array) -> jax.Array:
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    scale, bias = (p.reshape((1,) * (x.ndim - 1) + (-1,)) for p in (scale, bias))
    return centred * jax.lax.rsqrt(variance + epsilon) * scale + bias


class LayerNorm(nn.Module):
    """The layer norm with centring and bias (1607.06450); in float32."""

    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last dimension; returns `dtype`."""
        shape = (x.shape[-1],)
        scale = parameter(self, "scale", nn.initializers.ones, ("embed",), shape)
        bias = parameter(self, "bias", nn.initializers.zeros, ("embed",), shape)
        return _layer_norm(x, scale, bias, jnp.float32(self.epsilon)).astype(self.dtype)


@jax.checkpoint
def _gated_gelu(gate: jax.Array, linear: jax.Array) -> jax.Array:
    return jax.nn.gelu(gate, approximate=True) * linear


@jax.checkpoint
def _gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


class FeedForward(nn.Module):
    """The two-layer perceptron: gated GELU (T5 1.1; 2002.05202), ReLU (T5 1.0), GELU (GPT-2).

    Attributes:
      embed_dim: `D`.
      mlp_dim: width between the layers.
      activation: "gated-gelu", "relu" or "gelu" (the approximation by a tanh).
      dropout_rate: on the hidden layer.
      dtype: dtype of the matrix products.
      use_bias: whether both products have one.
      inits: initialisers of the first and the last kernel.
    """

    embed_dim: int
    mlp_dim: int
    activation: str
    dropout_rate: float
    dtype: str
    use_bias: bool = False
    inits: tuple[_Initializer, _Initializer] = (_FAN_IN, _FAN_IN)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, Q, D] (or [B, D] while decoding) to the same shape."""
        first, last = self.inits
        into = ("embed", "mlp")

        def project(name: str) -> jax.Array:
            return Dense(self.mlp_dim, into, first, self.dtype, self.use_bias, name=name)(x)

        if self.activation == "gated-gelu":
            hidden = _gated_gelu(project("wi_0"), project("wi_1"))
        elif self.activation == "gelu":
            hidden = _gelu(project("wi"))
        else:
            hidden = jax.nn.relu(project("wi"))
        hidden = dropout(self.dropout_rate)(hidden)
        out = Dense(self.embed_dim, into[::-1], last, self.dtype, self.use_bias, name="wo")
        return out(hidden)
