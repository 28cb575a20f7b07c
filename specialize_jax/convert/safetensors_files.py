"""safetensors in a folder, as one file or as shards with an index."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import safetensors
import safetensors.numpy

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Reader:
    """Reads tensors, or parts of them, by name from whatever file holds them."""

    def __init__(self, folder: pathlib.Path):
        """Finds the files of `folder`.

        Raises:
          FileNotFoundError: neither `SINGLE` nor `INDEX` is there.
        """
        self._folder = folder
        if (folder / INDEX).is_file():
            index = json.loads((folder / INDEX).read_text())
            self._files = sorted(set(index["weight_map"].values()))
        elif (folder / SINGLE).is_file():
            self._files = [SINGLE]
        else:
            raise FileNotFoundError(f"Expected {SINGLE} or {INDEX} in {folder}, found neither.")
        self._stack = contextlib.ExitStack()
        self._handles: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for file in self._files:
            opened = safetensors.safe_open(self._folder / file, framework="numpy")
            handle = self._stack.enter_context(opened)
            self._handles |= dict.fromkeys(handle.keys(), handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def names(self) -> list[str]:
        """All tensors."""
        return list(self._handles)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; its values are not read."""
        return tuple(self._handles[name].get_slice(name).get_shape())

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The part of a tensor at `index`, one slice a dimension; all of it without."""
        if not index:
            return self._handles[name].get_tensor(name)
        return self._handles[name].get_slice(name)[index]

    def equal(self, name: str, other: str) -> bool:
        """Whether both tensors are there and hold the same numbers."""
        both = name in self and other in self
        return both and np.array_equal(self.read(name), self.read(other))


def write_shards(
    folder: pathlib.Path,
    sizes: Mapping[str, int],
    tensor: Callable[[str], np.ndarray],
    *,
    max_shard_bytes: int,
) -> None:
    """Writes tensors in order, as one file where they fit and as shards with an index otherwise.

    What an earlier call left under these names is replaced.

    Args:
      folder: an existing folder.
      sizes: bytes of each tensor by name, in the order of writing.
      tensor: makes a contiguous tensor; called once a name, one shard's in memory at a time.
      max_shard_bytes: most bytes of a file; a larger tensor has a file of its own.
    """
    shards = _plan(sizes, max_shard_bytes)
    for stale in (SINGLE, INDEX):
        (folder / stale).unlink(missing_ok=True)
    if len(shards) == 1:
        _write(folder / SINGLE, shards[0], tensor)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, shard, tensor)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _plan(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write(path: pathlib.Path, shard: list[str], tensor: Callable[[str], np.ndarray]) -> None:
    # transformers refuses files that do not say which framework's layout they follow.
    safetensors.numpy.save_file(
        {name: tensor(name) for name in shard}, path, metadata={"format": "pt"}
    )
