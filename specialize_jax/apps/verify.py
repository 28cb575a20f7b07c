"""`specialize-jax verify`: hashes and invariants of any folder we write, and a few rows shown."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from etils import epath

from specialize_jax.apps import evaluation_sets, questions
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
    # what to read, its name, how many lines to show (None: all)
    found: list[tuple[Iterator[str], str, int | None]] = []
    if schema is not None:
        found.append((checks[schema](folder), "rows", _SHOWN))
    else:
        if (folder / "checkpoints").is_dir():
            found.append((_metrics(folder / "metrics.jsonl"), "lines of metrics", 0))
            found.append((_checkpoints(folder / "checkpoints"), "checkpoints", None))
        if any(folder.glob("results_*.json")) or any(folder.glob("*/*/results_*.json")):
            found.append((_results(folder), "results files", _SHOWN))
    if not found:
        if (folder / "report.json").exists() and (folder / "index.html").exists():
            raise SchemaError(
                f"'{folder}' is a report and holds nothing to verify; expected one of the folders "
                "that it shows"
            )
        raise SchemaError(
            f"'{folder}' holds none of {', '.join(folders.INFO_FILES.values())}, checkpoints/ or "
            "results_*.json: nothing that this program finished writing"
        )
    for lines, noun, shown in found:
        count = 0
        for count, line in enumerate(lines, 1):
            if shown is None or count <= shown:
                print(line)
        print(f"{count} {noun} checked")
    print(f"ok: {folder}")
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
    where = f"'{folder / folders.INFO_FILES[batches.NAME]}'"
    # More than reading rows takes, so `read_info` does not ask for it.
    folders.check_keys(
        info, ("splits", "student_tokenizer.file", "student_tokenizer.sha256"), where
    )
    folders.check_hash(folder / info["student_tokenizer"]["file"], info["student_tokenizer"])
    questions.check_folder(folder, info)
    folders.check_keys(info["splits"], [f"{s}.rows" for s in info["splits"]], f"{where}: 'splits'")
    for split, numbers in info["splits"].items():
        rows = packed.PackedRows(folder, split, batch_rows=_ROWS_AT_ONCE)
        if len(rows) != numbers["rows"]:
            raise SchemaError(f"'{folder}': {split} has {len(rows)} rows, not {numbers['rows']}")
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            indices = range(start, min(start + _ROWS_AT_ONCE, len(rows)))
            batch = rows.batch(indices)
            batches.check_batch(batch, rows.layout, f"'{folder}' {split} row {start} and on")
            for index in range(len(indices)):
                yield f"{split} {_packed_row(rows, batch, start, index)}"


def _packed_row(rows: packed.PackedRows, batch: dict, start: int, index: int) -> str:
    ids, formats = (
        rows.example_ids(start + index),
        batches.row_formats(batches.row_at(batch, index)),
    )
    if ids is not None and len(ids) != len(formats):
        raise SchemaError(
            f"row {start + index}: expected an id for each of {len(formats)} examples, got {ids}"
        )
    return batches.render_row(batch, index, ids)


def _results(folder: epath.Path) -> Iterator[str]:
    paths = sorted({*folder.glob("results_*.json"), *folder.glob("*/*/results_*.json")})
    for path in paths:
        value = folders.parse_json(path.read_bytes(), f"'{path}'")
        results.validate_results(value, str(path))
        yield f"{path.name}: " + ", ".join(sorted(value["results"]))


def _metrics(path: epath.Path) -> Iterator[str]:
    if not path.exists():  # training stopped before its first line
        return
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        value = folders.parse_json(line, f"'{path}' line {number}")
        if not isinstance(value, dict):
            raise SchemaError(
                f"'{path}' line {number}: expected a JSON object, got {type(value).__name__}"
            )
        yield f"metrics {number}: ok"


def _checkpoints(folder: epath.Path) -> Iterator[str]:
    # Here: other folders are verified without loading Orbax.
    from specialize_jax.training import checkpoints

    tokenizer = checkpoints.read_config(folder).get("student_tokenizer")
    if tokenizer is not None:
        folders.check_hash(folder.parent / tokenizer["file"], tokenizer)
    evaluation_sets.record_of(folder.parent)
    steps = checkpoints.all_steps(folder)
    if not steps:
        raise SchemaError(f"'{folder}': expected a complete checkpoint, got none")
    for step in steps:
        compared = checkpoints.check(folder, step)
        yield f"checkpoint {step}: ok" + ("" if compared else " (parameters alone: no manifest)")
