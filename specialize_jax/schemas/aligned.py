"""Aligned examples: an answer in student tokens, with the teacher's distribution where it fits.

Letters: `S` student tokens of a target (end of sequence included), `K_out` entries per token.

A folder holds Parquet parts, a copy of the student tokenizer's file, and `alignment_info.json`
(`apps.align` writes it): mode, `k_out`, tokenizers with hashes, coverage, retained mass (before any
renormalisation), positions by reason, the same by source, shards, and rendered worst examples.
`soft[s]` is the distribution of `targets[s]` given `targets[<s]`.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from specialize_jax.schemas.targets import (
    UNUSED_LOGPROB,
    Kind,
    Reason,
    SchemaError,
    SparseTargets,
)

NAME = "aligned_examples"
TEXT_COLUMNS = ("example_id", "sample_id", "question", "gold_answer", "targets_pretokenized")
# float16 log-probabilities may lift the mass of a row by this much.
_MASS_TOLERANCE = 4e-3


def arrow_schema(k_out: int, vocab_size: int) -> pa.Schema:
    """Returns the columns of a part.

    Args:
      k_out: entries kept per student token.
      vocab_size: of the student; ids are uint16 up to 65,536 and uint32 above.
    """
    ids = pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()
    return pa.schema(
        [
            ("example_id", pa.string()),
            ("sample_id", pa.int32()),
            ("question", pa.string()),
            ("gold_answer", pa.string()),
            ("targets_pretokenized", pa.string()),
            ("targets", pa.list_(pa.int32())),
            ("soft_ids", pa.list_(pa.list_(ids, k_out))),
            ("soft_logprobs", pa.list_(pa.list_(pa.float16(), k_out))),
            ("soft_tail_logprob", pa.list_(pa.float16())),
            ("soft_kind", pa.list_(pa.uint8())),
            ("soft_reason", pa.list_(pa.uint8())),
        ]
    )


def to_table(
    texts: list[dict[str, Any]],
    targets: list[np.ndarray],
    soft: list[SparseTargets],
    schema: pa.Schema,
) -> pa.Table:
    """Builds the table of one part.

    Args:
      texts: rows of the string columns and `sample_id`.
      targets: [S] int per row.
      soft: [S, K_out] per row.
      schema: of `arrow_schema`.
    """
    columns = {name: [row[name] for row in texts] for name in TEXT_COLUMNS}
    k_out = schema.field("soft_ids").type.value_type.list_size
    empty = SparseTargets(np.zeros((0, k_out)), np.zeros((0, k_out)), *(np.zeros(0),) * 3)
    return columns_to_table(
        {name: pa.array(values, schema.field(name).type) for name, values in columns.items()},
        np.concatenate([np.zeros(0, np.int32), *targets]),
        SparseTargets(*map(np.concatenate, zip(empty, *soft, strict=True))),
        np.cumsum([0, *map(len, targets)]),
        schema,
    )


def columns_to_table(
    texts: dict[str, pa.Array],
    targets: np.ndarray,
    soft: SparseTargets,
    offsets: np.ndarray,
    schema: pa.Schema,
) -> pa.Table:
    """Builds the table of one part from its columns.

    Args:
      texts: the columns `TEXT_COLUMNS`, a value per example.
      targets: [S of all examples] int.
      soft: [S of all examples, K_out].
      offsets: [examples + 1] int; where the tokens of each start.
      schema: of `arrow_schema`.
    """
    soft_type = schema.field("soft_ids").type.value_type
    k_out, id_dtype = soft_type.list_size, pa.array([], soft_type.value_type).to_numpy().dtype
    ends = pa.array(offsets, pa.int32())

    def ragged(values: np.ndarray, dtype: Any, *, per_token: bool = False) -> pa.Array:
        array = pa.array(np.ascontiguousarray(values.astype(dtype).reshape(-1)))
        if per_token:
            array = pa.FixedSizeListArray.from_arrays(array, k_out)
        return pa.ListArray.from_arrays(ends, array)

    arrays = [
        *(texts[name] for name in TEXT_COLUMNS),
        ragged(targets, np.int32),
        ragged(soft.ids, id_dtype, per_token=True),
        ragged(soft.logprobs, np.float16, per_token=True),
        ragged(soft.tail_logprob, np.float16),
        ragged(soft.kind, np.uint8),
        ragged(soft.reason, np.uint8),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows of a part: strings, `targets` [S] int32, `soft` a `SparseTargets`."""
    lists, offsets = _flat(table)
    texts = table.select(TEXT_COLUMNS).to_pylist()
    rows = []
    for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
        here = {name: values[start:end] for name, values in lists.items()}
        rows.append({**text, "targets": here["targets"], "soft": _soft(here)})
    return rows


