"""Where activations lie on a mesh: whoever compiles says it, layers read it.

Left alone, the partitioner follows the parameters: with parameters split along their rows it splits
activations by width, repeats the batch on every device and moves both at every product.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Mapping[str, str | tuple[str, ...] | None]
"""Logical name of a dimension -> mesh axes, or None for "not split"."""

_in_force: contextvars.ContextVar[tuple[Mesh, Rules] | None] = contextvars.ContextVar(
    "activation_sharding", default=None
)


@contextlib.contextmanager
def sharded(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Within, what is traced has its activations laid out by `rules` on `mesh`.

    Enter it inside the function that is compiled: `jax.jit` remembers a function's trace, and not
    whether it was made in here.
    """
    token = _in_force.set((mesh, rules))
    try:
        yield
    finally:
        _in_force.reset(token)


def is_sharded() -> bool:
    """Whether what is traced now has its activations laid out on a mesh."""
    return _in_force.get() is not None


def constrain(x: jax.Array, *names: str) -> jax.Array:
    """Names the dimensions of an activation.

    Args:
      x: the activation.
      *names: one a dimension; those that the rules do not list are left to the partitioner.

    Returns:
      `x`; outside `sharded` as it came.
    """
    if (found := _in_force.get()) is None:
        return x
    mesh, rules = found
    spec = [rules.get(name, PartitionSpec.UNCONSTRAINED) for name in names]
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))
