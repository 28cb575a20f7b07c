"""Where linen modules end and plain pytrees begin: what all students' functions share.

Letters: `B` rows, `D` model width, `V` vocabulary.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

from specialize_jax.models import activations
from specialize_jax.models.interface import Batch, Params


def init(module: nn.Module, batch: Batch, rng: jax.Array) -> Params:
    """Random parameters of a module that is called with a batch, without boxes."""
    return meta.unbox(module.init(rng, batch)["params"])


def axes(module: nn.Module, batch: Batch) -> dict[str, Any]:
    """The tree of the parameters with the logical names of each one's dimensions as leaves."""
    boxed = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
    return jax.tree.map(
        lambda box: box.names, boxed, is_leaf=lambda node: isinstance(node, meta.AxisMetadata)
    )


def given_together(batch: Batch, first: str, second: str) -> tuple[jax.Array, jax.Array] | None:
    """Two fields that belong together; None where a batch has neither.

    Raises:
      ValueError: it has one alone.
    """
    given = [field for field in (first, second) if field in batch]
    if len(given) == 1:
        raise ValueError(f"Expected both or neither of {first}, {second}, got {given[0]} alone.")
    return (batch[first], batch[second]) if given else None


def project(hidden: jax.Array, unembed: jax.Array, dtype: str) -> jax.Array:
    """Logits [..., V] in float32 of states [..., D]; the product's inputs are in `dtype`."""
    return jnp.dot(hidden, unembed.astype(dtype), preferred_element_type=jnp.float32)


PREPARED, UNEMBED = "prepared_layers", "prepared_unembed"
"""What `prepare` adds to parameters: the decoder's layers one by one, and the unembedding."""


def prepare(params: Params, unembed: jax.Array, dtype: str) -> Params:
    """Parameters, and beside them what a decoding step reads, cut and cast once.

    XLA's CPU backend cuts anew at every step what is cut within a loop: 6.7 ms a step of T5 small,
    whose step on one row takes 5. What is prepared already stays as it is.

    Args:
      params: of a student whose decoder is scanned over layers.
      unembed: [D, V].
      dtype: of matrix products.
    """

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if path[-1].key == "kernel" else leaf  # norms stay in float32

    if PREPARED in params:
        return params
    layers = jax.tree_util.tree_map_with_path(cast, params["decoder"]["layers"])
    return params | {PREPARED: unstack(layers), UNEMBED: unembed.astype(dtype)}


def unstack(stacked: Params) -> list[Params]:
    """Each layer's parameters out of a scanned stack's.

    Decoding is not scanned over layers: a scan would copy each layer's weights and cached keys at
    every token.
    """
    depth = jax.tree.leaves(stacked)[0].shape[0]
    return [jax.tree.map(operator.itemgetter(index), stacked) for index in range(depth)]


_ROWS_OF_A_GROUP = 4


def in_groups(encode: Callable[[jax.Array], Any], tokens: jax.Array) -> Any:
    """`encode(tokens [B, T])`, on a CPU a few rows after the other.

    There a layer's activations of a few rows stay in the cache: 64 rows of 256 tokens take T5 small
    0.6x the time.
    """
    alone = jax.default_backend() != "cpu" or activations.is_sharded()
    if alone or tokens.shape[0] <= _ROWS_OF_A_GROUP:
        return encode(tokens)
    return jax.lax.map(
        lambda row: jax.tree.map(lambda x: x[0], encode(row[None])),
        tokens,
        batch_size=_ROWS_OF_A_GROUP,
    )
