"""Vocabularies padded to different sizes: the same model with more or fewer unused rows.

Embeddings are padded to a multiple of 128, for hardware: T5's 32,100 ids have 32,128 rows. Some
tools cut the padding off, or add it.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from specialize_jax.convert import families
from specialize_jax.convert.lazy import Index, Lazy, bounded

MULTIPLE = 128


def same(size: int, other: int) -> bool:
    """Whether two sizes are one vocabulary with and without padding: 32,100 and 32,128 are."""
    return -(-size // MULTIPLE) == -(-other // MULTIPLE)


def as_stored(config: Any, embedding: tuple[int, ...] | None) -> Any:
    """A config with as many rows as the stored embedding, where that is another padding.

    Args:
      config: as stated.
      embedding: shape of the stored one; None where there is none.
    """
    if embedding is None or len(embedding) != 2 or not same(embedding[0], config.vocab_size):
        return config
    return dataclasses.replace(config, vocab_size=embedding[0])


def fit(config: Any, params: Lazy, size: int, path: Any) -> tuple[Any, Lazy]:
    """A model with its vocabulary padded to another size; a change is warned of.

    Args:
      config: of the model.
      params: its parameters.
      size: rows of the embedding that are wanted.
      path: where it came from, for messages.

    Returns:
      Config and parameters.

    Raises:
      ValueError: the sizes differ by more than padding.
    """
    stored = config.vocab_size
    if size == stored:
        return config, params
    if not same(size, stored):
        raise ValueError(
            f"{path} has a vocabulary of {stored} rows, {size} are wanted: that is more than "
            f"padding to a multiple of {MULTIPLE}."
        )
    what = "cut" if size < stored else "padded with the mean of the others"
    warnings.warn(
        f"{path}: the vocabulary of {stored} rows is {what}, to {size} rows.", stacklevel=2
    )
    family = families.of_config(config)
    axes = {
        row.ours: 1 if row.transposed else 0
        for row in family.table(config)
        if row.theirs in (family.embedding, family.head)
    }
    return dataclasses.replace(config, vocab_size=size), resized(params, axes, size)


def resized(lazy: Lazy, axes: Mapping[str, int], size: int) -> Lazy:
    """Parameters with a vocabulary of another size.

    Rows beyond are cut. New ones are the mean of all others: so the logit of an unused id is the
    mean of all logits, and is never the largest.

    Args:
      lazy: the parameters.
      axes: which axis of which parameter is the vocabulary.
      size: the new number of rows.
    """
    shapes = dict(lazy.shapes)
    for path, axis in axes.items():
        shape = list(shapes[path].shape)
        shape[axis] = size
        shapes[path] = jax.ShapeDtypeStruct(tuple(shape), shapes[path].dtype)

    def read(path: str, index: Index) -> np.ndarray:
        if path not in axes:
            return lazy.read(path, index)
        index = bounded(index, shapes[path].shape)
        return _read(lazy, path, axes[path], index)

    return dataclasses.replace(lazy, shapes=shapes, read=read)


def _read(lazy: Lazy, path: str, axis: int, index: Index) -> np.ndarray:
    stored = lazy.shapes[path].shape[axis]
    start, stop = index[axis].start, index[axis].stop
    if stop <= stored:
        return lazy.read(path, index)
    before, after = index[:axis], index[axis + 1 :]
    every = lazy.read(path, (*before, slice(0, stored), *after))
    mean = every.mean(axis=axis, keepdims=True, dtype=np.float64).astype(every.dtype)
    new = np.repeat(mean, stop - max(start, stored), axis=axis)
    kept = every[(slice(None),) * axis + (slice(min(start, stored), stored),)]
    return np.concatenate([kept, new], axis=axis)
