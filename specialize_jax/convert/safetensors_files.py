"""safetensors in a folder, as one file or as shards with an index; read and written in pieces.

The format (https://github.com/huggingface/safetensors#format): eight bytes with the header's
length, a JSON header that gives every tensor's dtype, shape and range of bytes, then the bytes. It
is read and written here, not by the safetensors library, so that folders may be remote and memory
holds one tensor at a time: the library maps files, or takes a whole shard as a dict.
"""

import contextlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

import jax.numpy as jnp
import numpy as np
from etils import epath

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes; the library's own limit
_WRITE = 1 << 26  # bytes handed to a file at a time
_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(kind)
    for name, kind in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": jnp.bfloat16,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

Index: TypeAlias = tuple[slice, ...]


class Spec(NamedTuple):
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


class _Entry(NamedTuple):
    file: Any
    start: int  # of the tensor's first byte in the file
    shape: tuple[int, ...]
    dtype: str


class Reader:
    """Reads tensors, or parts of them, by name from whatever file holds them."""

    def __init__(self, folder: epath.PathLike):
        """Finds the files of `folder`.

        Raises:
          FileNotFoundError: neither `SINGLE` nor `INDEX` is there, or shards that it names are not.
          ValueError: the index is damaged.
        """
        self._folder = epath.Path(folder)
        if (self._folder / INDEX).exists():
            self._files = _files_of_index(self._folder / INDEX)
        elif (self._folder / SINGLE).exists():
            self._files = [SINGLE]
        else:
            pickled = sorted(path.name for path in self._folder.glob("pytorch_model*"))
            hint = f" {pickled[0]} is torch's own form; save it as safetensors." if pickled else ""
            raise FileNotFoundError(
                f"Expected {SINGLE} or {INDEX} in {folder}, found neither.{hint}"
            )
        missing = [file for file in self._files if not (self._folder / file).exists()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {INDEX} names {len(self._files)} shards, of which are missing: "
                f"{', '.join(missing)}."
            )
        self._stack = contextlib.ExitStack()
        self._entries: dict[str, _Entry] = {}

    def __enter__(self) -> Self:
        """Opens the files and reads their headers.

        Raises:
          ValueError: a file is cut short or damaged.
        """
        with contextlib.ExitStack() as stack:
            for name in self._files:
                path = self._folder / name
                file = stack.enter_context(path.open("rb"))
                self._entries |= _read_header(file, path)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """All tensors."""
        return list(self._entries)

    def spec(self, name: str) -> Spec:
        """A tensor's shape and dtype; its values are not read."""
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            raise ValueError(
                f"{name}: expected a dtype among {', '.join(_DTYPES)}, got {entry.dtype}."
            )
        return Spec(entry.shape, _DTYPES[entry.dtype])

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The part of a tensor at `index`, one slice a dimension; all of it without.

        Of the file, the rows that the first slice names are read.
        """
        shape, dtype = self.spec(name)
        entry = self._entries[name]
        if not shape:
            return np.frombuffer(_read_at(entry.file, entry.start, dtype.itemsize), dtype)[0:1][0]
        start, stop, _ = (index[0] if index else slice(None)).indices(shape[0])
        row = math.prod(shape[1:]) * dtype.itemsize
        data = _read_at(entry.file, entry.start + start * row, (stop - start) * row)
        rows = np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])
        return rows[(slice(None), *index[1:])]

    def equal(self, name: str, other: str) -> bool:
        """Whether both tensors are there and hold the same numbers."""
        both = name in self and other in self
        return both and np.array_equal(self.read(name), self.read(other))


def _files_of_index(path: epath.Path) -> list[str]:
    try:
        files = set(json.loads(path.read_text())["weight_map"].values())
        if strange := [file for file in files if not isinstance(file, str)]:
            raise ValueError(f"a shard is called {strange[0]!r}")
        return sorted(files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected JSON with a weight_map: {error!r}") from error


def _read_at(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"Expected {size} bytes at {start}, got {len(data)}: a file was cut.")
    return data


def _read_header(file: Any, path: epath.Path) -> dict[str, _Entry]:
    """Reads and checks a file's header, its length against the file's among it."""
    size = path.stat().length
    length = struct.unpack("<Q", _read_at(file, 0, 8))[0] if size >= 8 else size
    if 8 + length > size or length > _MAX_HEADER:
        raise ValueError(f"{path} is cut short or no safetensors file: it has {size} bytes.")
    try:
        header = json.loads(_read_at(file, 8, length))
        header.pop("__metadata__", None)
        entries = {
            name: _Entry(file, 8 + length + at["data_offsets"][0], tuple(at["shape"]), at["dtype"])
            for name, at in header.items()
        }
        end = 8 + length + _check_ranges(header)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the safetensors header is damaged: {error}") from error
    if end > size:
        raise ValueError(
            f"{path} is cut short: its header promises {end} bytes, the file has {size}."
        )
    return entries


def _check_ranges(header: Mapping[str, Any]) -> int:
    """Checks that tensors lie one behind the other, as the format demands; bytes in all."""
    end = 0
    for name, at in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = at["data_offsets"]
        if start != end or not (isinstance(start, int) and isinstance(stop, int)):
            raise ValueError(
                f"{name} lies at {start} to {stop}, the tensor before it ends at {end}"
            )
        if at["dtype"] in _DTYPES:
            need = math.prod(at["shape"]) * _DTYPES[at["dtype"]].itemsize
            if stop - start != need:
                raise ValueError(f"{name} has {stop - start} bytes, its shape needs {need}")
        end = stop
    return end


def write_shards(
    folder: epath.PathLike,
    specs: Mapping[str, Spec],
    tensor: Callable[[str], np.ndarray],
    *,
    max_shard_bytes: int,
) -> None:
    """Writes tensors, as one file where they fit and as shards with an index otherwise.

    What an earlier call left under these names is replaced. The index comes last.

    Args:
      folder: an existing folder.
      specs: of each tensor by name, in the order of the shards.
      tensor: makes a tensor; called once a name, and one tensor is in memory at a time.
      max_shard_bytes: most bytes of a file's tensors; a larger tensor has a file of its own.
    """
    folder = epath.Path(folder)
    shards = _plan(specs, max_shard_bytes)
    for stale in (SINGLE, INDEX):
        (folder / stale).unlink(missing_ok=True)
    if len(shards) == 1:
        _write(folder / SINGLE, shards[0], specs, tensor)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, shard, specs, tensor)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(spec.nbytes for spec in specs.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _plan(specs: Mapping[str, Spec], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, spec in specs.items():
        if shards[-1] and filled + spec.nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += spec.nbytes
    return shards


def _write(
    path: epath.Path,
    shard: list[str],
    specs: Mapping[str, Spec],
    tensor: Callable[[str], np.ndarray],
) -> None:
    # Wide dtypes first, so that every tensor starts at a multiple of its item's size.
    order = sorted(shard, key=lambda name: -specs[name].dtype.itemsize)
    # transformers refuses files that do not say which framework's layout they follow.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        start, end = end, end + specs[name].nbytes
        header[name] = {
            "dtype": _NAMES[specs[name].dtype],
            "shape": list(specs[name].shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in order:
            # The buffer is written as it lies, so a transposed view would be written wrongly.
            flat = np.ascontiguousarray(tensor(name)).reshape(-1).view(np.uint8)
            for start in range(0, flat.size, _WRITE):
                file.write(flat[start : start + _WRITE].tobytes())
