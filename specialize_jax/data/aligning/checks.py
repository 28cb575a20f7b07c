"""Bad records of a part, found by arrays and told by `schemas.records.check_row`.

The arrays only say which rows may be bad, and never miss one; what is wrong is then said by the one
definition of the rules. So a good part costs no Python object per token.

Letters: `R` records.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specialize_jax import tokenizers
from specialize_jax.data.aligning.columns import Columns, Lists, offsets_of
from specialize_jax.schemas import NO_LOGPROB, SchemaError, records

# Sums by arrays may differ from exact ones by rounding; what is near the limit is looked at.
_MASS_LOOKED_AT = 1 + 0.5 * records.MASS_TOLERANCE


def checked(
    table: pa.Table, where: str, teacher: tokenizers.Tokenizer | None = None, *, skip: bool = False
) -> tuple[Columns, list[dict[str, Any]]]:
    """Returns the columns of the good records, and what is wrong with the others.

    Args:
      table: of `schemas.records`.
      where: named in errors, as `'folder/part-00000.parquet'`.
      teacher: checks that the records' tokens are this tokenizer's; None: not checked.
      skip: whether bad records are left out and listed: `row`, `example_id`, `sample_id`, `error`.

    Raises:
      SchemaError: a record is bad, and `skip` is not set.
    """
    table = table.combine_chunks()
    suspects = np.flatnonzero(suspicious(table, teacher))
    skipped = []
    for number in suspects.tolist():
        row = table.slice(number, 1).to_pylist()[0]
        try:
            records.check_row(row, f"{where} row {number}")
            if teacher is not None:
                check_teacher_tokenizer(row, teacher, f"{where} row {number}")
        except SchemaError as error:
            if not skip:
                raise
            ids = {name: row[name] for name in ("example_id", "sample_id")}
            skipped.append({"row": number, **ids, "error": str(error)})
    if skipped:
        good = np.ones(table.num_rows, bool)
        good[[row["row"] for row in skipped]] = False
        table = table.filter(pa.array(good))
    return Columns(table), skipped


def check_teacher_tokenizer(row: dict[str, Any], teacher: tokenizers.Tokenizer, where: str) -> None:
    """Checks that the tokens of a record are tokens of this tokenizer.

    Raises:
      SchemaError: one is not; it and its place are named.
    """
    for step, token in enumerate(row["token_bytes"]):
        if not _is_token(token, teacher):
            raise SchemaError(
                f"{where} ({row['example_id']}/{row['sample_id']}): token {step}, {token!r}, "
                f"is no token of '{teacher.name}': these records were made with another one"
            )


def _is_token(token: bytes, teacher: tokenizers.Tokenizer) -> bool:
    if teacher.bytes_to_id(token) is not None:
        return True
    return teacher.piece_to_id(token.decode(errors="replace")) is not None


def suspicious(table: pa.Table, teacher: tokenizers.Tokenizer | None = None) -> np.ndarray:
    """Returns [R] bool, which records may be bad: all that are, and perhaps some more.

    Args:
      table: of `schemas.records`, in one piece.
      teacher: as `checked`.
    """
    if not _is_regular(table):
        return np.ones(table.num_rows, bool)
    columns = Columns(table)
    bad = np.zeros(len(columns), bool)
    row = np.repeat(np.arange(len(columns)), np.diff(columns.token_offsets))
    bad[row[_bad_steps(columns.topk, columns.topk_logprobs, columns.topk_offsets)]] = True
    bad[row[~(columns.token_logprobs <= records.MOST_LOGPROB)]] = True
    terminal = columns.terminal, columns.terminal_logprobs, columns.terminal_offsets
    bad |= _bad_steps(*terminal)
    if teacher is not None:
        sampled = np.zeros(len(columns.strings), bool)
        sampled[columns.tokens] = True
        foreign = [
            sampled[number] and not _is_token(string, teacher)
            for number, string in enumerate(columns.strings)
        ]
        bad[row[np.array(foreign, bool)[columns.tokens]]] = True
    return bad | _bad_targets(columns)


def _is_regular(table: pa.Table) -> bool:
    """Whether every record has all it must, lists fit each other, and tokens are the completion."""
    columns = {name: table[name].chunk(0) for name in table.column_names if table.num_rows}
    if not columns:
        return True
    if any(columns[name].null_count for name in records.REQUIRED):
        return False
    lists = {name: Lists(column) for name, column in columns.items() if _is_list(column)}
    steps = {name: Lists(lists[name].values) for name in ("topk_bytes", "topk_logprobs")}
    if any(part.values.null_count for part in [*lists.values(), *steps.values()]):
        return False
    tokens = lists["token_bytes"]
    same = [(tokens, lists[name]) for name in ("token_logprobs", "topk_bytes", "topk_logprobs")]
    same += [(steps["topk_bytes"], steps["topk_logprobs"])]
    same += [(lists["terminal_bytes"], lists["terminal_logprobs"])]
    if not all(np.array_equal(one.offsets, other.offsets) for one, other in same):
        return False
    if not columns["terminal_bytes"].is_null().equals(columns["terminal_logprobs"].is_null()):
        return False
    with_ids = columns["token_ids"].is_valid().to_numpy(zero_copy_only=False)
    if np.any((lists["token_ids"].lengths != tokens.lengths) & with_ids):
        return False
    start, end = (columns[f"target_token_{name}"].to_numpy() for name in ("start", "end"))
    some = tokens.lengths > 0
    if np.any((start < 0) | (start + some > end) | (end > tokens.lengths)):
        return False
    completions = columns["completion"].filter(pa.array(some))
    return _bytes(tokens.values) == _bytes(completions) and np.array_equal(
        offsets_of(pc.binary_length(tokens.values).to_numpy())[tokens.offsets[1:][some]],
        np.cumsum(pc.binary_length(completions).to_numpy()),
    )


def _is_list(column: pa.Array) -> bool:
    return pa.types.is_list(column.type)


def _bytes(values: pa.Array) -> bytes:
    """Returns the bytes of all strings in a row."""
    return b"".join(values.cast(pa.binary()).to_pylist())


def _bad_steps(names: np.ndarray, logprobs: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns [steps] bool: a log-probability out of range, too much mass, or a name twice."""
    counts = np.diff(offsets)
    step = np.repeat(np.arange(len(counts)), counts)
    good = (logprobs > NO_LOGPROB) & (logprobs <= records.MOST_LOGPROB)
    mass = np.exp(np.where(good, logprobs, 0.0).astype(np.float64))
    bad = np.bincount(step, mass, len(counts)) > _MASS_LOOKED_AT
    bad[step[~good]] = True
    slots = np.full((len(counts), int(counts.max(initial=0))), -1, np.int64)
    used = np.arange(slots.shape[1])[None, :] < counts[:, None]
    slots[used] = names
    slots = np.sort(slots, axis=-1)
    return bad | ((np.diff(slots, axis=-1) == 0) & (slots[:, 1:] >= 0)).any(-1)


def _bad_targets(columns: Columns) -> np.ndarray:
    """Returns [R] bool: a blank question, a blank target, or one that cuts a character."""
    questions = pc.utf8_trim_whitespace(columns.column("question"))
    blank = pc.equal(pc.binary_length(questions), 0).to_numpy(zero_copy_only=False)
    bad = np.array(blank, bool)
    for r, (completion, start, end) in enumerate(
        zip(columns.completions, *(b.tolist() for b in columns.target_bytes), strict=True)
    ):
        source = completion.encode()
        try:
            text = (
                source[start:end].decode()
                if columns.token_offsets[r + 1] > columns.token_offsets[r]
                else completion
            )
            bad[r] |= not text.strip()
        except UnicodeDecodeError:
            bad[r] = True
    return bad
