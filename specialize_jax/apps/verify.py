"""`specialize-jax verify`: hashes and invariants of any folder we write, and a few rows shown."""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from etils import epath

from specialize_jax.data import packed
from specialize_jax.schemas import SchemaError, aligned, batches, folders, records, results

EPILOG = """\
example:
  specialize-jax verify out/line/aligned"""
_SHOWN = 3
_ROWS_AT_ONCE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("folder", metavar="DIR", help="a folder that this program wrote")


def main(args: argparse.Namespace) -> int:
    """Checks the folder; raises at the first thing that is wrong."""
    folder = epath.Path(args.folder)
    if not folder.is_dir():
        raise SchemaError(f"'{folder}' does not exist or is no folder")
    checks = {
        records.NAME: _records,
        aligned.NAME: _aligned,
        batches.NAME: _packed,
    }
    schema = folders.schema_of(folder)
    noun = "rows"
    if schema is not None:
        lines = checks[schema](folder)
    elif any(folder.glob("results_*.json")) or any(folder.glob("*/*/results_*.json")):
        lines, noun = _results(folder), "results files"
    else:
        raise SchemaError(
            f"'{folder}' holds none of {', '.join(folders.INFO_FILES.values())} or "
            "results_*.json: nothing that this program finished writing"
        )
    count = 0
    for count, line in enumerate(lines, 1):
        if count <= _SHOWN:
            print(line)
    print(f"{count} {noun} checked\nok: {folder}")
    return 0


def _records(folder: epath.Path) -> Iterator[str]:
    info = folders.read_info(folder, records.NAME)
    for where, row in _rows(folder, info, records.ARROW_SCHEMA, pa.Table.to_pylist):
        records.check_row(row, where)
        yield records.render_row(row)


def _aligned(folder: epath.Path) -> Iterator[str]:
    info = folders.read_info(folder, aligned.NAME)
    tokenizer = info["student_tokenizer"]
    folders.check_hash(folder / tokenizer["file"], tokenizer)
    schema = aligned.arrow_schema(info["k_out"], tokenizer["vocab_size"])
    for where, row in _rows(folder, info, schema, aligned.to_rows):
        aligned.check_soft(row["soft"], row["targets"], where)
        yield aligned.render_row(row)


def _rows(
    folder: epath.Path,
    info: dict[str, Any],
    schema: pa.Schema,
    to_rows: Callable[[pa.Table], list[dict[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every row of a folder, with the words that name it in an error."""
    for entry, table in folders.read_parts(folder, info, schema):
        for number, row in enumerate(to_rows(table)):
            yield f"'{folder}/{entry['file']}' row {number}", row


def _packed(folder: epath.Path) -> Iterator[str]:
    info = folders.read_info(folder, batches.NAME)
    folders.check_hash(folder / info["student_tokenizer"]["file"], info["student_tokenizer"])
    for split, numbers in info["splits"].items():
        rows = packed.PackedRows(folder, split, batch_rows=_ROWS_AT_ONCE)
        if len(rows) != numbers["rows"]:
            raise SchemaError(f"'{folder}': {split} has {len(rows)} rows, not {numbers['rows']}")
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            indices = range(start, min(start + _ROWS_AT_ONCE, len(rows)))
            batch = rows.batch(indices)
            batches.check_batch(batch, rows.layout, f"'{folder}' {split} row {start} and on")
            for index in range(len(indices)):
                yield f"{split} {batches.render_row(batch, index)}"


def _results(folder: epath.Path) -> Iterator[str]:
    paths = sorted({*folder.glob("results_*.json"), *folder.glob("*/*/results_*.json")})
    for path in paths:
        value = json.loads(path.read_text())
        results.validate_results(value, str(path))
        yield f"{path.name}: " + ", ".join(sorted(value["results"]))
