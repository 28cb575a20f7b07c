"""Students behind one small interface: sizes by name, functions over plain pytrees.

model = models.build("flan_t5_small", dtype="bfloat16")
params = model.init(jax.random.key(0))
logits = model.logits(params, batch)
"""

import dataclasses
from typing import Any

from specialize_jax.models import t5
from specialize_jax.models.interface import Batch, Cache, Model, Params

__all__ = ["Batch", "Cache", "Model", "Params", "build", "t5"]


def build(size: str, **overrides: Any) -> Model:
    """Makes a model of a named size.

    Args:
      size: a key of `t5.SIZES`.
      **overrides: fields of its config to replace (`dtype="bfloat16"`, `remat="minimal"`).

    Returns:
      The model.

    Raises:
      ValueError: an unknown size or field; the message lists the known ones.
    """
    if size not in t5.SIZES:
        raise ValueError(f"Expected size to be one of {', '.join(t5.SIZES)}, got {size!r}.")
    config = t5.SIZES[size]
    fields = [field.name for field in dataclasses.fields(config)]
    if unknown := sorted(set(overrides) - set(fields)):
        raise ValueError(
            f"Unknown overrides of {size}: {', '.join(unknown)}. Known: {', '.join(fields)}."
        )
    return t5.build(dataclasses.replace(config, **overrides), name=size)
