"""The architectures that can be converted; a new one is added to `ALL`."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from specialize_jax.convert.gpt2_hf import GPT2
from specialize_jax.convert.names import Architecture
from specialize_jax.convert.t5_hf import T5

ALL = (T5, GPT2)


def of_hf(raw: Mapping[str, Any]) -> Architecture:
    """The architecture of a Hugging Face config.json.

    Raises:
      ValueError: it is none of ours.
    """
    kind = raw.get("model_type")
    for family in ALL:
        if kind in family.model_types:
            return family
    known = ", ".join(name for family in ALL for name in family.model_types)
    raise ValueError(f"Expected model_type in config.json to be one of {known}, got {kind!r}.")


def of_config(config: Any) -> Architecture:
    """The architecture of one of our configs.

    Raises:
      TypeError: it is none of ours.
    """
    for family in ALL:
        if isinstance(config, family.config_type):
            return family
    known = ", ".join(family.config_type.__name__ for family in ALL)
    raise TypeError(f"Expected one of {known}, got {type(config).__name__}.")


def of_name(name: str) -> Architecture:
    """The architecture that a checkpoint's config.json calls so.

    Raises:
      ValueError: it is none of ours.
    """
    for family in ALL:
        if name == family.family:
            return family
    known = ", ".join(family.family for family in ALL)
    raise ValueError(f"Expected family to be one of {known}, got {name!r}.")


def shapes(family: Architecture, config: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a model by path; nothing is computed."""
    abstract = jax.eval_shape(family.build(config).init, jax.random.key(0))
    flat = traverse_util.flatten_dict(abstract, sep="/")
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}
