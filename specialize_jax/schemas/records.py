"""Teacher records: one sampled answer a row, in bytes, with the teacher's top-k at every step.

Letters: `T` teacher tokens of a completion, `K` candidates at a step (may vary, may be 0).

A folder holds Parquet parts that `datasets` reads, and `teacher_info.json`. They are named by
`datasets.load_dataset("parquet", data_files="DIR/part-*.parquet", split="train")`; by
`data_dir="DIR"` it would take the JSON files beside them, and DIR/wrong, for parts too.

| key                      | meaning                                                              |
|--------------------------|----------------------------------------------------------------------|
| `schema`, `version`      | "teacher_records", 1                                                 |
| `teacher`                | `name`, `revision` (null if unknown)                                 |
| `tokenizer`              | `name`, `sha256` of the teacher's tokenizer, null where unknown      |
| `k`                      | largest number of candidates at a step; 0 without log-probabilities  |
| `sampling`               | what was asked of the teacher (temperature, max_tokens, ...)         |
| `logprobs_temperature`   | temperature that the log-probabilities include; null if unknown      |
| `prompt_template_sha256` | of the prompt text; null if unknown                                  |
| `rows`, `dropped`        | rows kept; number dropped by reason                                  |
| `dropped_candidates`     | candidates without mass (p = 0, -inf, <= -9999), dropped from steps  |
| `shards`                 | `file`, `rows`, `sha256` of every part                               |
| `source`                 | where the records came from                                          |
| `filter`                 | what was kept: `teacher.filtering.Rules`, and flags                  |
| `summary`, `usage`, ...  | of a served teacher: how good it is, tokens and cost, limits         |
| `skipped`, `unjudged`    | of imports: what was wrong with bad lines, rows without a gold answer|
| `layout`, `file_sha256`  | of imports: how the file was read, and which it was                  |
"""

import itertools
import math
from typing import Any

import pyarrow as pa
from etils import epath

from specialize_jax.schemas import folders
from specialize_jax.schemas.targets import NO_LOGPROB, SchemaError

NAME = "teacher_records"

ARROW_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("sample_id", pa.int32()),
        ("question", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("gold_answer", pa.string()),
        ("answer", pa.string()),
        ("is_correct", pa.bool_()),
        ("token_bytes", pa.list_(pa.binary())),
        ("token_ids", pa.list_(pa.int32())),
        ("token_logprobs", pa.list_(pa.float32())),
        ("topk_bytes", pa.list_(pa.list_(pa.binary()))),
        ("topk_logprobs", pa.list_(pa.list_(pa.float32()))),
        ("target_token_start", pa.int32()),
        ("target_token_end", pa.int32()),
        ("terminal_bytes", pa.list_(pa.binary())),
        ("terminal_logprobs", pa.list_(pa.float32())),
    ]
)
_NULLABLE = {"gold_answer", "answer", "is_correct", "token_ids"} | {
    "terminal_bytes",
    "terminal_logprobs",
}
# Columns that are never null.
REQUIRED = tuple(name for name in ARROW_SCHEMA.names if name not in _NULLABLE)
# What float32 may add to a log-probability of 0, and to the mass of a step's candidates.
MOST_LOGPROB = 1e-6
MASS_TOLERANCE = 1e-5


def target_text(row: dict[str, Any]) -> str:
    """Returns the text that a student learns to write: a verbatim slice of the completion.

    Args:
      row: a teacher record. Without tokens the whole completion is the target.

    Raises:
      SchemaError: the bytes of the target tokens are not valid UTF-8.
    """
    if not row["token_bytes"]:
        return row["completion"]
    tokens = row["token_bytes"][row["target_token_start"] : row["target_token_end"]]
    try:
        return b"".join(tokens).decode()
    except UnicodeDecodeError as error:
        raise SchemaError(
            f"record {row['example_id']}/{row['sample_id']}: the target tokens "
            f"[{row['target_token_start']}:{row['target_token_end']}) cut a character: {error}"
        ) from error


def has_logprobs(row: dict[str, Any]) -> bool:
    """Returns whether a record carries the teacher's candidates."""
    return any(row["topk_logprobs"] or ())


