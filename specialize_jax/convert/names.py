"""Kinds of model that Hugging Face folders hold: their config and their tensors' names.

A kind is one `Architecture`, in a module of its own; its table of names is read both ways.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from specialize_jax.models.interface import Model


@dataclass(frozen=True)
class Row:
    """One parameter of ours.

    Attributes:
      ours: path in our tree, joined by "/".
      theirs: name of their tensors; `{}` stands for the layer where ours is stacked.
      transposed: their tensor is the transpose of ours (of a layer of ours).
      layers: how many of their tensors ours stacks; None where it is one tensor.
      part: which of `parts` equal pieces of their last axis is ours, from 0.
      parts: how many of our parameters their tensor joins on its last axis, in the order of `part`
        (GPT-2's query, key and value); not together with `transposed`.
    """

    ours: str
    theirs: str
    transposed: bool = False
    layers: int | None = None
    part: int = 0
    parts: int = 1

    def tensors(self) -> list[str]:
        """Names of their tensors, in the order of the stack."""
        if self.layers is None:
            return [self.theirs]
        return [self.theirs.format(layer) for layer in range(self.layers)]


@dataclass(frozen=True)
class Architecture:
    """What the converter has to know of a kind of model.

    Attributes:
      family: our word for it, as in a checkpoint's config.json ("t5").
      model_types: `model_type` in Hugging Face's config.json, those that are read.
      config_type: the type of our config; it has `vocab_size`.
      read_config: `read_config(raw, tied=...) -> config` of a config.json; `tied` says whether the
        head is the embedding, which the tensors know better. Raises ValueError for what we do not
        build.
      write_config: `write_config(config) -> dict`, the config.json.
      build: makes the model of a config.
      table: every parameter of a model of this config, once.
      embedding: name of the tensor [V, D] of token embeddings.
      head: name of the tensor [V, D] of the unembedding; where tied, a copy of the embedding.
      copies: other names under which files repeat the embedding.
      ignored: a pattern of whole names of tensors that stand in files and are read by nobody.
      prefix: what some files put before every name but the head's.
    """

    family: str
    model_types: tuple[str, ...]
    config_type: type
    read_config: Callable[..., Any]
    write_config: Callable[[Any], dict[str, Any]]
    build: Callable[[Any], Model]
    table: Callable[[Any], list[Row]]
    embedding: str
    head: str
    copies: tuple[str, ...] = ()
    ignored: re.Pattern[str] = field(default=re.compile(r"(?!)"))
    prefix: str = ""


def read_fields(raw: Mapping[str, Any], fields: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Our config's fields from a config.json.

    Args:
      raw: content of the file.
      fields: ours: (theirs, what theirs means where the file leaves it out).
    """
    return {ours: raw.get(theirs, default) for ours, (theirs, default) in fields.items()}
