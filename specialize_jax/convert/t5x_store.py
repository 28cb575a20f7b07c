"""How a t5x checkpoint lies on disk, in either layout: names -> arrays that are read in pieces."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from etils import epath
from flax import serialization

from specialize_jax.convert.lazy import Index

_LEGACY = "checkpoint"
_ORBAX = "state"
_PARAMS = "target"


class Array(NamedTuple):
    """One stored array; `read(index)` reads a part of it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]


def is_checkpoint(folder: epath.Path) -> bool:
    """Whether a folder is a checkpoint of t5x, by the file that each layout has."""
    return (folder / _LEGACY).exists() or (folder / _ORBAX / "_METADATA").exists()


def arrays(folder: epath.Path) -> dict[str, Array]:
    """The parameters of a checkpoint by their path ("encoder/layers_0/..."), unread.

    Raises:
      ValueError: the tree or an array cannot be read.
    """
    inline: dict[str, Any] = {}
    specs: dict[str, Any] = {}
    try:
        if (folder / _LEGACY).exists():
            tree = serialization.msgpack_restore((folder / _LEGACY).read_bytes())
            for name, leaf in _leaves(tree["optimizer"][_PARAMS]):
                if isinstance(leaf, np.ndarray):
                    inline[name] = leaf
                else:
                    specs[name] = _spec(folder, f"{_PARAMS}/{name}".replace("/", "."))
        else:
            metadata = json.loads((folder / _ORBAX / "_METADATA").read_text())
            for name in _orbax_names(metadata):
                stored = f"{_PARAMS}/{name}".replace("/", ".")
                specs[name] = _spec(
                    folder / _ORBAX,
                    stored,
                    ocdbt=metadata.get("use_ocdbt", True),
                    zarr3=metadata.get("use_zarr3", False),
                )
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder}: the tree of parameters cannot be read: {error!r}") from error
    return {
        name: Array(array.shape, array.dtype, array.__getitem__) for name, array in inline.items()
    } | _opened(specs, folder)


def _leaves(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Paths and leaves; what stands for an array in a file of its own is a dict or a string."""
    found = []
    for key, value in tree.items():
        if isinstance(value, dict) and "kvstore" not in value:
            found += _leaves(value, f"{above}{key}/")
        else:
            found.append((above + key, value))
    return found


def _orbax_names(metadata: Mapping[str, Any]) -> list[str]:
    paths = [
        [part["key"] for part in entry["key_metadata"]]
        for entry in metadata["tree_metadata"].values()
    ]
    return ["/".join(path[1:]) for path in paths if path[0] == _PARAMS]


def _spec(
    folder: epath.Path, name: str, *, ocdbt: bool = False, zarr3: bool = False
) -> dict[str, Any]:
    url = str(folder) if "://" in str(folder) else f"file://{folder.expanduser().absolute()}"
    store: Any = {"driver": "ocdbt", "base": url, "path": name} if ocdbt else f"{url}/{name}/"
    return {"driver": "zarr3" if zarr3 else "zarr", "kvstore": store}


def _opened(specs: Mapping[str, Any], folder: epath.Path) -> dict[str, Array]:
    opening = {name: ts.open(spec, open=True, read=True) for name, spec in specs.items()}
    found, problems = {}, []
    for name, future in opening.items():
        try:
            array = future.result()
        except Exception as error:  # tensorstore's are of many types
            problems.append(f"{name}: {(str(error).splitlines() or [''])[0][:200]}")
            continue
        found[name] = Array(array.shape, array.dtype.numpy_dtype, _reader(array))
    if problems:
        raise ValueError(f"{folder}: arrays cannot be read: {'; '.join(problems)}.")
    return found


def _reader(array: ts.TensorStore) -> Callable[[Index], np.ndarray]:
    return lambda index: array[index].read().result() if index else array.read().result()
