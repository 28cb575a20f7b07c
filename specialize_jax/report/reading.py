"""Reads JSON files of others: what is damaged is noted, and reading goes on."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from etils import epath


@dataclasses.dataclass
class Log:
    """What was met while reading.

    Attributes:
      problems: what could not be read, with file and line.
      notes: what was left out on purpose.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def parse(text: str) -> Any:
    """Parses JSON; NaN and infinities, which Python writes and JSON lacks, become None."""
    value = json.loads(text, parse_constant=lambda _: None)
    if "\\ud" in text.lower():  # half of a surrogate pair, as a cut teacher text has, is no UTF-8
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def read_object(path: epath.Path, log: Log) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None after noting the problem."""
    try:
        value = parse(path.read_text())
    except json.JSONDecodeError as error:
        log.problems.append(
            f"{path}, line {error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
        )
    except (UnicodeDecodeError, OSError) as error:
        log.problems.append(f"{path}: cannot be read: {error}")
    else:
        if isinstance(value, dict):
            return value
        log.problems.append(f"{path}: expected a JSON object, got {type(value).__name__}")
    return None


def read_lines(path: epath.Path, log: Log) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) for every good line of a JSON Lines file.

    A last line without a newline that does not parse is being written: a note, not a problem.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = parse(line.decode())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                log.notes.append(f"{path}: line {number}, the last, is half-written; left out")
            else:
                reason = str(error)
                if isinstance(error, json.JSONDecodeError):
                    reason = f"{error.msg} (column {error.colno})"
                log.problems.append(f"{path}, line {number}: not valid JSON: {reason}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            got = type(value).__name__
            log.problems.append(f"{path}, line {number}: expected a JSON object, got {got}")
