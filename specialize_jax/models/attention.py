"""Attention, and T5's relative bias that takes the place of positions.

Letters: `B` rows, `Q` query positions, `K` key positions, `H` heads, `Dh` width of a head,
`D` model width. Logits, biases and softmax are float32; matrix products run in `dtype`.
"""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from specialize_jax.models import activations, layers

_Initializer: TypeAlias = jax.nn.initializers.Initializer

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

    def of_step(self, index: jax.Array, written: jax.Array) -> jax.Array:
        """The bias of one position a row to what a cache holds.

        Args:
          index: [B] int32, the place of a row's position.
          written: [B, L] int32, the places of the keys, at most `L` - 1 before it, or -1 for none.

        Returns:
          [B, H, L] float32, the mask included.
        """
        length = written.shape[1]
        by_distance = self.diagonals(length, 1)[:, ::-1]
        distances = jnp.clip(index[:, None] - written, 0, length - 1)
        bias = jnp.take(by_distance, distances, axis=1).transpose(1, 0, 2)
        return bias + mask_bias(written >= 0)[:, None]

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


def plain(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None = None,
    *,
    scale: float,
    drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> jax.Array:
    """Attention written out.

    Args:
      query: [B, Q, H, Dh].
      key: [B, K, H, Dh].
      value: [B, K, H, Dh].
      bias: [1 or B, 1 or H, Q, K] float32, added to the logits.
      mask: [1 or B, 1, Q, K] float32, added to the logits; None where `bias` holds it.
      scale: factor on the products of queries and keys.
      drop: dropout on the weights [B, H, Q, K].

    Returns:
      [B, Q, H, Dh].
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * scale + bias
    if mask is not None:
        logits = logits + mask
    weights = drop(jax.nn.softmax(logits, axis=-1).astype(value.dtype))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def fused(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None = None,
    *,
    scale: float,
) -> jax.Array:
    """The same as `plain`, without dropout, by `jax.nn.dot_product_attention`.

    On a GPU, in bfloat16 and for the shapes that it takes, this is cuDNN's flash attention, which
    never stores [Q, K] logits; it is given the bias in bfloat16. Elsewhere XLA compiles it.
    """
    bias = bias if mask is None else bias + mask
    implementation: Literal["cudnn", "xla"] = "cudnn" if _cudnn_serves(query, key) else "xla"
    if implementation == "cudnn":
        bias = bias.astype(query.dtype)
    return jax.nn.dot_product_attention(
        query, key, value, bias, scale=scale, implementation=implementation
    )


def _cudnn_serves(query: jax.Array, key: jax.Array) -> bool:
    """Whether cuDNN's kernel takes these; it raises for what it does not take."""
    length, width = query.shape[1], query.shape[3]
    return (
        jax.default_backend() == "gpu"
        and query.dtype == jnp.bfloat16
        and width % 8 == 0
        and width <= 128
        and length % 2 == 0
        and key.shape[1] % 2 == 0
    )


class Seen(NamedTuple):
    """What one position attends to.

    Attributes:
      key: [B, H, K, Dh], or [H, K, Dh] where all rows see the same.
      value: as `key`.
      bias: [1 or B, 1 or H, K] float32, added to the logits; masks are in it.
    """

    key: jax.Array
    value: jax.Array
    bias: jax.Array


class Attention(nn.Module):
    """Multi-head attention.

    Attributes:
      embed_dim: `D`.
      num_heads: `H`.
      head_dim: `Dh`.
      dtype: dtype of the matrix products.
      kind: one of `choices.ATTENTION`. Where dropout is in force it is "plain", for
        `jax.nn.dot_product_attention` draws none.
      inits: initialisers of the query kernel, of the key and value kernels, and of the last one.
      scale: factor on the products of queries and keys.
      use_bias: whether the projections have one.
      dropout_rate: on the attention weights.
      dropout_shared: one mask for all queries, see `layers.dropout`.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    dtype: str
    kind: str
    inits: tuple[_Initializer, _Initializer, _Initializer]
    scale: float = 1.0
    use_bias: bool = False
    dropout_rate: float = 0.0
    dropout_shared: bool = True

    def setup(self) -> None:
        """Declares the four projections."""
        joined = self.num_heads * self.head_dim
        query_init, init, out_init = self.inits
        into = ("embed", "joined_kv")
        self.query = layers.Dense(joined, into, query_init, self.dtype, self.use_bias)
        self.key = layers.Dense(joined, into, init, self.dtype, self.use_bias)
        self.value = layers.Dense(joined, into, init, self.dtype, self.use_bias)
        self.out = layers.Dense(self.embed_dim, into[::-1], out_init, self.dtype, self.use_bias)
        self.dropout = layers.dropout(self.dropout_rate, shared=self.dropout_shared)

    def _split(self, x: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[:-1], self.num_heads, self.head_dim)
        return activations.constrain(x, "batch", "length", "heads", "kv")

    def __call__(
        self,
        inputs: jax.Array,
        memory: jax.Array,
        bias: jax.Array,
        mask: jax.Array | None = None,
        before: tuple[jax.Array, jax.Array] | None = None,
    ) -> jax.Array:
        """Attends from every position of `inputs` to every position of `memory`.

        Args:
          inputs: [B, Q, D] where the queries come from.
          memory: [B, K, D] where keys and values come from.
          bias: [1 or B, 1 or H, Q, K] float32, added to the logits.
          mask: [1 or B, 1, Q, K] float32, added to the logits; None where `bias` holds it.
          before: keys and values [H, P, Dh] that stand before those of `memory` in all rows; they
            count as the first `P` of `K`.

        Returns:
          [B, Q, D].
        """
        query = self._split(self.query(inputs))
        key, value = self._split(self.key(memory)), self._split(self.value(memory))
        if before is not None:
            key, value = _preceded(before[0], key), _preceded(before[1], value)
        parts = (query, key, value)
        if self.kind == "fused" and self.dropout_rate == 0:
            result = fused(*parts, bias, mask, scale=self.scale)
        else:
            result = plain(*parts, bias, mask, scale=self.scale, drop=self.dropout)
        return self.out(result.reshape(*inputs.shape[:-1], -1))

    def keys_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values [B, H, K, Dh] of `memory` [B, K, D], as `step` reads them."""
        key, value = self._split(self.key(memory)), self._split(self.value(memory))
        return key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)

    def step(self, x: jax.Array, *seen: Seen) -> jax.Array:
        """Attends from one position to all that is given.

        Args:
          x: [B, D] where the query comes from.
          *seen: keys, values and biases.

        Returns:
          [B, D].
        """
        query = self.query(x).reshape(-1, self.num_heads, self.head_dim)
        rows = ["b" if key.ndim == 4 else "" for key, _, _ in seen]
        logits = [
            jnp.einsum(f"bhd,{b}hkd->bhk", query, key, preferred_element_type=jnp.float32)
            * self.scale
            + bias
            for b, (key, _, bias) in zip(rows, seen, strict=True)
        ]
        weights = jax.nn.softmax(_joined(logits), axis=-1).astype(self.dtype)
        ends = list(itertools.accumulate(key.shape[-2] for key, _, _ in seen))[:-1]
        parts = jnp.split(weights, ends, axis=-1)
        results = [
            jnp.einsum(f"bhk,{b}hkd->bhd", part, value)
            for b, part, (_, value, _) in zip(rows, parts, seen, strict=True)
        ]
        return self.out(sum(results[1:], results[0]).reshape(x.shape[0], -1))

    def extend(
        self, x: jax.Array, own: Seen, column: jax.Array, *others: Seen
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`step` to a cache and to itself.

        Args:
          x: [B, D].
          own: the cache; its column `column` is written first, for a position attends to itself.
          column: [] int32.
          *others: what else is attended to.

        Returns:
          [B, D], and the cache's keys and values with the column filled.
        """
        own_key, own_value = self.keys_values(x[:, None])
        key = jax.lax.dynamic_update_slice_in_dim(own.key, own_key, column, axis=2)
        value = jax.lax.dynamic_update_slice_in_dim(own.value, own_value, column, axis=2)
        return self.step(x, *others, Seen(key, value, own.bias)), key, value


def _preceded(before: jax.Array, own: jax.Array) -> jax.Array:
    """[H, P, Dh] in front of each row of [B, K, H, Dh]."""
    before = before.swapaxes(0, 1)[None].astype(own.dtype)
    return jnp.concatenate([jnp.broadcast_to(before, (len(own), *before.shape[1:])), own], axis=1)


def _joined(logits: list[jax.Array]) -> jax.Array:
    return logits[0] if len(logits) == 1 else jnp.concatenate(logits, axis=-1)
