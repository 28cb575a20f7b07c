"""Teacher records as the text that other trainers read, for `specialize-jax export`."""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from etils import epath

from specialize_jax.apps import progress
from specialize_jax.data import text_exporters
from specialize_jax.schemas import SchemaError, folders
from specialize_jax.schemas import records as schema
from specialize_jax.teacher import records

_ROWS_AT_ONCE = 1000


def add_arguments(group: Any) -> None:
    """Adds the flags."""
    group.add_argument("--chat", action="store_true", help="messages instead of text")
    group.add_argument(
        "--prompt",
        default=text_exporters.PROMPTS[0],
        choices=text_exporters.PROMPTS,
        help="how a question is put: 'Q: question', 'Let's think step by step'; or as it stands",
    )
    group.add_argument(
        "--wrong", metavar="DIR", help="records of wrong chains, for preference (DIR/wrong)"
    )


class Rows:
    """The rows of a file, counted while they are written.

    Attributes:
      written: how many rows there were.
    """

    def __init__(self, args: argparse.Namespace, form: text_exporters.Form, is_preference: bool):
        self._form, self._prompt, self._is_preference = form, args.prompt, is_preference
        self._folders = [args.folder]
        default = epath.Path(args.folder) / records.WRONG
        if is_preference and (args.wrong or folders.schema_of(default)):
            self._folders.append(args.wrong or str(default))
        elif args.wrong:
            raise ValueError("--wrong: goes with --form preference only")
        self._infos = [folders.read_info(folder, schema.NAME) for folder in self._folders]
        self._seen = {True: 0, False: 0, None: 0}
        self.written = 0

    def tables(self) -> Iterator[pa.Table]:
        """Yields them.

        Raises:
          SchemaError: a part is damaged, or there is no pair of a right and a wrong chain.
        """
        rows = self._pairs() if self._is_preference else self._chains()
        while part := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            self.written += len(part)
            yield pa.Table.from_pylist(part, schema=self._form.schema)
        if not self.written:
            counted = f"{self._seen[True]} right and {self._seen[False]} wrong chains"
            raise SchemaError(
                f"{' and '.join(map(repr, self._folders))}: expected questions with a right and a "
                f"wrong chain each, got {counted}: collect or import with --keep_wrong, or name "
                "records of wrong chains by --wrong"
            )

    def left_out(self) -> str:
        """Returns in words which records are not in the file."""
        if not self._is_preference:
            return ""
        right, wrong = (self._seen[verdict] - self.written for verdict in (True, False))
        return (
            f"; without a partner: {right} right, {wrong} wrong chains; without a verdict: "
            f"{self._seen[None]}"
        )

    def _chains(self) -> Iterator[dict[str, Any]]:
        return text_exporters.chains(self._records(), self._form, self._prompt)

    def _pairs(self) -> Iterator[dict[str, Any]]:
        for question, chosen, rejected in text_exporters.pairs(self._records()):
            yield self._form.row(text_exporters.put(question, self._prompt), chosen, rejected)

    def _records(self) -> Iterable[dict[str, Any]]:
        done = progress.bar("export", sum(info["rows"] for info in self._infos))
        for folder, info in zip(self._folders, self._infos, strict=True):
            for entry, table in folders.read_parts(folder, info, schema.ARROW_SCHEMA):
                for number, row in enumerate(table.to_pylist()):
                    schema.check_row(row, f"'{folder}/{entry['file']}' row {number}")
                    self._seen[row["is_correct"]] += 1
                    yield row
                done(table.num_rows)
