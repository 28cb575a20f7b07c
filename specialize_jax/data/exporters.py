"""Aligned examples in the field names of other trainers.

`axolotl`: what the KD plugin of axolotl-ai-cloud/axolotl trains on (read at commit 067b021,
integrations/kd/collator.py, trainer.py and kernels/liger.py), tokenised beforehand. Its trainer
compares row `t` of the targets with the logits at position `t`, unshifted, so row `t` holds the
distribution of token `t + 1`. (Up to v0.9.2 it shifted, and row `t` held that of token `t`.)

| field              | per row    | holds                                                         |
|--------------------|------------|---------------------------------------------------------------|
| `input_ids`        | [N] int32  | prompt, then the target with its end-of-sequence token        |
| `attention_mask`   | [N] int8   | 1                                                             |
| `labels`           | [N] int32  | -100 in the prompt, else `input_ids`; the trainer shifts them |
| `target_token_ids` | [N, K] int32   | student ids                                               |
| `target_logprobs`  | [N, K] float32 | natural logarithms; a one-hot is its token at 0.0         |
| `target_mask`      | [N, K] int8    | 1 in used slots; unused ones hold id 0 and -1e9           |

Letters: `P` prompt tokens, `S` target tokens, `N = P + S`, `K` entries kept per student token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from specialize_jax import tokenizers
from specialize_jax.data import formats
from specialize_jax.schemas import UNUSED_LOGPROB, Format, Kind, SchemaError, SparseTargets

# What axolotl's collator itself puts in unused slots, and what its losses leave out.
PADDING_LOGPROB = -1e9
IGNORED_LABEL = -100
TAILS = ("renormalize", "drop")

AXOLOTL_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("labels", pa.list_(pa.int32())),
        ("target_token_ids", pa.list_(pa.list_(pa.int32()))),
        ("target_logprobs", pa.list_(pa.list_(pa.float32()))),
        ("target_mask", pa.list_(pa.list_(pa.int8()))),
    ]
)


class Exported(NamedTuple):
    """Some rows in the other trainer's form, and what became of the mass.

    Attributes:
      table: one row per example, in their order.
      transferred: tokens with the teacher's distribution.
      one_hots: tokens without.
      tail: summed mass that the teacher's distributions had outside their entries.
    """

    table: pa.Table
    transferred: int
    one_hots: int
    tail: float


def to_axolotl(
    rows: Sequence[dict[str, Any]],
    tokenizer: tokenizers.Tokenizer,
    *,
    tail: str = "renormalize",
    bos_id: int | None = None,
) -> Exported:
    """Returns aligned examples as axolotl's KD plugin reads them.

    The prompt is that of the zero-shot chain-of-thought format. Its loss has no bucket for a tail:
    per token it is the sum of `p_k log(p_k / q_k)` over the entries.

    Args:
      rows: of `schemas.aligned.to_rows`.
      tokenizer: the student's.
      tail: `renormalize` divides the listed mass to 1, as axolotl does with what it reads from
        servers; `drop` leaves the log-probabilities as they are.
      bos_id: put before the prompt where the model wants one.

    Raises:
      ValueError: an unknown `tail`, a `bos_id` outside the vocabulary.
      SchemaError: an example has no tokens before its target, so none could predict its first.
    """
    if tail not in TAILS:
        raise ValueError(f"tail must be one of {', '.join(TAILS)}, got {tail!r}")
    if bos_id is not None and not 0 <= bos_id < tokenizer.vocab_size:
        raise ValueError(f"bos_id must be in [0, {tokenizer.vocab_size}), got {bos_id}")
    before = [] if bos_id is None else [bos_id]
    columns: dict[str, list[Any]] = {name: [] for name in AXOLOTL_SCHEMA.names}
    transferred = one_hots = 0
    lost = 0.0
    for row in rows:
        question = formats.render_inputs(Format.ZERO_SHOT_CHAIN_OF_THOUGHT, row["question"])
        prompt = [*before, *tokenizer.encode(question)]
        if not prompt:
            raise SchemaError(f"{row['example_id']}/{row['sample_id']}: the prompt has no tokens")
        for name, value in _axolotl_row(prompt, row["targets"], row["soft"], tail).items():
            columns[name].append(value)
        is_transferred = row["soft"].kind == Kind.TRANSFERRED
        transferred += int(is_transferred.sum())
        one_hots += int((~is_transferred).sum())
        lost += float(np.exp(row["soft"].tail_logprob[is_transferred]).sum())
    return Exported(pa.table(columns, AXOLOTL_SCHEMA), transferred, one_hots, lost)


def _axolotl_row(
    prompt: Sequence[int], targets: np.ndarray, soft: SparseTargets, tail: str
) -> dict[str, list[Any]]:
    used = soft.logprobs > UNUSED_LOGPROB / 2
    logprobs = np.where(used, soft.logprobs, PADDING_LOGPROB).astype(np.float32)
    if tail == "renormalize":
        listed = np.log(np.exp(logprobs).sum(-1, keepdims=True))
        logprobs = np.where(used, np.minimum(logprobs - listed, 0.0), logprobs)
    # Token `s` of the target is predicted one position before it stands; the last predicts none.
    at = slice(len(prompt) - 1, len(prompt) - 1 + len(targets))

    def placed(values: np.ndarray, fill: float) -> list[Any]:
        shape = (len(prompt) + len(targets), values.shape[-1])
        whole = np.full(shape, fill, values.dtype)
        whole[at] = values
        return whole.tolist()

    input_ids = [*prompt, *targets.tolist()]
    return {
        "input_ids": input_ids,
        "attention_mask": [1] * len(input_ids),
        "labels": [IGNORED_LABEL] * len(prompt) + targets.tolist(),
        "target_token_ids": placed(soft.ids, 0),
        "target_logprobs": placed(logprobs, PADDING_LOGPROB),
        "target_mask": placed(used.astype(np.int8), 0),
    }
