"""Rows of files that others wrote, each with its place: JSON lines, JSON, Parquet, Arrow."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from specialize_jax.schemas import SchemaError
from specialize_jax.teacher import names

Found = tuple[str, "dict[str, Any] | SchemaError"]


def read_jsonl(path: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields `file:line` and the object of every line.

    Raises:
      SchemaError: the file is missing, not UTF-8, or a line is not a JSON object.
    """
    for where, value in _json_lines(path):
        if isinstance(value, SchemaError):
            raise value
        yield where, value


def read(path: epath.PathLike) -> Iterator[Found]:
    """Yields the place of every row, and the row or what is wrong with it.

    Args:
      path: a file, by its suffix: `.jsonl` (or `.ndjson`), `.json` (a list, or lines), `.parquet`,
        `.arrow` (as `datasets` saves, or Feather); or a folder, of which all such files are read in
        the order of their names.

    Raises:
      SchemaError: there is no such file, its suffix is unknown, or it is damaged as a whole.
    """
    path = epath.Path(path)
    if path.is_dir():
        found = sorted(inner for inner in path.iterdir() if inner.suffix in _TABLES)
        if not found:
            raise SchemaError(f"'{path}': expected {_choices(_TABLES)} in this folder, found none")
        for inner in found:
            yield from _TABLES[inner.suffix](inner)
        return
    if path.suffix not in _READERS:
        raise SchemaError(
            f"'{path}': expected a file in {_choices(_READERS)}, or a folder of such, got "
            f"'{path.suffix}'"
        )
    check_there(path)
    yield from _READERS[path.suffix](path)


def check_there(path: epath.Path) -> None:
    """Raises SchemaError where there is no such file; it says how public data is named."""
    if not path.exists():
        raise SchemaError(
            f"expected the file '{path}'; give the folder that holds '{path.parent.name}/' with "
            "--data_dir or SPECIALIZE_JAX_DATA"
        )


def lines(path: epath.Path) -> Iterator[tuple[str, bytes]]:
    r"""Yields `file:line` and every line without its end.

    Only `\n` ends a line: JSON strings and chains may hold U+2028 and others that `splitlines`
    breaks at. The file is read a line at a time: logs have gigabytes.
    """
    check_there(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield f"{path}:{number}", line.removesuffix(b"\n")


def _json_lines(path: epath.Path) -> Iterator[Found]:
    for where, line in lines(path):
        try:
            value = _object(json.loads(line.decode()), where)
        except UnicodeDecodeError as error:
            value = SchemaError(f"{where}: expected UTF-8: {error}")
        except json.JSONDecodeError as error:
            value = SchemaError(f"{where}: not valid JSON: {error}")
        yield where, value


def _json(path: epath.Path) -> Iterator[Found]:
    """Reads a list of objects, or, as some name them so, lines."""
    text = path.read_bytes()
    if not text.lstrip().startswith(b"["):
        yield from _json_lines(path)
        return
    try:
        listed = json.loads(text)
    except ValueError as error:  # neither JSON nor UTF-8
        raise SchemaError(f"{path}: not valid JSON: {error}") from error
    for number, value in enumerate(listed):
        where = f"{path}: item {number}"
        yield where, _object(value, where)


def _object(value: Any, where: str) -> dict[str, Any] | SchemaError:
    if isinstance(value, dict):
        return {name: _sound(inner) for name, inner in value.items()}
    return SchemaError(f"{where}: expected a JSON object, got {type(value).__name__}")


def _sound(value: Any) -> Any:
    """Returns a JSON value whose strings UTF-8 can spell, with U+FFFD for what it cannot."""
    if isinstance(value, str):
        return value if value.isascii() else names.sound(value)
    if isinstance(value, list):
        return [_sound(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _sound(inner) for name, inner in value.items()}
    return value


def _parquet(path: epath.Path) -> Iterator[Found]:
    try:
        with path.open("rb") as file:
            yield from _batches(path, pq.ParquetFile(file, pre_buffer=False).iter_batches())
    except pa.ArrowInvalid as error:
        raise SchemaError(f"'{path}' is not a complete Parquet file: {error}") from error


def _arrow(path: epath.Path) -> Iterator[Found]:
    """Reads Arrow's stream, as `datasets` writes, or its file with a footer (Feather)."""
    try:
        with path.open("rb") as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                reader = pa.ipc.open_file(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
                yield from _batches(path, batches)
            else:
                yield from _batches(path, iter(pa.ipc.open_stream(file)))
    except pa.ArrowInvalid as error:
        raise SchemaError(f"'{path}' is not a complete Arrow file: {error}") from error


def _batches(path: epath.Path, batches: Iterator[pa.RecordBatch]) -> Iterator[Found]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{path}: row {number}", row
            number += 1


_TABLES: dict[str, Callable[[epath.Path], Iterator[Found]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
}
_READERS = _TABLES | {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json}


def _choices(suffixes: dict[str, Any]) -> str:
    return ", ".join(sorted(suffixes))
