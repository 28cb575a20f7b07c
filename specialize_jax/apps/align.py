"""`specialize-jax align`: teacher records become aligned examples in the student's tokens."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from specialize_jax import tokenizers
from specialize_jax.apps import progress, provenance
from specialize_jax.data import alignment_job
from specialize_jax.data.alignment_job import Aligned, Totals
from specialize_jax.schemas import SchemaError, aligned, folders, records

EPILOG = """\
example:
  specialize-jax align \\
      --records out/line/records/gsm8k --records out/line/records/codex_top5_steps \\
      --teacher_tokenizer ../shared/data/tokenizer_tiktoken/p50k_base.tiktoken \\
      --student_tokenizer ../shared/data/tokenizer_t5/spiece.model \\
      --mode one_to_one --out out/line/aligned"""
TOKENIZER_FILE = "student_tokenizer.model"
_EXAMPLES_KEPT = 20
# Key of the part's own statistics and settings in the Parquet metadata.
_METADATA = b"specialize_jax"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--records",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of teacher records; repeatable. The first chain of a question also serves "
        "as its exemplar and gives the answer-only formats their answer",
    )
    parser.add_argument("--student_tokenizer", required=True, metavar="FILE", help="spiece.model")
    parser.add_argument(
        "--teacher_tokenizer",
        metavar="FILE",
        help="checks that the records' tokens are this tokenizer's (p50k_base.tiktoken)",
    )
    parser.add_argument(
        "--mode",
        default="one_to_one",
        help="how distributions are carried over: one_to_one, the published rule; soft, "
        "FuseLLM's, which takes a string for the nearest student token; marginal, what the "
        "teacher's candidates imply for the next student token",
    )
    parser.add_argument("--k_out", type=int, default=8, help="entries kept per student token")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def main(args: argparse.Namespace) -> int:
    """Aligns every part; finished parts of an interrupted run are kept."""
    if args.k_out < 1:
        raise ValueError(f"--k_out: expected at least 1, got {args.k_out}")
    student = tokenizers.load(args.student_tokenizer)
    if not isinstance(student, tokenizers.SentencePieceTokenizer):
        raise ValueError(
            f"--student_tokenizer: expected a SentencePiece .model, got '{args.student_tokenizer}'"
        )
    teacher = tokenizers.load(args.teacher_tokenizer) if args.teacher_tokenizer else None
    infos = {folder: folders.read_info(folder, records.NAME) for folder in args.records}
    out = folders.make_folder(args.out)
    schema = aligned.arrow_schema(args.k_out, student.vocab_size)
    settings = {"mode": args.mode, "k_out": args.k_out, "student": student.sha256}

    done = progress.bar("align", sum(info["rows"] for info in infos.values()))
    shards: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    by_source: dict[str, Totals] = {}
    for folder, info in infos.items():
        totals = by_source.setdefault(folder, Totals())
        for entry, table in folders.read_parts(folder, info, records.ARROW_SCHEMA):
            path = out / folders.part_name(len(shards))
            wanted = {**settings, "records": entry["sha256"]}
            kept = _finished(path, wanted)
            if kept is None:
                rows = table.to_pylist()
                _check_rows(rows, f"'{folder}/{entry['file']}'", teacher)
                batch = alignment_job.align_rows(rows, student, mode=args.mode, k_out=args.k_out)
                kept = _write(path, batch, wanted, schema, student)
            totals.merge(Totals.from_json(kept["totals"]))
            examples = _worst(examples + kept["examples"])
            shards.append(folders.part_entry(path, table.num_rows))
            done(table.num_rows)
    everything = Totals()
    for totals in by_source.values():
        everything.merge(totals)
    tokenizer_path = out / TOKENIZER_FILE
    folders.write_bytes(tokenizer_path, epath.Path(args.student_tokenizer).read_bytes())
    content = {
        "schema": aligned.NAME,
        "version": folders.VERSION,
        "mode": args.mode,
        "k_out": args.k_out,
        "student_tokenizer": {
            "file": TOKENIZER_FILE,
            "name": student.name,
            "sha256": folders.sha256(tokenizer_path),
            "vocab_size": student.vocab_size,
        },
        "teacher_tokenizer": {"name": teacher.name, "sha256": teacher.sha256} if teacher else None,
        "teachers": [
            {name: info.get(name) for name in ("teacher", "tokenizer", "sampling", "k", "source")}
            for info in infos.values()
        ],
        **everything.summary(),
        "by_source": {folder: totals.summary() for folder, totals in by_source.items()},
        "shards": shards,
        "examples": examples,
    }
    # The info file comes last: it says that the folder is finished.
    provenance.write(out, "align")
    folders.write_json(out / folders.INFO_FILES[aligned.NAME], content)
    _print(content)
    return 0


def _check_rows(
    rows: Sequence[dict[str, Any]], where: str, teacher: tokenizers.Tokenizer | None
) -> None:
    for number, row in enumerate(rows):
        records.check_row(row, f"{where} row {number}")
    if teacher is not None:
        alignment_job.check_teacher_tokenizer(rows, teacher, where)


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
    kept = json.loads(metadata.get(_METADATA, b"{}"))
    if kept.get("settings") != wanted:
        raise SchemaError(
            f"'{path}' was made with other settings: expected {wanted}, got "
            f"{kept.get('settings')}; give another --out, or remove the folder"
        )
    return kept


def _write(
    path: epath.Path,
    batch: Sequence[Aligned],
    settings: dict[str, Any],
    schema: pa.Schema,
    student: tokenizers.Tokenizer,
) -> dict[str, Any]:
    totals = Totals()
    for example in batch:
        totals.add(example)
    with_teacher = [example for example in batch if len(example.retained)]
    with_teacher.sort(key=lambda example: len(example.retained) / len(example.targets))
    shown = [alignment_job.render(e, student) for e in with_teacher[:_EXAMPLES_KEPT]]
    kept = {"settings": settings, "totals": totals.to_json(), "examples": shown}
    table = aligned.to_table(
        [example.text for example in batch],
        [example.targets for example in batch],
        [example.soft for example in batch],
        schema,
    )
    for number, row in enumerate(aligned.to_rows(table)):
        aligned.check_soft(row["soft"], row["targets"], f"'{path}' row {number}")
    metadata = {_METADATA: json.dumps(kept, ensure_ascii=False).encode()}
    folders.write_table(path, table.replace_schema_metadata(metadata))
    return kept


def _worst(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(examples, key=lambda example: example["coverage"])[:_EXAMPLES_KEPT]


def _print(info: dict[str, Any]) -> None:
    for title, numbers in [*info["by_source"].items(), ("all", info)]:
        mass = numbers["retained_mass"]
        mass_text = "" if mass is None else f", retained mass {mass:.3f}"
        print(
            f"{title}: {numbers['rows']} examples ({numbers['rows_with_logprobs']} with "
            f"log-probabilities), {numbers['cot_tokens']} tokens, "
            f"coverage {numbers['coverage']:.2%}{mass_text}"
        )
        for reason, number in numbers["reasons"].items():
            print(f"  one-hot, {reason}: {number} ({numbers['one_hot_rate'][reason]:.2%})")
