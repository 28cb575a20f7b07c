"""What was asked and answered, one line a request, appended as it comes.

A line that is there is paid for and never asked again; a line that a kill cut short is taken off.
So what is left to ask is a set difference on (question, sample).

| key        | meaning                                                       |
|------------|---------------------------------------------------------------|
| `question` | its id                                                        |
| `samples`  | numbers of the answers that the reply holds, in its order     |
| `tokens`   | prompt and completion tokens that were charged                |
| `reply`    | the body as it came, zlib and base64                          |
| `lost`     | instead of these: tokens that may have been charged for none  |
"""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from specialize_jax.schemas import SchemaError

_SYNC_EVERY = 1.0  # seconds: what a crash of the machine may cost; that of the process costs none


class Entry(NamedTuple):
    """A request that was answered.

    Attributes:
      question: its id.
      samples: numbers of the answers.
      tokens: (prompt, completion) that were charged.
      body: the reply.
    """

    question: str
    samples: tuple[int, ...]
    tokens: tuple[int, int]
    body: str


class Journal:
    """The journal of a folder; one process at a time holds it.

    Args:
      path: the file; made when absent.

    Attributes:
      tokens: [prompt, completion] charged so far.
      lost: tokens that may have been charged for replies that never came whole.

    Raises:
      SchemaError: another process writes it, or a line is damaged.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self.tokens = [0, 0]
        self.lost = 0
        self._there: set[tuple[str, int]] = set()
        self._offsets: dict[str, list[int]] = {}  # question -> where its lines begin
        self._synced = time.monotonic()
        try:
            self._lock()
            self._load()
        except SchemaError:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):
            os.fsync(self._file.fileno())
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SchemaError(f"'{self.path.parent}': another process collects into it") from error

    def _load(self) -> None:
        self._file.seek(0)
        offset = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(offset)
                break
            try:
                self._note(json.loads(line), offset)
            except (ValueError, LookupError, TypeError) as error:
                raise SchemaError(f"{self.path}, line {number}: damaged: {error!r}") from error
            offset += len(line)
        self._file.seek(0, os.SEEK_END)

    def _note(self, value: dict[str, Any], offset: int) -> None:
        if "lost" in value:
            self.lost += value["lost"]
            return
        if value["samples"]:
            self._offsets.setdefault(value["question"], []).append(offset)
        self._there.update((value["question"], sample) for sample in value["samples"])
        for side, count in enumerate(value["tokens"]):
            self.tokens[side] += count

    def __len__(self) -> int:
        return len(self._there)

    def __contains__(self, key: object) -> bool:
        return key in self._there

    def add(self, entry: Entry) -> None:
        """Appends an answered request."""
        packed = base64.b64encode(zlib.compress(entry.body.encode(), 1)).decode()
        self._append({**entry._asdict(), "reply": packed})

    def add_lost(self, tokens: int) -> None:
        """Notes that tokens may have been charged for a reply that was lost."""
        self._append({"lost": tokens})

    def _append(self, value: dict[str, Any]) -> None:
        value.pop("body", None)
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write((json.dumps(value) + "\n").encode())
        # Behind this the line survives a kill of the process.
        self._file.flush()
        self._note(value, offset)
        if time.monotonic() - self._synced > _SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def replies(self, question: str) -> Iterator[tuple[tuple[int, ...], str]]:
        """Yields sample numbers and body of every reply to a question, as they came."""
        for offset in self._offsets.get(question, ()):
            self._file.seek(offset)
            value = json.loads(self._file.readline())
            yield (
                tuple(value["samples"]),
                zlib.decompress(base64.b64decode(value["reply"])).decode(),
            )


def chunks(numbers: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Cuts numbers into requests of at most `size` answers.

    >>> chunks([0, 1, 2, 5, 6], 2)
    [(0, 1), (2, 5), (6,)]
    """
    return [tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)]
