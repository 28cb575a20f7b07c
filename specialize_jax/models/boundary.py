"""Where linen modules end and plain pytrees begin: what all students' functions share.

Letters: `B` rows, `D` model width, `V` vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

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


def layer(stacked: Params, index: int) -> Params:
    """One layer's parameters out of a scanned stack's.

    Decoding is not scanned over layers: with constant indices XLA takes these slices out of the
    decoding loop, while a scan would copy each layer's weights and cached keys at every token.
    """
    return jax.tree.map(lambda array: array[index], stacked)
