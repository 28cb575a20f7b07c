"""Checkpoints of parameters alone, written and read in pieces: for models larger than memory.

What is written is a checkpoint as `checkpoints` writes them, without optimizer and progress, so
that `checkpoints.restore_params` reads it. Orbax by itself wants every array in memory at once;
here it asks a handler of ours for each leaf, which has it read piece by piece and hands the pieces
to tensorstore, one chunk each. (The idea of a leaf that is read when Orbax saves it is MaxText's:
https://github.com/AI-Hypercomputer/maxtext/pull/2636.)
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from specialize_jax.training import checkpoints, manifest

Index: TypeAlias = tuple[slice, ...]
Shapes: TypeAlias = Mapping[str, jax.ShapeDtypeStruct]
Read: TypeAlias = Callable[[str, Index], np.ndarray]


def write_params(
    folder: epath.PathLike,
    step: int,
    shapes: Shapes,
    read: Read,
    pieces: Callable[[Sequence[int]], Iterable[Index]],
    *,
    config: Mapping[str, Any],
) -> None:
    """Writes parameters as the only checkpoint of a folder.

    Args:
      folder: of checkpoints, without any.
      step: of the checkpoint.
      shapes: shape and dtype of each parameter by path ("encoder/layers/mlp/wo/kernel").
      read: `read(path, index)`, the part of a parameter at `index`; one is in memory at a time.
      pieces: the indices that together are an array of a shape; the first is the largest, and the
        others are cut on the grid that it starts.
      config: stored beside the checkpoint, last: without it, the folder is unfinished.

    Raises:
      CheckpointError: the folder cannot be written, or holds checkpoints.
    """
    folder = checkpoints.prepare(folder)
    if steps := checkpoints.all_steps(folder):
        raise checkpoints.CheckpointError(f"{folder} holds checkpoints already: {steps}.")
    leaves = {path: _Leaf(path, leaf, read, pieces) for path, leaf in shapes.items()}
    registry = ocp.type_handlers.create_type_handler_registry(
        (_Leaf, _LeafHandler()),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # not used; Orbax warns where it is missing
    )
    with ocp.CheckpointManager(
        folder,
        item_names=("params",),
        item_handlers={"params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry)},
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
    ) as manager:
        manager.save(step, args=ocp.args.Composite(params=ocp.args.PyTreeSave(_nested(leaves))))
    if manifest.is_for(folder):
        manifest.write(folder / str(step))
    checkpoints.write_config(folder, config)


def open_params(folder: epath.PathLike, step: int) -> tuple[dict[str, jax.ShapeDtypeStruct], Read]:
    """The parameters of a checkpoint, to be read in pieces.

    Args:
      folder: of checkpoints.
      step: one of `checkpoints.all_steps(folder)`.

    Returns:
      Shapes and dtypes by path, and `read(path, index)`. A piece of an array that was written in
      one chunk, as training does, costs the memory of the whole array, which is kept for the next.

    Raises:
      CheckpointError: no such step, or its parameters cannot be read.
    """
    path = checkpoints.params_path(folder, step)
    try:
        manifest.check(path.parent, "params")
        tree = ocp.StandardCheckpointHandler().metadata(path).tree
        stored = {
            jax.tree_util.keystr(keys, simple=True, separator="/"): leaf
            for keys, leaf in jax.tree.leaves_with_path(tree)
        }
        shapes = {
            name: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)
            for name, leaf in stored.items()
        }
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise checkpoints.unreadable(path.parent, error) from error
    # The last chunk is kept: layers that lie in one are asked for one after the other.
    largest = max((_chunk_bytes(leaf) for leaf in stored.values()), default=0)
    context = ts.Context({"cache_pool": {"total_bytes_limit": largest}})

    def read(name: str, index: Index) -> np.ndarray:
        try:
            spec = _spec(str(path), name.replace("/", "."))
            return ts.open(spec, open=True, context=context).result()[index].read().result()
        except Exception as error:
            raise checkpoints.unreadable(path.parent, error) from error

    return shapes, read


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """What Orbax finds where an array would be."""

    path: str
    like: jax.ShapeDtypeStruct
    read: Read
    pieces: Callable[[Sequence[int]], Iterable[Index]]


class _LeafHandler(ocp.type_handlers.TypeHandler):
    """Writes a `_Leaf` as the array that it stands for; it is read as any other."""

    def typestr(self) -> str:
        return "jax.Array"

    async def metadata(self, infos: Any) -> Any:
        raise NotImplementedError

    async def deserialize(self, infos: Any, args: Any = None) -> Any:
        raise NotImplementedError

    async def serialize(self, values: Sequence[_Leaf], infos: Any, args: Any = None) -> list[Any]:
        for leaf, info in zip(values, infos, strict=True):
            # Orbax joins what each process wrote under such a name.
            _write(leaf, f"{info.parent_dir}/ocdbt.process_0", info.name)
        return []


def _write(leaf: _Leaf, base: str, name: str) -> None:
    indices = list(leaf.pieces(leaf.like.shape))
    chunks = [max(part.stop - part.start, 1) for part in indices[0]]
    array = ts.open(
        _spec(base, name)
        | {
            "metadata": {
                "shape": list(leaf.like.shape),
                "chunks": chunks,
                "compressor": {"id": "zstd", "level": 1},
            }
        },
        dtype=ts.dtype(leaf.like.dtype.name),
        create=True,
    ).result()
    for index in indices:
        array[index].write(leaf.read(leaf.path, index)).result()


def _spec(base: str, name: str) -> dict[str, Any]:
    """How tensorstore finds an array in an Orbax folder."""
    url = base if "://" in base else f"file://{base}"
    return {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": url, "path": name}}


def _chunk_bytes(leaf: Any) -> int:
    storage = getattr(leaf, "storage", None)
    chunk = getattr(storage, "chunk_shape", None) or leaf.shape
    return math.prod(chunk) * np.dtype(leaf.dtype).itemsize


def _nested(leaves: Mapping[str, _Leaf]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
