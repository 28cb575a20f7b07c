"""Sharded folders: part files written whole or not at all, one info file that vouches for them.

Every stage writes the same way. A part file appears under a temporary name and is renamed when it
is complete; the info file, with a SHA-256 of every part, comes last. So a folder without an info
file is unfinished work that a rerun picks up, and a folder with one can be verified.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from specialize_jax.schemas.targets import SchemaError

# schema name -> the file that describes a folder of that schema
INFO_FILES = {
    "teacher_records": "teacher_info.json",
    "aligned_examples": "alignment_info.json",
    "packed_rows": "packed_info.json",
}
VERSION = 1

# What readers take from an info file: `a.b` is key `b` of the object under `a`.
_REQUIRED: dict[str, tuple[str, ...]] = {
    "teacher_records": ("rows",),
    "aligned_examples": (
        "k_out",
        "student_tokenizer.file",
        "student_tokenizer.sha256",
        "student_tokenizer.vocab_size",
    ),
    "packed_rows": ("lengths.inputs", "lengths.targets", "k", "vocab_size"),
}
_REQUIRED_OF_SHARD: dict[str, tuple[str, ...]] = {
    "teacher_records": ("file", "rows", "sha256"),
    "aligned_examples": ("file", "rows", "sha256"),
    "packed_rows": ("file", "rows", "sha256", "split"),
}


def part_name(index: int, suffix: str = "parquet") -> str:
    """Returns the name of part `index` (from 0), as `part-00000.parquet`."""
    return f"part-{index:05d}.{suffix}"


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is a bucket's, as gs://."""
    return "://" in str(path)


def make_folder(path: epath.PathLike) -> epath.Path:
    """Creates a folder to write to.

    Raises:
      SchemaError: if it cannot be created or written, naming the path and the system's reason.
    """
    folder = epath.Path(path)
    probe = folder / f".write-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise SchemaError(f"cannot write to output folder '{folder}': {error}") from error
    return folder


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file under a temporary name, then renames it: it is there whole or not at all."""
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SchemaError(f"cannot write '{path}': {error}") from error


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_table(path: epath.PathLike, table: pa.Table) -> None:
    """Writes an Arrow table as one Parquet file, atomically, repeated values dictionary-encoded."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def sha256(path: epath.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes in hexadecimal."""
    with epath.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def part_entry(path: epath.PathLike, rows: int) -> dict[str, Any]:
    """Returns what an info file keeps of a part: its name, number of rows and SHA-256."""
    return {"file": epath.Path(path).name, "rows": rows, "sha256": sha256(path)}


def schema_of(folder: epath.PathLike) -> str | None:
    """Returns which schema a folder follows, by the info file it holds; None for none."""
    for schema, name in INFO_FILES.items():
        if (epath.Path(folder) / name).exists():
            return schema
    return None


def read_info(folder: epath.PathLike, schema: str) -> dict[str, Any]:
    """Reads and checks the info file of a finished folder.

    Args:
      folder: the folder.
      schema: one of `INFO_FILES`.

    Returns:
      The parsed info file.

    Raises:
      SchemaError: the folder or file is missing or not JSON, schema or version differ, or a key
        that readers need is missing.
    """
    path = epath.Path(folder) / INFO_FILES[schema]
    if not path.exists():
        state = "is unfinished or holds something else" if path.parent.is_dir() else "is no folder"
        raise SchemaError(f"expected {schema} with '{path.name}' in '{folder}', which {state}")
    info = parse_json(path.read_bytes(), f"'{path}'")
    if not isinstance(info, dict) or info.get("schema") != schema:
        found = info.get("schema") if isinstance(info, dict) else type(info).__name__
        raise SchemaError(f"'{path}': expected schema '{schema}', got {found!r}")
    if info.get("version") != VERSION:
        raise SchemaError(
            f"'{path}': this library reads version {VERSION} of schema '{schema}', "
            f"got version {info.get('version')!r}; write the folder again with this version"
        )
    if not isinstance(info.get("shards"), list):
        raise SchemaError(f"'{path}': expected a list 'shards', got {info.get('shards')!r}")
    check_keys(info, _REQUIRED[schema], f"'{path}'")
    for number, entry in enumerate(info["shards"]):
        check_keys(entry, _REQUIRED_OF_SHARD[schema], f"'{path}': entry {number} of 'shards'")
    return info


