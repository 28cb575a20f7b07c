"""Filtering and writing teacher records."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from specialize_jax.schemas import SchemaError, folders, records

WRONG = "wrong"
"""The folder below the kept records that holds wrong ones, where they were wanted."""


def wrong_answer(row: Mapping[str, Any]) -> str | None:
    """Returns why a row that is not right is dropped."""
    return None if row["is_correct"] else "wrong_answer"


def not_wrong(row: Mapping[str, Any]) -> str | None:
    """Returns why a row that is wrong is dropped; one without a gold answer is kept."""
    return "wrong_answer" if row["is_correct"] is False else None


def right_answer(row: Mapping[str, Any]) -> str | None:
    """Returns why a row is dropped where the wrong ones are wanted."""
    return None if row["is_correct"] is False else "right_answer"


def keep_any(row: Mapping[str, Any]) -> str | None:
    """Keeps every row."""
    return None


def clear(folder: epath.PathLike) -> None:
    """Removes records, the info file first: without it the folder counts as unfinished."""
    path = epath.Path(folder)
    (path / folders.INFO_FILES[records.NAME]).unlink(missing_ok=True)
    for part in path.glob("part-*.parquet"):
        part.unlink()


def write(
    rows: Iterable[dict[str, Any] | str],
    out: epath.PathLike,
    info: dict[str, Any],
    *,
    rows_per_part: int = 1000,
    reject: Callable[[dict[str, Any]], str | None] = wrong_answer,
) -> dict[str, Any]:
    """Keeps the right answers and writes them as a folder of teacher records.

    Args:
      rows: rows of `schemas.records`, or the reason why a sample was dropped before. A row may
        carry `dropped_candidates`, which is counted and not stored.
      out: the folder to write; made when absent.
      info: `teacher`, `tokenizer`, `sampling` and `source` for the info file, and what else it is
        to say.
      rows_per_part: rows of a Parquet part, the unit in which later stages resume.
      reject: row -> why it is dropped; None keeps it.

    Returns:
      The info file's content.

    Raises:
      SchemaError: a row breaks the contract, or the folder cannot be written.
    """
    folder = folders.make_folder(out)
    finished = folder / folders.INFO_FILES[records.NAME]
    if finished.exists():
        raise SchemaError(f"'{folder}' already holds teacher records; remove it or name another")
    dropped: collections.Counter[str] = collections.Counter()
    dropped_candidates, k = 0, 0
    part: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []

    def flush() -> None:
        if part:
            path = folder / folders.part_name(len(shards))
            shards.append(records.write_part(path, part))
            part.clear()

    for row in rows:
        if isinstance(row, str):
            dropped[row] += 1
        elif reason := reject(row):
            dropped[reason] += 1
        else:
            dropped_candidates += row.get("dropped_candidates", 0)
            k = max([k, *map(len, row["topk_bytes"])])
            part.append({name: row[name] for name in records.ARROW_SCHEMA.names})
            if len(part) == rows_per_part:
                flush()
    flush()
    if not shards:
        raise SchemaError(f"no records to write to '{folder}'; dropped: {dict(dropped)}")
    content = {
        "schema": records.NAME,
        "version": folders.VERSION,
        "logprobs_temperature": None,
        "prompt_template_sha256": None,
        **info,
        "k": k,
        "rows": sum(shard["rows"] for shard in shards),
        "dropped": dict(dropped),
        "dropped_candidates": dropped_candidates,
        "shards": shards,
    }
    folders.write_json(finished, content)
    return content
