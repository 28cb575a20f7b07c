"""Students behind one small interface: sizes by name, functions over plain pytrees.

model = models.build("flan_t5_small", dtype="bfloat16")
params = model.init(jax.random.key(0))
logits = model.logits(params, batch)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from specialize_jax.models import choices, gpt2, t5
from specialize_jax.models.choices import NUMERICS
from specialize_jax.models.interface import Batch, Cache, Model, Params, pad_inputs

__all__ = [
    "FAMILIES",
    "NUMERICS",
    "SIZES",
    "Batch",
    "Cache",
    "Model",
    "Params",
    "build",
    "choices",
    "gpt2",
    "pad_inputs",
    "rebuild",
    "t5",
]

FAMILIES: dict[str, Any] = {"t5": t5, "gpt2": gpt2}
"""Modules with `build(config, name=...)` and `SIZES`."""
_CONFIGS: dict[str, Any] = {"t5": t5.T5Config, "gpt2": gpt2.GPT2Config}
SIZES: dict[str, Any] = {
    name: config for family in FAMILIES.values() for name, config in family.SIZES.items()
}
"""Every size of every family, by name."""
_FAMILY_OF = {name: key for key, family in FAMILIES.items() for name in family.SIZES}


def build(size: str, **overrides: Any) -> Model:
    """Makes a model of a named size.

    Args:
      size: a key of `SIZES`.
      **overrides: fields of its config to replace (`dtype="bfloat16"`, `remat="minimal"`).

    Returns:
      The model.

    Raises:
      ValueError: an unknown size or field; the message lists the known ones.
    """
    if size not in SIZES:
        raise ValueError(f"Expected size to be one of {', '.join(SIZES)}, got {size!r}.")
    fields = [field.name for field in dataclasses.fields(SIZES[size])]
    if unknown := sorted(set(overrides) - set(fields)):
        raise ValueError(
            f"Unknown overrides of {size}: {', '.join(unknown)}. Known: {', '.join(fields)}."
        )
    config = dataclasses.replace(SIZES[size], **overrides)
    return FAMILIES[_FAMILY_OF[size]].build(config, name=size)


def rebuild(family: str, name: str, fields: Mapping[str, Any]) -> Model:
    """Makes a model again from what a run wrote down of it.

    Args:
      family: `Model.family`.
      name: `Model.name`.
      fields: of `Model.config`, all those without a default among them.

    Returns:
      The model.

    Raises:
      ValueError: an unknown family; the message lists the known ones.
      TypeError: fields that the family's config does not have, or lacks.
    """
    if family not in FAMILIES:
        raise ValueError(f"Expected family to be one of {', '.join(FAMILIES)}, got {family!r}.")
    return FAMILIES[family].build(_CONFIGS[family](**fields), name=name)
