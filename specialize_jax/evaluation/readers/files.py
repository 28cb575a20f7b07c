"""Files of the data folder, checked while they are read; an error names the file and the place."""

import decimal
import json
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from specialize_jax.evaluation.readers.base import DATA_DIR_VARIABLE
from specialize_jax.schemas import SchemaError


def find(data_dir: epath.PathLike, *parts: str) -> epath.Path:
    """Returns the path of a file of the data folder.

    Raises:
      FileNotFoundError: it is not there, or no folder is given; says how to give one.
    """
    if not data_dir:
        raise FileNotFoundError(
            f"no data folder given for '{'/'.join(parts)}': pass --data_dir or set "
            f"{DATA_DIR_VARIABLE}"
        )
    path = epath.Path(data_dir).joinpath(*parts)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected '{path}'; pass the folder that holds '{'/'.join(parts)}' by --data_dir or "
            f"{DATA_DIR_VARIABLE}"
        )
    return path


def json_lines(path: epath.Path, fields: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row from 0, object) of a JSON-lines file; every line must be one, with these fields.

    Raises:
      SchemaError: a line is not.
    """
    # Not splitlines: it also splits at U+2028 and its like, which JSON strings may hold.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for row, line in enumerate(lines):
        where = f"{path}, line {row + 1}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise SchemaError(f"{where}: expected one JSON object: {error}") from error
        yield row, checked(value, fields, where)


def json_items(
    path: epath.Path, fields: Mapping[str, Any], key: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row from 0, object) of a JSON file that is a list, or whose `key` is one.

    Raises:
      SchemaError: it is not, or an item lacks a field.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SchemaError(f"{path}, line {error.lineno}: expected JSON: {error}") from error
    if key is not None:
        value = checked(value, {key: list}, str(path))[key]
    if not isinstance(value, list):
        raise SchemaError(f"{path}: expected a JSON list, got {type(value).__name__}")
    for row, item in enumerate(value):
        yield row, checked(item, fields, f"{path}, item {row}")


def checked(value: Any, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a source row after checking that it has the fields, of these types, not empty.

    Raises:
      SchemaError: it has not.
    """
    if not isinstance(value, dict):
        raise SchemaError(f"{where}: expected an object, got {type(value).__name__}")
    for name, types in fields.items():
        found = value.get(name)
        unwanted = isinstance(found, bool) and types is not bool
        if not isinstance(found, types) or unwanted or found == "":
            raise SchemaError(f"{where}: expected '{name}', got {found!r}; has {sorted(value)}")
    return value


def number(value: int | float) -> str:
    """Returns a number without an exponent: 51.0 as "51", 2e-06 as "0.000002".

    Raises:
      SchemaError: it is infinite or not a number.
    """
    try:
        return str(int(value)) if value == int(value) else f"{decimal.Decimal(repr(value)):f}"
    except (OverflowError, ValueError) as error:
        raise SchemaError(f"expected a finite number, got {value!r}") from error
