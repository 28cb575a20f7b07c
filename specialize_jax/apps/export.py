"""`specialize-jax export`: aligned examples, or records, as one file that another trainer reads."""

import argparse
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from specialize_jax import tokenizers
from specialize_jax.apps import export_text, progress
from specialize_jax.data import exporters, text_exporters
from specialize_jax.schemas import SchemaError, aligned, folders

EPILOG = """\
examples:
  specialize-jax export --to axolotl out/line/aligned --out out/line/axolotl.parquet
  specialize-jax export --to trl --form messages out/records --out sft.parquet
  specialize-jax export --to trl --form preference out/records --out dpo.jsonl

kd (axolotl, of aligned examples): the rows of its KD plugin (v0.10.0 and later), tokenised
beforehand, for a decoder-only student with the tokenizer of the folder: `path: FILE`, `ds_type:
parquet` (or json), an empty `type:`, and kd_temperature 1. The prompt is `Q: question` and `Let's
think step by step`.
  input_ids, attention_mask, labels  prompt and target; labels are -100 in the prompt
  target_token_ids, target_logprobs  row t: the distribution of token t + 1, K entries; a token
                                     without the teacher's distribution is itself at 0.0, whose KL
                                     is the cross-entropy
  target_mask                        1 in used slots
Set kd_normalize_topk: false, or the student is renormalised over unused slots too. The tail has no
field; how much it was is printed. Strings, reasons and kinds stay in the folder: axolotl's collator
takes numbers only. No example is left out.

The other forms are text, of teacher records:
  trl prompt_completion      prompt, completion (SFTTrainer); --chat: lists of messages
  trl, axolotl messages      messages (SFTTrainer, GKDTrainer, GOLDTrainer; type: chat_template)
  axolotl alpaca             instruction, input (empty), output (type: alpaca)
  trl, axolotl preference    prompt, chosen, rejected: right chains and the wrong ones of DIR/wrong
                             (collect or import with --keep_wrong) or --wrong; (DPOTrainer; type:
                             chatml.prompt_pairs; --chat: type: chat_template.default)"""
KD = "kd"
FORMATS = {"axolotl": KD, "trl": "prompt_completion"}
"""Whose field names, and the form that is written if none is named."""
_SUFFIXES = (".parquet", ".jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("folder", metavar="DIR", help="aligned examples (kd), or teacher records")
    parser.add_argument("--to", required=True, choices=tuple(FORMATS), help="whose field names")
    parser.add_argument("--out", required=True, metavar="FILE", help="a new .parquet or .jsonl")
    parser.add_argument(
        "--form", metavar="FORM", help="see below (default: kd for axolotl, prompt_completion)"
    )
    group = parser.add_argument_group("--form kd")
    group.add_argument(
        "--tail",
        default="renormalize",
        choices=exporters.TAILS,
        help="mass outside the entries: renormalize divides it away, as axolotl does with what "
        "servers say; drop leaves the entries as they are, summing to less than 1",
    )
    group.add_argument(
        "--bos_id", type=int, metavar="ID", help="put before every prompt (T5's has none)"
    )
    export_text.add_arguments(parser.add_argument_group("the other forms"))


def main(args: argparse.Namespace) -> int:
    """Writes the file, whole or not at all."""
    out = epath.Path(args.out)
    if out.suffix not in _SUFFIXES:
        raise ValueError(f"--out: expected a file in {' or '.join(_SUFFIXES)}, got '{args.out}'")
    if out.exists():
        raise ValueError(f"--out: '{out}' exists; remove it, or give another name")
    form = args.form or FORMATS[args.to]
    if (args.to, form) != ("axolotl", KD):
        found = text_exporters.find(args.to, form, chat=args.chat)
        if args.bos_id is not None:
            raise ValueError(f"--bos_id: goes with --form {KD} only")
        rows = export_text.Rows(args, found, form == text_exporters.PREFERENCE)
        _write(out, rows.tables(), found.schema)
        print(f"{rows.written} rows in {out}{rows.left_out()}")
        return 0
    info = folders.read_info(args.folder, aligned.NAME)
    totals = {"rows": 0, "transferred": 0, "one_hots": 0, "tail": 0.0}
    _write(out, _tables(args, info, totals), exporters.AXOLOTL_SCHEMA)
    _print(out, totals, args.tail)
    return 0


def _tables(
    args: argparse.Namespace, info: dict[str, Any], totals: dict[str, Any]
) -> Iterator[pa.Table]:
    """Yields the rows of each part, checked, and adds up what became of them."""
    student = info["student_tokenizer"]
    path = epath.Path(args.folder) / student["file"]
    folders.check_hash(path, student)
    tokenizer = tokenizers.load(path)
    done = progress.bar("export", sum(entry["rows"] for entry in info["shards"]))
    schema = aligned.arrow_schema(info["k_out"], student["vocab_size"])
    for entry, table in folders.read_parts(args.folder, info, schema):
        rows = aligned.to_rows(table)
        for number, row in enumerate(rows):
            where = f"'{args.folder}/{entry['file']}' row {number}"
            aligned.check_soft(row["soft"], row["targets"], where)
        part = exporters.to_axolotl(rows, tokenizer, tail=args.tail, bos_id=args.bos_id)
        totals["rows"] += len(rows)
        totals["transferred"] += part.transferred
        totals["one_hots"] += part.one_hots
        totals["tail"] += part.tail
        done(len(rows))
        yield part.table


def _write(out: epath.Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """Writes under a temporary name, a part at a time, and renames at the end."""
    folders.make_folder(out.parent)
    temporary = out.parent / f".{out.name}.{uuid.uuid4().hex}.tmp"
    writers: dict[str, Callable[[Any, Iterator[pa.Table], pa.Schema], None]] = {
        ".parquet": _write_parquet,
        ".jsonl": _write_jsonl,
    }
    try:
        with temporary.open("wb") as file:
            writers[out.suffix](file, tables, schema)
        temporary.rename(out)
    except OSError as error:
        raise SchemaError(f"cannot write '{out}': {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(file: Any, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)


def _write_jsonl(file: Any, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    for table in tables:
        for row in table.to_pylist():
            file.write(json.dumps(row).encode() + b"\n")


def _print(out: epath.Path, totals: Mapping[str, Any], tail: str) -> None:
    tokens = totals["transferred"] + totals["one_hots"]
    mean = totals["tail"] / max(totals["transferred"], 1)
    became = "divided away" if tail == "renormalize" else "left out"
    print(
        f"{totals['rows']} examples in {out}: {tokens} target tokens, {totals['transferred']} with "
        f"the teacher's distribution (of its mass {mean:.3f} in the tail, {became}), "
        f"{totals['one_hots']} one-hots"
    )
