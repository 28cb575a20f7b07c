"""The alignment of the offline job for records in Python: one row in, one aligned row out.

The job itself (`job`) never makes such rows; both run the same `modes`.

Letters: `S` student tokens of an example, `K_out` entries kept per student token.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from specialize_jax import tokenizers
from specialize_jax.data.aligning import modes
from specialize_jax.data.aligning.columns import Columns
from specialize_jax.schemas import NO_LOGPROB, SparseTargets
from specialize_jax.schemas.aligned import TEXT_COLUMNS
from specialize_jax.schemas.records import ARROW_SCHEMA


class Aligned(NamedTuple):
    """One aligned record.

    Attributes:
      text: the string columns of `schemas.aligned`.
      targets: [S] int32.
      soft: [S, K_out].
      ranges: [S, 2] int32; teacher tokens linked to each student token, counted from the start of
        the target; empty ranges without log-probabilities.
      record: the teacher record.
    """

    text: dict[str, Any]
    targets: np.ndarray
    soft: SparseTargets
    ranges: np.ndarray
    record: dict[str, Any]


def align_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: tokenizers.Tokenizer,
    *,
    mode: str,
    k_out: int,
) -> list[Aligned]:
    """Aligns teacher records, in their order.

    Args:
      rows: of `schemas.records`.
      tokenizer: the student's.
      mode: of `alignment.transfer`.
      k_out: entries kept per student token.

    Raises:
      ValueError: unknown mode.
    """
    columns = Columns(pa.Table.from_pylist(list(rows), schema=ARROW_SCHEMA))
    targets = modes.align(columns, tokenizer, mode=mode, k_out=k_out)
    ranges = modes.ranges(columns, targets, np.arange(len(rows)), tokenizer)
    texts = pa.table(columns.texts()).select(TEXT_COLUMNS).to_pylist()
    bounds = zip(targets.offsets[:-1].tolist(), targets.offsets[1:].tolist(), strict=True)
    return [
        Aligned(
            text,
            targets.ids[start:end],
            SparseTargets(*(value[start:end] for value in targets.soft)),
            here,
            row,
        )
        for text, (start, end), here, row in zip(texts, bounds, ranges, rows, strict=True)
    ]


def recorded(row: dict[str, Any]) -> tokenizers.Recorded:
    """Returns what `tokenizers.expand` reads of a record: the target's tokens and what ended it.

    White space behind the target that the target itself never holds, as two newlines, is taken for
    what ends this teacher's texts.
    """
    start, end = row["target_token_start"], row["target_token_end"]
    columns = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")
    candidates = []
    for token, logprob, names, logprobs in zip(
        *(row[name][start:] for name in columns), strict=True
    ):
        listed = dict(zip(names, map(math.exp, logprobs), strict=True))
        if token not in listed and logprob > NO_LOGPROB:
            listed[token] = math.exp(min(logprob, 0.0))
        candidates.append(listed)
    tokens = row["token_bytes"][start:]
    after = b"".join(row["token_bytes"][end:])
    is_stop = after.isspace() and after not in b"".join(row["token_bytes"][start:end])
    terminal = None
    if not after and row["terminal_bytes"]:
        terminal = dict(
            zip(row["terminal_bytes"], map(math.exp, row["terminal_logprobs"]), strict=True)
        )
    return tokenizers.Recorded(
        tokens,
        candidates,
        terminal,
        stop=after if is_stop else None,
        ended=row["finish_reason"] != "length",
    )
