"""Parameters that are read when asked for, in pieces: what every source gives and target takes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import traverse_util

from specialize_jax.models.interface import Params

Index: TypeAlias = tuple[slice, ...]
DTYPES = ("float32", "bfloat16")
"""What parameters may be; never float16, whose range T5's activations leave."""


@dataclasses.dataclass(frozen=True)
class Lazy:
    """Parameters that are read when asked for.

    Attributes:
      shapes: shape and dtype by path ("encoder/layers/mlp/wo/kernel").
      read: `read(path, index) -> np.ndarray`, the part at `index`, one slice a dimension.
    """

    shapes: Mapping[str, jax.ShapeDtypeStruct]
    read: Callable[[str, Index], np.ndarray]

    def astype(self, dtype: Any) -> "Lazy":
        """The same parameters in another dtype, cast as they are read; None for their own.

        Raises:
          ValueError: the dtype is none of `DTYPES`.
        """
        if dtype is None:
            foreign = {s.dtype.name for s in self.shapes.values()} - set(DTYPES)
            if foreign:
                raise ValueError(
                    f"The parameters are stored as {', '.join(sorted(foreign))}, which is not "
                    f"used here; give a dtype, one of {', '.join(DTYPES)} (float32 is exact)."
                )
            return self
        wanted = check_dtype(dtype)
        shapes = {
            path: jax.ShapeDtypeStruct(leaf.shape, wanted) for path, leaf in self.shapes.items()
        }
        return Lazy(shapes, lambda path, index: self.read(path, index).astype(wanted, copy=False))

    def load(self, shardings: Any = None) -> Params:
        """Reads everything.

        Args:
          shardings: a tree like the parameters; None gives numpy arrays in host memory.

        Returns:
          A nested dict of numpy arrays, or of `jax.Array`s of which this process has read what its
          devices hold.
        """
        placed = traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
        flat = {path: self._load(path, placed.get(path)) for path in self.shapes}
        return traverse_util.unflatten_dict(flat, sep="/")

    def _load(self, path: str, sharding: jax.sharding.Sharding | None) -> Any:
        leaf = self.shapes[path]
        if sharding is not None:
            return jax.make_array_from_callback(
                leaf.shape,
                sharding,
                lambda index: self.read(path, bounded(index or (), leaf.shape)),
            )
        whole = np.empty(leaf.shape, leaf.dtype)
        for index in pieces(leaf.shape):
            whole[index] = self.read(path, index)
        return whole


def of_params(params: Params) -> Lazy:
    """Parameters that are in memory already, all of them addressable by this process."""
    flat = traverse_util.flatten_dict(params, sep="/")
    shapes = {k: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for k, leaf in flat.items()}
    return Lazy(shapes, lambda path, index: np.asarray(flat[path][index]))


def check_dtype(dtype: Any) -> np.dtype:
    """The dtype of that name.

    Raises:
      ValueError: it is none of `DTYPES`.
    """
    try:
        name = jax.numpy.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        reason = ": T5's activations leave its range" if name == "float16" else ""
        raise ValueError(f"Expected dtype to be one of {', '.join(DTYPES)}, got {name}{reason}.")
    return jax.numpy.dtype(dtype)


def pieces(shape: Sequence[int]) -> Iterator[Index]:
    """The indices by which an array is read or written: layer by layer where it is stacked.

    Stacked matrices have three dimensions; anything else is one piece.
    """
    if len(shape) <= 2:
        yield bounded((), shape)
        return
    for number in range(shape[0]):
        yield bounded((slice(number, number + 1),), shape)


def bounded(index: Index, shape: Sequence[int]) -> Index:
    """The index with a start and a stop in every dimension."""
    every = (*index, *[slice(None)] * (len(shape) - len(index)))
    return tuple(slice(*part.indices(size)[:2]) for part, size in zip(every, shape, strict=True))


def misfits(
    found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], noun: str
) -> list[str]:
    """What is unknown, missing or of the wrong shape, each in words.

    Args:
      found: shapes by name.
      wanted: shapes by name.
      noun: what the names are of ("tensor").
    """
    problems = [f"unknown {noun} {name}" for name in sorted(set(found) - set(wanted))]
    for name, shape in wanted.items():
        if name not in found:
            problems.append(f"missing {noun} {name}")
        elif tuple(found[name]) != tuple(shape):
            problems.append(f"{name}: expected shape {tuple(shape)}, got {tuple(found[name])}")
    return problems
