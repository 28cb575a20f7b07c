"""One part of the offline job: a Parquet file of teacher records becomes one of aligned examples.

`align_part` knows two files and the settings, no folder: a loop, a pool of processes or Apache Beam
can call it. A part is made once: where the finished file stands with the same settings and from the
same records, it is read for what it says of itself.
"""

import concurrent.futures
import dataclasses
import functools
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from specialize_jax import alignment, tokenizers
from specialize_jax.data.aligning import checks, modes
from specialize_jax.data.aligning.columns import Columns
from specialize_jax.data.aligning.modes import Targets
from specialize_jax.data.aligning.totals import Totals, rendered
from specialize_jax.schemas import SchemaError, aligned, faults, folders, records

# Key of the part's own statistics and settings in the Parquet metadata.
_METADATA = b"specialize_jax"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the content of a part depends on, besides its records; small, and it pickles.

    Attributes:
      mode: of `alignment.transfer`.
      k_out: entries kept per student token, at least 1.
      student_tokenizer: path of the student's SentencePiece model.
      student_sha256: of that file.
      teacher_tokenizer: path of the teacher's tokenizer, to check the records' tokens; or None.
      teacher_sha256: of that file, or None.
      on_error: what a bad row does: "fail", or "skip", which leaves it out and lists it.
    """

    mode: str
    k_out: int
    student_tokenizer: str
    student_sha256: str
    teacher_tokenizer: str | None = None
    teacher_sha256: str | None = None
    on_error: str = "fail"

    @classmethod
    def load(
        cls,
        *,
        mode: str,
        k_out: int,
        student_tokenizer: str,
        teacher_tokenizer: str | None = None,
        on_error: str = "fail",
    ) -> "Settings":
        """Returns settings after reading the tokenizers.

        Raises:
          ValueError: an unknown mode or value of `on_error`, `k_out` below 1, a student that is no
            SentencePiece model; as `tokenizers.load`.
        """
        if k_out < 1:
            raise ValueError(f"--k_out: expected at least 1, got {k_out}")
        if mode not in alignment.MODES:
            raise ValueError(f"mode must be one of {', '.join(alignment.MODES)}, got {mode!r}")
        faults.check_on_error(on_error)
        student = _load(student_tokenizer)
        if not isinstance(student, tokenizers.SentencePieceTokenizer):
            raise ValueError(
                f"--student_tokenizer: expected a SentencePiece .model, got '{student_tokenizer}'"
            )
        teacher = _load(teacher_tokenizer) if teacher_tokenizer else None
        return cls(
            mode,
            k_out,
            student_tokenizer,
            student.sha256,
            teacher_tokenizer,
            teacher.sha256 if teacher else None,
            on_error,
        )

    @property
    def student(self) -> tokenizers.Tokenizer:
        """The student's tokenizer, loaded once per process."""
        return _load(self.student_tokenizer)

    @property
    def teacher(self) -> tokenizers.Tokenizer | None:
        """The teacher's tokenizer, if one is named."""
        return _load(self.teacher_tokenizer) if self.teacher_tokenizer else None

    def identity(self) -> dict[str, Any]:
        """Returns what makes two parts the same work: hashes instead of paths."""
        return {
            "mode": self.mode,
            "k_out": self.k_out,
            "student": self.student_sha256,
            "teacher": self.teacher_sha256,
            "on_error": self.on_error,
        }


@functools.lru_cache(maxsize=4)
def _load(path: str) -> tokenizers.Tokenizer:
    return tokenizers.load(path)


def align_part(
    source: epath.PathLike,
    target: epath.PathLike,
    settings: Settings,
    *,
    source_sha256: str | None = None,
    executor: concurrent.futures.Executor | None = None,
) -> dict[str, Any]:
    """Aligns one part, unless that was done before.

    Args:
      source: Parquet file of `schemas.records`, local or remote.
      target: Parquet file of `schemas.aligned` to write; it is there whole or not at all.
      settings: what to do.
      source_sha256: the hash that the records' info file vouches for; None: not checked.
      executor: processes for the work on the host; None: this one. The part is the same.

    Returns:
      What a part says of itself, as JSON: `settings` (with the hash of the records), `rows`
      written, `totals` (of `totals.Totals`), `examples` (the worst rendered ones) and
      `skipped` (the bad rows that were left out: `row`, `example_id`, `sample_id`, `error`).

    Raises:
      SchemaError: the source is damaged or a row is bad; the target was made with other settings or
        from other records.
    """
    source, target = epath.Path(source), epath.Path(target)
    if source_sha256 is None:
        source_sha256 = folders.sha256(source)
    else:
        folders.check_hash(source, {"sha256": source_sha256})
    wanted = {**settings.identity(), "records": source_sha256}
    kept = _finished(target, wanted)
    if kept is not None:
        return kept
    table = folders.read_table(source, records.ARROW_SCHEMA)
    columns, skipped = checks.checked(
        table, f"'{source}'", settings.teacher, skip=settings.on_error == "skip"
    )
    targets = modes.align(
        columns, settings.student, mode=settings.mode, k_out=settings.k_out, executor=executor
    )
    return _write(target, columns, targets, {"settings": wanted, "skipped": skipped}, settings)


def check_info(info: dict[str, Any], settings: Settings, where: str) -> None:
    """Checks that records were made with the teacher tokenizer of the settings.

    Args:
      info: the records' info file.
      settings: the settings.
      where: named in the error.

    Raises:
      SchemaError: both hashes are known and differ.
    """
    recorded = info.get("tokenizer") or {}
    sha256 = recorded.get("sha256")
    if sha256 and settings.teacher_sha256 and sha256 != settings.teacher_sha256:
        raise SchemaError(
            f"{where}: the records' tokens are those of '{recorded.get('name')}' with SHA-256 "
            f"{sha256}, but --teacher_tokenizer '{settings.teacher_tokenizer}' has "
            f"{settings.teacher_sha256}"
        )


def _finished(path: epath.Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what a finished part says of itself; None when it has to be made.

    Raises:
      SchemaError: the part was made with other settings or from other records.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            metadata = pq.read_schema(file).metadata or {}
    except pa.ArrowInvalid as error:
        raise SchemaError(f"'{path}' is no complete Parquet file; remove it: {error}") from error
    if _METADATA not in metadata:
        raise SchemaError(f"'{path}' is no part that `align` made; give another --out")
    kept = json.loads(metadata[_METADATA])
    if changed := folders.differences(kept["settings"], wanted):
        raise SchemaError(
            f"'{path}' was made with other settings ({changed}); give another --out, or remove the "
            "folder"
        )
    return kept


def _write(
    path: epath.Path,
    columns: Columns,
    targets: Targets,
    kept: dict[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    totals = Totals.of(targets.soft, len(columns), int(columns.has_logprobs.sum()))
    kept = {
        **kept,
        "rows": len(columns),
        "totals": totals.to_json(),
        "examples": rendered(columns, targets, settings.student),
    }
    schema = aligned.arrow_schema(settings.k_out, settings.student.vocab_size)
    table = aligned.columns_to_table(
        columns.texts(), targets.ids, targets.soft, targets.offsets, schema
    )
    aligned.check_table(table, f"'{path}'")
    content = json.dumps(kept, ensure_ascii=False)
    metadata = {_METADATA: content.encode()}
    folders.write_table(path, table.replace_schema_metadata(metadata))
    return json.loads(content)
