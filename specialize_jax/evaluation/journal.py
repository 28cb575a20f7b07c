"""The file that keeps a model's answers as they come, so that a stopped run goes on where it was.

`predictions_<task>.jsonl` holds the part of a samples line that decoding made: question, request
and texts. An answer is used again where question, prompt and the way of decoding are the same. It
does not know the model: every checkpoint has a folder of its own.
"""

import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from etils import epath

from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError, folders, results

_WHOLE_SECONDS = 30.0  # between two writings of a file that cannot grow


def path_of(folder: epath.PathLike, task: str) -> epath.Path:
    """Returns where an evaluation folder keeps the journal of a task."""
    return epath.Path(folder) / f"predictions_{task}.jsonl"


class Journal:
    """Answers by question and request. Use it in a `with` statement.

    Each answer is in the file when `add` returns, where files can grow; in a bucket the file is
    written whole, twice a minute and at the end. What a killed run left half-written is cut off.

    Args:
      path: of the file; None keeps nothing.
      generation: how answers are decoded; others are not found.
      samples: texts of a question; where there is another number, it is not found.

    Raises:
      SchemaError: the file is malformed; names the line.
    """

    def __init__(
        self, path: epath.PathLike | None, generation: Mapping[str, Any], samples: int = 1
    ) -> None:
        self.path = None if path is None else epath.Path(path)
        self._generation, self._samples = dict(generation), samples
        self._answers: dict[tuple[str, str], list[str]] = {}
        self._file: IO[bytes] | None = None
        self._content, self._unsaved, self._saved_at = b"", False, time.monotonic()
        if self.path is not None:
            folders.make_folder(self.path.parent)
            self._load(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._unsaved:
            self._write_whole()

    def get(self, question: Question, prompt: str) -> list[str] | None:
        """Returns the texts of a question, None where it was not asked so."""
        texts = self._answers.get(self._key(question, prompt))
        return texts if texts is not None and len(texts) == self._samples else None

    def add(self, question: Question, prompt: str, texts: Sequence[str]) -> None:
        """Keeps the texts of a question."""
        self._answers[self._key(question, prompt)] = list(texts)
        entry = {
            "id": question.id,
            "doc_id": question.row,
            "arguments": results.arguments(prompt, self._generation),
            "resps": [list(texts)],
        }
        if self.path is not None:
            self._write(self.path, results.json_line(entry).encode())

    def _load(self, path: epath.Path) -> None:
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # a run that was killed while it wrote leaves half a line
            folders.write_bytes(path, whole)
        if not _can_grow(path):
            self._content = whole
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            where = f"{path}, line {number}"
            try:
                entry = json.loads(line)
                key = (entry["id"], json.dumps(entry["arguments"], sort_keys=True))
            except (ValueError, KeyError, TypeError) as error:
                raise SchemaError(f"{where}: expected a prediction: {error!r}") from error
            self._answers[key] = results.responses_of(entry, where)

    def _key(self, question: Question, prompt: str) -> tuple[str, str]:
        arguments = results.arguments(prompt, self._generation)
        return question.id, json.dumps(arguments, sort_keys=True)

    def _write(self, path: epath.Path, line: bytes) -> None:
        if _can_grow(path):
            if self._file is None:
                self._file = pathlib.Path(path).open("ab")
            self._file.write(line)
            self._file.flush()
            return
        self._content += line
        self._unsaved = True
        if time.monotonic() - self._saved_at >= _WHOLE_SECONDS:
            self._write_whole()

    def _write_whole(self) -> None:
        assert self.path is not None  # there is nothing to write without it
        folders.write_bytes(self.path, self._content)
        self._unsaved, self._saved_at = False, time.monotonic()


def _can_grow(path: epath.Path) -> bool:
    """Returns whether a file there can grow; in object stores they are written whole."""
    return not folders.is_remote(path)