def check_row(row: dict[str, Any], where: str = "record") -> None:
    """Checks one record against the contract.

    Args:
      row: column name -> Python value.
      where: named in the error, as `folder/part-…: row 3`.

    Raises:
      SchemaError: the first broken rule, with what was expected and what came.
    """

    def expect(condition: bool, rule: str) -> None:
        if not condition:
            raise SchemaError(f"{where} ({row['example_id']}/{row['sample_id']}): {rule}")

    for name in REQUIRED:
        expect(row[name] is not None, f"'{name}' must not be null")
    for name, field in zip(ARROW_SCHEMA.names, ARROW_SCHEMA, strict=True):
        if pa.types.is_list(field.type) and row[name] is not None:
            inner = (
                itertools.chain.from_iterable(filter(None, row[name]))
                if pa.types.is_list(field.type.value_type)
                else ()
            )
            expect(None not in [*row[name], *inner], f"'{name}' must not hold null")
    expect(bool(row["question"].strip()), "'question' is blank")
    tokens = len(row["token_bytes"])
    start, end = row["target_token_start"], row["target_token_end"]
    expect(0 <= start <= end <= tokens, f"target range [{start}, {end}) outside {tokens} tokens")
    for name in ("token_logprobs", "topk_bytes", "topk_logprobs"):
        expect(len(row[name]) == tokens, f"{len(row[name])} '{name}' for {tokens} tokens")
    if row["token_ids"] is not None:
        expect(len(row["token_ids"]) == tokens, f"{len(row['token_ids'])} ids, {tokens} tokens")
    if tokens:
        text = b"".join(row["token_bytes"])
        expect(
            text == row["completion"].encode(),
            f"the token bytes {text[:40]!r}… are not the completion {row['completion'][:40]!r}…",
        )
        expect(start < end, f"empty target range [{start}, {end})")
    expect(bool(target_text(row).strip()), "the target text is empty")
    for step, logprob in enumerate(row["token_logprobs"]):
        expect(
            logprob <= MOST_LOGPROB,
            f"step {step}: token_logprobs must be 0 at most, got {logprob} for "
            f"{row['token_bytes'][step]!r}",
        )
    terminal = row["terminal_bytes"], row["terminal_logprobs"]
    expect((terminal[0] is None) == (terminal[1] is None), "terminal_bytes without logprobs")
    lists = list(zip(row["topk_bytes"], row["topk_logprobs"], strict=True))
    steps = [(f"step {number}", *step) for number, step in enumerate(lists)]
    for place, names, logprobs in [*steps, ("terminal", terminal[0] or [], terminal[1] or [])]:
        expect(len(names) == len(logprobs), f"{place}: {len(names)} names, {len(logprobs)} p")
        expect(len(set(names)) == len(names), f"{place}: a candidate stands twice")
        for name, logprob in zip(names, logprobs, strict=True):
            expect(
                NO_LOGPROB < logprob <= MOST_LOGPROB,
                f"{place}: log-probabilities must be above {NO_LOGPROB:.0f} and 0 at most, got "
                f"{logprob} for {name!r}",
            )
        mass = math.fsum(map(math.exp, logprobs))
        expect(mass <= 1 + MASS_TOLERANCE, f"{place}: candidate mass {mass:.6f} is above 1")


def write_part(path: epath.PathLike, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Checks rows, writes them as one part, and returns the part's entry for the info file."""
    for number, row in enumerate(rows):
        check_row(row, f"'{path}' row {number}")
    folders.write_table(path, pa.Table.from_pylist(rows, schema=ARROW_SCHEMA))
    return folders.part_entry(path, len(rows))


def render_row(row: dict[str, Any]) -> str:
    """Returns a few lines that show a record to a person."""
    verdict = {True: "right", False: "wrong", None: "not judged"}[row["is_correct"]]
    return (
        f"{row['example_id']}/{row['sample_id']} ({verdict}, gold {row['gold_answer']}, "
        f"{len(row['token_bytes'])} tokens)\n"
        f"  Q: {row['question']!r}\n  target: {target_text(row)!r}"
    )