def parse_json(text: str | bytes, where: str) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: a file or a line of one, in UTF-8.
      where: what it is called in the error.

    Raises:
      SchemaError: it is not JSON, or not UTF-8.
    """
    try:
        return json.loads(text)
    except ValueError as error:  # neither JSON nor UTF-8
        raise SchemaError(f"{where}: expected JSON: {error}") from error


def check_keys(value: Any, names: Iterable[str], where: str) -> None:
    """Checks that a parsed JSON value has keys; all that are missing go in one error.

    Args:
      value: the parsed value.
      names: the keys; `a.b` is key `b` of the object under `a`.
      where: named in the error.

    Raises:
      SchemaError: naming the missing keys and those that are there.
    """
    missing = []
    for name in names:
        inner = value
        for key in name.split("."):
            if not isinstance(inner, dict) or key not in inner:
                missing.append(f"'{name}'")
                break
            inner = inner[key]
    if missing:
        got = f"keys {sorted(value)}" if isinstance(value, dict) else repr(value)
        raise SchemaError(f"{where}: missing {', '.join(missing)}; got {got}")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Returns in words which values of `here` are other in `there`; empty if none is."""
    return "; ".join(
        f"{name}: {there.get(name)} there, {value} here"
        for name, value in here.items()
        if there.get(name) != value
    )


def check_hash(path: epath.Path, entry: dict[str, Any]) -> None:
    """Checks that a part file is there and is the one that the info file vouches for.

    Raises:
      SchemaError: the file is missing, empty or has another SHA-256.
    """
    if not path.exists():
        raise SchemaError(f"'{path.parent}': part '{path.name}' is missing")
    found = sha256(path)
    if found != entry["sha256"]:
        raise hash_mismatch(path, entry, found)


def hash_mismatch(path: epath.Path, entry: dict[str, Any], found: str) -> SchemaError:
    """Returns the error of a part file whose SHA-256 is another."""
    return SchemaError(
        f"'{path}': SHA-256 mismatch, expected {entry['sha256'][:16]}…, got {found[:16]}… "
        f"({path.stat().length} bytes): the file was changed or cut after it was written"
    )


def read_table(path: epath.PathLike, schema: pa.Schema) -> pa.Table:
    """Reads one Parquet part and checks its columns.

    Raises:
      SchemaError: the file is empty, cut or no Parquet, or its columns are not those of `schema`.
    """
    path = epath.Path(path)
    try:
        content = pa.BufferReader(path.read_bytes())
        # On this thread alone: a thread of Arrow's that let go of the bytes while Python shuts down
        # would abort the process.
        table = pq.ParquetFile(content, pre_buffer=False).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(
            f"'{path}' is not a complete Parquet file ({path.stat().length} bytes): {error}"
        ) from error
    check_columns(table.schema, schema, str(path))
    return table


def check_columns(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Checks names and types of columns; missing, unknown and mistyped ones go in one error."""
    problems = [f"missing '{name}'" for name in expected.names if name not in found.names]
    problems += [f"unknown '{name}'" for name in found.names if name not in expected.names]
    for field in expected:
        if field.name in found.names and found.field(field.name).type != field.type:
            got = found.field(field.name).type
            problems.append(f"'{field.name}' should be {field.type}, is {got}")
    if problems:
        raise SchemaError(f"'{where}': wrong columns: {'; '.join(problems)}")


def read_parts(
    folder: epath.PathLike, info: dict[str, Any], schema: pa.Schema
) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Yields each part's entry and table in order, after checking hash, columns and row count."""
    for entry in info["shards"]:
        path = epath.Path(folder) / entry["file"]
        check_hash(path, entry)
        table = read_table(path, schema)
        if table.num_rows != entry["rows"]:
            raise SchemaError(f"'{path}': expected {entry['rows']} rows, got {table.num_rows}")
        yield entry, table
