"""Folders of Hugging Face (config.json and safetensors) <-> our config and parameters.

Tensors are read and written one by one: host memory holds one at a time beside the result, and
with shardings a process reads only what its devices hold.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from specialize_jax.convert import carried, families, vocabulary
from specialize_jax.convert.lazy import Index, Lazy, bounded, misfits, of_params
from specialize_jax.convert.names import Architecture, Row
from specialize_jax.convert.remote import explained
from specialize_jax.convert.safetensors_files import Reader, Spec, write_shards
from specialize_jax.models.interface import Params


class Opened(NamedTuple):
    """A Hugging Face folder.

    Attributes:
      config: ours.
      params: readable as long as the folder is open.
      prefix: what its tensors' names begin with.
    """

    config: Any
    params: Lazy
    prefix: str


def load_hf(
    path: epath.PathLike,
    *,
    dtype: Any = None,
    shardings: Any = None,
    vocab_size: int | None = None,
) -> tuple[Any, Params]:
    """Reads a T5, Flan-T5, mT5 or GPT-2 folder.

    Args:
      path: a folder, local or `gs://`, with config.json and model.safetensors, or its shards and
        their index.
      dtype: of the parameters, "float32" or "bfloat16"; None keeps what the file holds. Master
        parameters want "float32".
      shardings: a tree like the parameters; None gives numpy arrays in host memory.
      vocab_size: rows of the embedding that are wanted, where the folder's are padded to another
        size (see `vocabulary`); None for what config.json says. A change is warned of.

    Returns:
      The config, ready for the family's `build`, and the parameters as a nested dict: numpy arrays,
      or `jax.Array`s laid out by `shardings`.

    Raises:
      FileNotFoundError: no config.json, or no tensors, or shards are missing.
      ValueError: the config is none of a model that we build; a file is cut; tensors are unknown,
        missing, or of the wrong shape, all of them named in one message; the tokenizer beside them
        has more ids than the embedding rows; or a dtype that is not used here.
      OSError: a remote folder cannot be read.
    """
    with open_hf(path, vocab_size=vocab_size) as opened:
        return opened.config, opened.params.astype(dtype).load(shardings)


@contextlib.contextmanager
def open_hf(path: epath.PathLike, *, vocab_size: int | None = None) -> Iterator[Opened]:
    """Opens a folder whose tensors are then read one by one; see `load_hf`."""
    with explained(path):
        raw = carried.read_config(path)
        family = families.of_hf(raw)
        with Reader(path) as reader:
            tensors = _Tensors(reader, family)
            stated = family.read_config(raw, tied=_is_tied(raw, tensors))
            config = dataclasses.replace(stated, vocab_size=_stored_rows(tensors, stated))
            _check_tensors(tensors, config, path)
            _check_tokenizer(path, config, vocab_size or stated.vocab_size)
            params = _lazy(tensors, config)
            config, params = _fit_vocabulary(
                family, config, params, vocab_size or stated.vocab_size, path
            )
            yield Opened(config, params, tensors.prefix)


def save_hf(
    config: Any,
    params: Params,
    path: epath.PathLike,
    *,
    max_shard_bytes: int = 5_000_000_000,
    source: epath.PathLike | None = None,
) -> None:
    """Writes a folder that `transformers` and `load_hf` read; dtypes stay as they are.

    Args:
      config: the model's config.
      params: its parameters, all of them addressable by this process.
      path: the folder; made where absent.
      max_shard_bytes: tensors beyond this many bytes go into further files with an index.
      source: the folder that the model came from: its tokenizer, generation_config.json and what
        else its config.json says are carried along.

    Raises:
      ValueError: parameters are unknown, missing, or of the wrong shape; one message names all.
    """
    write_hf(config, of_params(params), path, max_shard_bytes=max_shard_bytes, source=source)


def write_hf(
    config: Any,
    params: Lazy,
    path: epath.PathLike,
    *,
    max_shard_bytes: int = 5_000_000_000,
    source: epath.PathLike | None = None,
    prefix: str | None = None,
) -> None:
    """Like `save_hf`, from parameters that are read one tensor at a time.

    Args:
      config: the model's config.
      params: its parameters.
      path: the folder; made where absent.
      max_shard_bytes: see `save_hf`.
      source: see `save_hf`.
      prefix: what the tensors' names begin with; None for what `transformers` writes.

    Raises:
      ValueError: see `save_hf`.
    """
    family = families.of_config(config)
    _check_params(params, _shapes(family, config))
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
            lambda name: (
                np.concatenate([_part(params, row, layer) for row, layer in joined[name]], axis=-1)
                if len(joined[name]) > 1
                else _part(params, *joined[name][0])
            ),
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
    """config.json: what the model came with, and ours over it."""
    ours = family.write_config(config)
    if base.get("model_type") not in family.model_types:
        return ours
    for name in ("model_type", "architectures"):
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


def _shapes(family: Architecture, config: Any) -> dict[str, tuple[int, ...]]:
    abstract = jax.eval_shape(family.build(config).init, jax.random.key(0))
    flat = traverse_util.flatten_dict(abstract, sep="/")
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


class _Tensors:
    """A folder's tensors under the names of the table: no prefix, one name for the embedding."""

    def __init__(self, reader: Reader, family: Architecture):
        self.reader = reader
        self.family = family
        self.prefix = self._prefix()
        self._theirs = {self._bare(name): name for name in reader.names()}
        held = [n for n in (family.embedding, *family.copies) if n in self._theirs]
        if held:
            self._theirs.setdefault(family.embedding, self._theirs[held[0]])

    def _prefix(self) -> str:
        prefix = self.family.prefix
        names = self.reader.names()
        return prefix if prefix and any(name.startswith(prefix) for name in names) else ""

    def _bare(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def __contains__(self, name: str) -> bool:
        return name in self._theirs

    def names(self) -> list[str]:
        return list(self._theirs)

    def spec(self, name: str) -> Spec:
        return self.reader.spec(self._theirs[name])

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        return self.reader.read(self._theirs[name], index)

    def equal(self, name: str, other: str) -> bool:
        both = name in self and other in self
        return both and self.reader.equal(self._theirs[name], self._theirs[other])


def _is_tied(raw: Mapping[str, Any], tensors: _Tensors) -> bool:
    """Whether the head is the embedding.

    transformers 5 writes `tie_word_embeddings: true` for every T5, so where a file says so and yet
    has a head, the head's values decide (and transformers reads it like that, too).
    """
    family = tensors.family
    says_tied = raw.get("tie_word_embeddings", True)
    if not says_tied or family.head not in tensors:
        return says_tied
    return tensors.equal(family.head, family.embedding)


def _stored_rows(tensors: _Tensors, config: Any) -> int:
    """Rows of the stored embedding, where that is the config's vocabulary padded differently."""
    if tensors.family.embedding in tensors:
        shape = tensors.spec(tensors.family.embedding).shape
        if len(shape) == 2 and vocabulary.same(shape[0], config.vocab_size):
            return shape[0]
    return config.vocab_size


def _check_tensors(tensors: _Tensors, config: Any, path: epath.PathLike) -> None:
    family = tensors.family
    wanted: dict[str, tuple[int, ...]] = {}
    shapes = _shapes(family, config)
    for row in family.table(config):
        shape = list(shapes[row.ours][row.layers is not None :])
        shape[-1] *= row.parts
        theirs = tuple(shape[::-1] if row.transposed else shape)
        wanted |= dict.fromkeys(row.tensors(), theirs)
    copies = {*family.copies, family.head} - set(wanted)
    found = {
        name: tensors.spec(name).shape
        for name in tensors.names()
        if name not in copies and not family.ignored.fullmatch(name)
    }
    problems = misfits(found, wanted, "tensor")
    problems += [
        f"{name} differs from {family.embedding}"
        for name in sorted(copies & set(tensors.names()))
        if not tensors.equal(name, family.embedding)
    ]
    if not problems:
        problems = _mixed_stacks(tensors, config)
    if problems:
        raise ValueError(f"{path} does not fit its config.json: {'; '.join(problems)}.")


def _mixed_stacks(tensors: _Tensors, config: Any) -> list[str]:
    """Parameters whose layers are stored in several dtypes: stacked, one of them would be lost."""
    problems = []
    for row in tensors.family.table(config):
        kinds = sorted({tensors.spec(name).dtype.name for name in row.tensors()})
        if len(kinds) > 1:
            problems.append(f"layers of {row.theirs} are stored as {' and '.join(kinds)}")
    return problems


def _check_tokenizer(path: epath.PathLike, config: Any, rows: int) -> None:
    found = carried.vocabulary(path)
    rows = min(rows, config.vocab_size)
    if found is not None and found[1] > rows:
        raise ValueError(
            f"{path}: the tokenizer {found[0]} has {found[1]} ids, the embedding {rows} rows: the "
            "tokenizer is of another model."
        )


def _fit_vocabulary(
    family: Architecture, config: Any, params: Lazy, size: int, path: epath.PathLike
) -> tuple[Any, Lazy]:
    stored = config.vocab_size
    if size == stored:
        return config, params
    if not vocabulary.same(size, stored):
        raise ValueError(
            f"{path} has a vocabulary of {stored} rows, {size} are wanted: that is more than "
            f"padding to a multiple of {vocabulary.MULTIPLE}."
        )
    what = "cut" if size < stored else "padded with the mean of the others"
    warnings.warn(
        f"{path}: the vocabulary of {stored} rows is {what}, to {size} rows.", stacklevel=5
    )
    axes = {
        row.ours: 1 if row.transposed else 0
        for row in family.table(config)
        if row.theirs in (family.embedding, family.head)
    }
    return dataclasses.replace(config, vocab_size=size), vocabulary.resized(params, axes, size)


def _lazy(tensors: _Tensors, config: Any) -> Lazy:
    rows = {row.ours: row for row in tensors.family.table(config)}
    shapes = _shapes(tensors.family, config)
    dtypes = {path: tensors.spec(row.tensors()[0]).dtype for path, row in rows.items()}

    def read(path: str, index: Index) -> np.ndarray:
        row = rows[path]
        index = bounded(index, shapes[path])
        if row.layers is None:
            return _read_part(tensors, row, row.theirs, index)
        names = row.tensors()[index[0]]
        stacked = np.empty([part.stop - part.start for part in index], dtypes[path])
        for layer, name in enumerate(names):
            stacked[layer] = _read_part(tensors, row, name, index[1:])
        return stacked

    return Lazy({path: jax.ShapeDtypeStruct(shapes[path], dtypes[path]) for path in rows}, read)


def _read_part(tensors: _Tensors, row: Row, name: str, index: Index) -> np.ndarray:
    """Ours at `index`, of one of their tensors."""
    if row.transposed:
        return tensors.read(name, index[::-1]).T
    first = row.part * (tensors.spec(name).shape[-1] // row.parts)
    last = slice(index[-1].start + first, index[-1].stop + first)
    return tensors.read(name, (*index[:-1], last))


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
