"""Writing a Hugging Face folder, one tensor at a time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from specialize_jax.convert import carried, families
from specialize_jax.convert.lazy import Index, Lazy, bounded, misfits
from specialize_jax.convert.names import Architecture, Row
from specialize_jax.convert.remote import explained
from specialize_jax.convert.safetensors_files import Spec, write_shards


def write_hf(
    config: Any,
    params: Lazy,
    path: epath.PathLike,
    *,
    max_shard_bytes: int = 5_000_000_000,
    source: epath.PathLike | None = None,
    prefix: str | None = None,
) -> None:
    """Like `hf.save_hf`, from parameters that are read one tensor at a time.

    Args:
      config: the model's config.
      params: its parameters.
      path: the folder; made where absent.
      max_shard_bytes: see `hf.save_hf`.
      source: see `hf.save_hf`.
      prefix: what the tensors' names begin with; None for what `transformers` writes.

    Raises:
      FileNotFoundError: see `hf.save_hf`.
      ValueError: see `hf.save_hf`.
    """
    family = families.of_config(config)
    if source is not None and not epath.Path(source).is_dir():
        raise FileNotFoundError(f"Expected the model's other files in a folder, found no {source}.")
    _check_params(params, families.shapes(family, config))
    joined: dict[str, list[tuple[Row, int]]] = {}
    prefix = family.prefix if prefix is None else prefix
    for row in sorted(family.table(config), key=lambda row: row.part):
        for layer, name in enumerate(row.tensors()):
            full = name if name == family.head else prefix + name
            joined.setdefault(full, []).append((row, layer))
    with explained(path):
        folder = epath.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_shards(
            folder,
            {name: _spec(params, parts) for name, parts in joined.items()},
            lambda name: _joined(params, joined[name]),
            max_shard_bytes=max_shard_bytes,
        )
        base: Mapping[str, Any] = {}
        if source is not None:
            carried.copy(source, folder)
            if (epath.Path(source) / carried.CONFIG).exists():
                base = carried.read_config(source)
        dtype = params.shapes[family.table(config)[0].ours].dtype.name
        carried.write_config(folder, _merged(base, family, config, dtype))


def _merged(
    base: Mapping[str, Any], family: Architecture, config: Any, dtype: str
) -> dict[str, Any]:
    """config.json: what the model came with, and ours over it.

    Token ids stay: ours knows none but the one that pads, and a tokenizer came along.
    """
    ours = family.write_config(config)
    if base.get("model_type") not in family.model_types:
        return ours
    ids = [name for name in ours if name.endswith("_token_id")]
    for name in ("model_type", "architectures", *ids):
        ours[name] = base.get(name, ours[name])
    tied = not _has_head(family, config)
    if dataclasses.asdict(family.read_config(base, tied=tied)) == _plain(config):
        ours = {}  # it says the same already
    return {**base, **ours, **{key: dtype for key in ("dtype", "torch_dtype") if key in base}}


def _plain(config: Any) -> dict[str, Any]:
    """A config as `read_config` gives it: what decides how it is computed does not count."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    how = {name: defaults[name] for name in ("dtype", "remat", "attention")}
    return dataclasses.asdict(config) | how


def _has_head(family: Architecture, config: Any) -> bool:
    return any(row.theirs == family.head for row in family.table(config))


def _joined(params: Lazy, rows: list[tuple[Row, int]]) -> np.ndarray:
    """A tensor of theirs, which may join several of ours."""
    parts = [_part(params, row, layer) for row, layer in rows]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _part(params: Lazy, row: Row, layer: int) -> np.ndarray:
    """What of their tensor of this layer is ours."""
    index: Index = () if row.layers is None else (slice(layer, layer + 1),)
    ours = params.read(row.ours, bounded(index, params.shapes[row.ours].shape))
    ours = ours if row.layers is None else ours[0]
    return ours.T if row.transposed else ours


def _spec(params: Lazy, parts: list[tuple[Row, int]]) -> Spec:
    row = parts[0][0]
    leaf = params.shapes[row.ours]
    shape = list(leaf.shape[row.layers is not None :])
    shape[-1] *= row.parts
    return Spec(tuple(shape[::-1] if row.transposed else shape), np.dtype(leaf.dtype))


def _check_params(params: Lazy, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = {path: leaf.shape for path, leaf in params.shapes.items()}
    if problems := misfits(found, shapes, "parameter"):
        raise ValueError(f"Parameters do not fit the config: {'; '.join(problems)}.")
