"""T5 folders of Hugging Face (config.json and safetensors) <-> our config and parameters.

Tensors are read and written one by one: host memory holds one stacked parameter at a time beside
the result, and with shardings a process reads only what its devices hold.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import traverse_util

from specialize_jax.convert import hf_config, names
from specialize_jax.convert.safetensors_files import Reader, write_shards
from specialize_jax.models import t5
from specialize_jax.models.interface import Params
from specialize_jax.models.t5 import T5Config

_Index: TypeAlias = tuple[slice, ...]
_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def load_hf(
    path: str | pathlib.Path, *, dtype: Any = None, shardings: Any = None
) -> tuple[T5Config, Params]:
    """Reads a T5, mT5 or Flan-T5 folder.

    Args:
      path: a local folder with config.json and model.safetensors, or its shards and their index.
      dtype: of the parameters; None keeps what the file holds. Master parameters want "float32".
      shardings: a tree like the parameters; None gives numpy arrays in host memory.

    Returns:
      The config, ready for `t5.build`, and the parameters as a nested dict: numpy arrays, or
      `jax.Array`s laid out by `shardings`.

    Raises:
      ValueError: the config is none of a T5 that we build, or tensors are unknown, missing, or of
        the wrong shape; one message names all of them.
    """
    folder = pathlib.Path(path)
    raw = json.loads((folder / "config.json").read_text())
    with Reader(folder) as reader:
        config = hf_config.from_hf(raw, tied=_is_tied(raw, reader))
        rows = names.table(config)
        embedding = _embedding_name(reader)
        sources = {
            row.ours: [embedding] if row.theirs == names.EMBEDDING else row.tensors()
            for row in rows
        }
        shapes = _shapes(config)
        _check_tensors(reader, rows, sources, shapes, folder)
        placed = traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
        params = {}
        for row in rows:
            parameter = _Parameter(reader, row, sources[row.ours], shapes[row.ours], dtype)
            params[row.ours] = parameter.load(placed.get(row.ours))
    return config, traverse_util.unflatten_dict(params, sep="/")


def save_hf(
    config: T5Config,
    params: Params,
    path: str | pathlib.Path,
    *,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a folder that `transformers` and `load_hf` read; dtypes stay as they are.

    Args:
      config: the model's config.
      params: its parameters, all of them addressable by this process.
      path: the folder; made where absent.
      max_shard_bytes: tensors beyond this many bytes go into further files with an index.

    Raises:
      ValueError: parameters are unknown, missing, or of the wrong shape; one message names all.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    _check_params(flat, _shapes(config))
    folder = pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (row, layer)
        for row in names.table(config)
        for layer, name in enumerate(row.tensors())
    }
    sizes = {
        name: flat[row.ours].nbytes // len(row.tensors()) for name, (row, _) in tensors.items()
    }

    def tensor(name: str) -> np.ndarray:
        row, layer = tensors[name]
        stacked = flat[row.ours]
        ours = np.asarray(stacked if row.layers is None else stacked[layer])
        # safetensors writes the buffer as it lies, so a transposed view would be written wrongly.
        return np.ascontiguousarray(ours.T if row.transposed else ours)

    write_shards(folder, sizes, tensor, max_shard_bytes=max_shard_bytes)
    (folder / "config.json").write_text(json.dumps(hf_config.to_hf(config), indent=2) + "\n")


def _shapes(config: T5Config) -> _Shapes:
    abstract = jax.eval_shape(t5.build(config).init, jax.random.key(0))
    return {key: leaf.shape for key, leaf in traverse_util.flatten_dict(abstract, sep="/").items()}


def _embedding_name(reader: Reader) -> str:
    """The embedding's name; some writers keep one of its copies only."""
    present = [name for name in (names.EMBEDDING, *names.EMBEDDING_COPIES) if name in reader]
    return present[0] if present else names.EMBEDDING


def _is_tied(raw: Mapping[str, Any], reader: Reader) -> bool:
    """Whether the head is the embedding.

    transformers 5 writes `tie_word_embeddings: true` for every T5, so where a file says so and yet
    has a head, the head's values decide (and transformers reads it like that, too).
    """
    says_tied = raw.get("tie_word_embeddings", True)
    if not says_tied or names.HEAD not in reader:
        return says_tied
    return reader.equal(names.HEAD, _embedding_name(reader))


def _check_tensors(
    reader: Reader,
    rows: list[names.Row],
    sources: Mapping[str, list[str]],
    shapes: _Shapes,
    folder: pathlib.Path,
) -> None:
    problems = []
    copies = (*names.EMBEDDING_COPIES, names.HEAD)
    expected = {name for source in sources.values() for name in source}
    for name in sorted(set(reader.names()) - expected - set(names.IGNORED)):
        if name not in copies:
            problems.append(f"unknown tensor {name}")
        elif not reader.equal(name, _embedding_name(reader)):
            problems.append(f"{name} differs from {_embedding_name(reader)}")
    for row in rows:
        ours = shapes[row.ours][row.layers is not None :]
        shape = ours[::-1] if row.transposed else ours
        for name in sources[row.ours]:
            if name not in reader:
                problems.append(f"missing tensor {name}")
            elif reader.shape(name) != shape:
                problems.append(f"{name}: expected shape {shape}, got {reader.shape(name)}")
    if problems:
        raise ValueError(f"{folder} does not fit its config.json: {'; '.join(problems)}.")


def _check_params(flat: Mapping[str, Any], shapes: _Shapes) -> None:
    problems = [f"unknown parameter {key}" for key in sorted(set(flat) - set(shapes))]
    for key, shape in shapes.items():
        if key not in flat:
            problems.append(f"missing parameter {key}")
        elif flat[key].shape != shape:
            problems.append(f"{key}: expected shape {shape}, got {flat[key].shape}")
    if problems:
        raise ValueError(f"Parameters do not fit the config: {'; '.join(problems)}.")


class _Parameter:
    """One of our parameters, read from its tensors part by part."""

    def __init__(
        self,
        reader: Reader,
        row: names.Row,
        tensors: list[str],
        shape: tuple[int, ...],
        dtype: Any,
    ):
        self._reader = reader
        self._row = row
        self._tensors = tensors
        self._shape = shape
        self._dtype = np.dtype(dtype) if dtype is not None else None

    def load(self, sharding: jax.sharding.Sharding | None) -> Any:
        if sharding is None:
            return self._read((slice(None),) * len(self._shape))

        def read(index: _Index | None) -> np.ndarray:
            return self._read(index or ())

        return jax.make_array_from_callback(self._shape, sharding, read)

    def _read(self, index: _Index) -> np.ndarray:
        if self._row.layers is None:
            part = self._tensor(self._tensors[0], index)
            return np.ascontiguousarray(part, dtype=self._dtype)
        first, *rest = (self._tensor(name, index[1:]) for name in self._tensors[index[0]])
        return self._stack([first, *rest])

    def _stack(self, parts: list[np.ndarray]) -> np.ndarray:
        stacked = np.empty((len(parts), *parts[0].shape), self._dtype or parts[0].dtype)
        for layer, part in enumerate(parts):
            stacked[layer] = part
        return stacked

    def _tensor(self, name: str, index: _Index) -> np.ndarray:
        if self._row.transposed:
            return self._reader.read(name, index[::-1]).T
        return self._reader.read(name, index)