def _flat(table: pa.Table) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the values of every column of lists, one row behind the other, and their offsets."""
    table = table.combine_chunks()
    lists = {}
    for name in table.schema.names[len(TEXT_COLUMNS) :]:
        empty = pa.array([], table.schema.field(name).type)
        column = table[name].chunk(0) if table.num_rows else empty
        values = column.flatten()
        if pa.types.is_fixed_size_list(values.type):
            width = values.type.list_size
            values = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        else:
            values = values.to_numpy(zero_copy_only=False)
        lists[name] = values
        offsets = column.offsets.to_numpy() - column.offsets[0].as_py()
    return lists, offsets


def _soft(lists: dict[str, np.ndarray]) -> SparseTargets:
    return SparseTargets(
        ids=lists["soft_ids"].astype(np.int32),
        logprobs=lists["soft_logprobs"].astype(np.float32),
        tail_logprob=lists["soft_tail_logprob"].astype(np.float32),
        kind=lists["soft_kind"].astype(np.int32),
        reason=lists["soft_reason"].astype(np.int32),
    )


def check_table(table: pa.Table, where: str) -> None:
    """Checks the sparse targets of a part as it will be read.

    Raises:
      SchemaError: as `check_soft`, with the row.
    """
    lists, offsets = _flat(table)
    soft = _soft(lists)
    try:
        check_soft(soft, lists["targets"], where)
    except SchemaError:
        # Told again by row.
        for number, row in enumerate(to_rows(table)):
            check_soft(row["soft"], row["targets"], f"{where} row {number}")
        raise


def check_soft(soft: SparseTargets, targets: np.ndarray, where: str) -> None:
    """Checks the sparse targets of one example.

    Raises:
      SchemaError: lengths differ, an id stands twice at a position, mass above 1, an unknown kind
        or reason, a kind without its reason, or a one-hot that is not the target.
    """

    def expect(good: Any, rule: str) -> None:
        bad = np.flatnonzero(~np.asarray(good))
        if bad.size:
            raise SchemaError(f"{where}, position {int(bad[0])}: {rule}")

    for name, value in soft._asdict().items():
        if len(value) != len(targets):
            raise SchemaError(f"{where}: {len(value)} {name} for {len(targets)} targets")
    used = soft.logprobs > UNUSED_LOGPROB / 2
    expect(np.isin(soft.kind, list(Kind)), "unknown kind")
    expect(np.isin(soft.reason, list(Reason)), "unknown reason")
    expect(soft.kind != Kind.PAD, "padding inside a target")
    expect((soft.kind == Kind.TRANSFERRED) == (soft.reason == Reason.NONE), "kind without reason")
    expect(np.where(used, True, soft.ids == 0).all(-1), "an unused slot holds an id other than 0")
    ids = np.sort(np.where(used, soft.ids, -1 - np.arange(soft.ids.shape[-1])), axis=-1)
    expect((np.diff(ids, axis=-1) != 0).all(-1), "an id stands twice")
    mass = np.where(used, np.exp(soft.logprobs), 0).sum(-1) + np.exp(soft.tail_logprob)
    expect(np.abs(mass - 1) < _MASS_TOLERANCE, "mass and tail do not sum to 1")
    one_hot = soft.kind != Kind.TRANSFERRED
    expect(~one_hot | ((soft.ids[:, 0] == targets) & (used.sum(-1) == 1)), "one-hot on another id")


def render_row(row: dict[str, Any]) -> str:
    """Returns a few lines that show an aligned example to a person."""
    kinds = row["soft"].kind
    covered = float(np.mean(kinds == Kind.TRANSFERRED)) if len(kinds) else 0.0
    return (
        f"{row['example_id']}/{row['sample_id']} ({len(kinds)} student tokens, "
        f"{covered:.0%} transferred)\n  target: {row['targets_pretokenized']!r}"
    )
