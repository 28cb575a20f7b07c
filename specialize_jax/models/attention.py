"""Attention of T5, and the relative bias that takes the place of positions.

Letters: `B` rows, `Q` query positions, `K` key positions, `H` heads, `Dh` width of a head,
`D` model width. Logits, biases and softmax are float32; matrix products run in `dtype`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from specialize_jax.models import layers

MASKED = -1e10
"""Added to an attention logit that must not count; finite, so that a row of them has no NaN."""


def mask_bias(mask: jax.Array) -> jax.Array:
    """Turns a mask (True = keep) into float32 summands for attention logits."""
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)


def relative_buckets(
    relative_position: np.ndarray, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """Maps key position minus query position to a bucket: exact near by, logarithmic farther off.

    Source: 1910.10683, section 2.1, as Mesh TensorFlow fixed the details.

    Args:
      relative_position: [...] int; key index minus query index.
      bidirectional: half of the buckets for keys ahead; otherwise keys ahead share bucket 0.
      num_buckets: buckets in all.
      max_distance: distances from here on share the last bucket.

    Returns:
      [...] int32 in [0, num_buckets).
    """
    offset = np.zeros_like(relative_position)
    if bidirectional:
        num_buckets //= 2
        offset = np.where(relative_position > 0, num_buckets, 0)
        distance = np.abs(relative_position)
    else:
        distance = np.maximum(-relative_position, 0)
    num_exact = num_buckets // 2
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(num_exact)
    # float32 and the small summand decide on which side distances at a border fall, as in t5x.
    logarithm = np.log(ratio) + np.finfo(np.float32).eps
    far = num_exact + (
        logarithm / np.log(max_distance / num_exact) * (num_buckets - num_exact)
    ).astype(np.int32)
    buckets = np.where(distance < num_exact, distance, np.minimum(far, num_buckets - 1))
    return (buckets + offset).astype(np.int32)


class RelativeBias(nn.Module):
    """The attention bias that depends on key index minus query index only; one per stack."""

    num_heads: int
    num_buckets: int
    max_distance: int
    bidirectional: bool

    def setup(self) -> None:
        """Declares the table [H, buckets]."""
        self.rel_embedding = layers.parameter(
            self,
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            ("heads", "relpos_buckets"),
            (self.num_heads, self.num_buckets),
        )

    def diagonals(self, queries: int, keys: int) -> jax.Array:
        """The bias by difference: [H, Q + K - 1], entry `j` is key minus query = `j - (Q - 1)`."""
        buckets = relative_buckets(
            np.arange(-(queries - 1), keys),
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        return self.rel_embedding[:, buckets]

    def __call__(self, queries: int, keys: int) -> jax.Array:
        """The bias [1, H, Q, K] in float32.

        Every row is the row above moved by one, so no gather (and, backward, no scatter) over
        Q x K is needed: repeating the Q + K numbers row after row and cutting the result into rows
        of Q + K - 1 moves each row by one.
        """
        diagonals = jnp.pad(self.diagonals(queries, keys), ((0, 0), (0, 1)))
        width = queries + keys - 1
        repeated = jnp.tile(diagonals, (1, queries))[:, : queries * width]
        skewed = repeated.reshape(self.num_heads, queries, width)
        return skewed[None, :, :, queries - 1 :]


class Attention(nn.Module):
    """T5's multi-head attention: logits are not divided by the root of the head's width.

    The initial scale of the query kernel makes up for that, as in t5x.

    Attributes:
      embed_dim: `D`.
      num_heads: `H`.
      head_dim: `Dh`.
      dropout_rate: on the attention weights.
      dtype: dtype of the matrix products.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    dropout_rate: float
    dtype: str

    def setup(self) -> None:
        """Declares the four projections."""
        joined = self.num_heads * self.head_dim
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        query_init = nn.initializers.variance_scaling(1.0 / self.head_dim, "fan_in", "normal")
        into = ("embed", "joined_kv")
        self.query = layers.Dense(joined, into, query_init, self.dtype)
        self.key = layers.Dense(joined, into, init, self.dtype)
        self.value = layers.Dense(joined, into, init, self.dtype)
        self.out = layers.Dense(self.embed_dim, into[::-1], init, self.dtype)
        self.dropout = layers.dropout(self.dropout_rate)

    def _split(self, x: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[:-1], self.num_heads, self.head_dim)
        return layers.constrain(x, "batch", "length", "heads", "kv")

    def __call__(
        self,
        inputs: jax.Array,
        memory: jax.Array,
        bias: jax.Array,
        mask: jax.Array | None,
    ) -> jax.Array:
        """Attends from every position of `inputs` to every position of `memory`.

        Args:
          inputs: [B, Q, D] where the queries come from.
          memory: [B, K, D] where keys and values come from.
          bias: [1 or B, 1 or H, Q, K] float32, added to the logits.
          mask: [1 or B, 1, Q, K] float32, added to the logits; None where `bias` holds it.

        Returns:
          [B, Q, D].
        """
        query = self._split(self.query(inputs))
        key = self._split(self.key(memory))
        value = self._split(self.value(memory))
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        logits = logits + bias
        if mask is not None:
            logits = logits + mask
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        weights = self.dropout(weights)
        result = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.out(result.reshape(*inputs.shape[:-1], -1))

    def keys_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values [B, H, K, Dh] of `memory` [B, K, D], as `step` reads them."""
        key, value = self._split(self.key(memory)), self._split(self.value(memory))
        return key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)

    def step(self, x: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array) -> jax.Array:
        """Attends from one position.

        Args:
          x: [B, D] where the query comes from.
          key: [B, H, K, Dh].
          value: [B, H, K, Dh].
          bias: [1 or B, 1 or H, K] float32, the mask included.

        Returns:
          [B, D].
        """
        query = self.query(x).reshape(-1, self.num_heads, self.head_dim)
        logits = jnp.einsum("bhd,bhkd->bhk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits + bias, axis=-1).astype(self.dtype)
        result = jnp.einsum("bhk,bhkd->bhd", weights, value)
        return self.out(result.reshape(x.shape[0], -1))
