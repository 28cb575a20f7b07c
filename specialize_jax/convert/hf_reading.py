"""Reading a Hugging Face folder: what its tensors are called, whether they fit, one by one."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from specialize_jax.convert import carried, families, vocabulary
from specialize_jax.convert.lazy import Index, Lazy, bounded, misfits
from specialize_jax.convert.names import Architecture, Row
from specialize_jax.convert.remote import explained, reading
from specialize_jax.convert.safetensors_files import Reader, Spec


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


@contextlib.contextmanager
def open_hf(path: epath.PathLike, *, vocab_size: int | None = None) -> Iterator[Opened]:
    """Opens a folder whose tensors are then read one by one; see `hf.load_hf`."""
    with contextlib.ExitStack() as stack:
        with explained(path):
            raw = carried.read_config(path)
            family = families.of_hf(raw)
            tensors = _Tensors(stack.enter_context(Reader(path)), family)
            stated = family.read_config(raw, tied=_is_tied(raw, tensors))
            name = family.embedding
            shape = tensors.spec(name).shape if name in tensors else None
            config = vocabulary.as_stored(stated, shape)
            _check_tensors(tensors, config, path)
            rows = stated.vocab_size if vocab_size is None else vocab_size
            _check_tokenizer(path, config, rows)
        params = reading(path, _lazy(tensors, config))
        config, params = vocabulary.fit(config, params, rows, path)
        yield Opened(config, params, tensors.prefix)


def prefix_of(path: epath.PathLike) -> str | None:
    """What a folder's names of tensors begin with; None where it holds no model of ours."""
    with explained(path):
        try:
            family = families.of_hf(carried.read_config(path))
            with Reader(path) as reader:
                return _Tensors(reader, family).prefix
        except (FileNotFoundError, ValueError):
            return None


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


def _check_tensors(tensors: _Tensors, config: Any, path: epath.PathLike) -> None:
    family = tensors.family
    wanted: dict[str, tuple[int, ...]] = {}
    ours = families.shapes(family, config)
    for row in family.table(config):
        shape = list(ours[row.ours][row.layers is not None :])
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


def _lazy(tensors: _Tensors, config: Any) -> Lazy:
    rows = {row.ours: row for row in tensors.family.table(config)}
    shapes = families.shapes(tensors.family, config)
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
