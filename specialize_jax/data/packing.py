"""Packing: several examples in one row of fixed lengths, soft targets included.

Lengths are those of the arrays. Nothing is inferred from values, because 0 is a legal value inside
an example: a candidate with id 0, a log-probability of 0.0. (seqio's packer counts non-zeros, casts
to int32 and refuses rank 2, which is why it is not used.)

Letters: `n` encoder tokens of an example, `m` target tokens, `K` entries per target token.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from specialize_jax.data import windowed
from specialize_jax.schemas import UNUSED_LOGPROB, Format, Kind, SparseTargets

Row = dict[str, np.ndarray]
# Beside the fields of a batch, a row may have the ids of its examples, [examples] of str.
EXAMPLE_IDS = "example_ids"


class Example(NamedTuple):
    """One example in tokens.

    Attributes:
      inputs: [n] int; encoder tokens.
      targets: [m] int; target tokens.
      soft: [m, K]; what the teacher says of each target.
      format: the data format.
      id: what names the example to a person; None where its task gives no `example_id`.
    """

    inputs: np.ndarray
    targets: np.ndarray
    soft: SparseTargets
    format: Format
    id: str | None = None


class Lengths(NamedTuple):
    """Lengths of a row.

    Attributes:
      inputs: encoder tokens.
      targets: decoder tokens.
    """

    inputs: int
    targets: int


def too_long(example: Example, lengths: Lengths) -> str | None:
    """Returns which feature fits no row, "inputs" or "targets"; None if the example fits."""
    if len(example.inputs) > lengths.inputs:
        return "inputs"
    return "targets" if len(example.targets) > lengths.targets else None


def truncate(example: Example, lengths: Lengths) -> Example:
    """Returns an example cut to fit: the start of the inputs goes, and the end of the targets.

    The question stands at the end of an encoder input, the exemplars before it.
    """
    keep = slice(0, lengths.targets)
    return example._replace(
        inputs=example.inputs[max(len(example.inputs) - lengths.inputs, 0) :],
        targets=example.targets[keep],
        soft=SparseTargets(*(value[keep] for value in example.soft)),
    )


def keep_largest(soft: SparseTargets, k: int) -> SparseTargets:
    """Keeps the k most probable entries of every position; the mass of the rest joins the tail.

    Args:
      soft: [m, K].
      k: at most K.

    Returns:
      [m, k].
    """
    order = np.argsort(-soft.logprobs, axis=-1, kind="stable")
    ids = np.take_along_axis(soft.ids, order, axis=-1)
    logprobs = np.take_along_axis(soft.logprobs, order, axis=-1)
    lost = np.logaddexp.reduce(logprobs[:, k:].astype(np.float64), axis=-1, initial=-np.inf)
    tail = np.maximum(np.logaddexp(soft.tail_logprob, lost), UNUSED_LOGPROB)
    return soft._replace(
        ids=ids[:, :k], logprobs=logprobs[:, :k], tail_logprob=tail.astype(np.float32)
    )


def build_row(examples: list[Example], lengths: Lengths, k: int) -> Row:
    """Lays examples one after another in a row of the batch contract (`schemas.batches`).

    Args:
      examples: together no longer than `lengths`. Where all have ids, the row has `EXAMPLE_IDS`.
      lengths: of the row.
      k: entries per target token.
    """
    ids = [example.id for example in examples]
    encoder = {
        name: np.zeros(lengths.inputs, np.int32)
        for name in ("encoder_input_tokens", "encoder_segment_ids", "encoder_positions")
    }
    decoder = {
        name: np.zeros(lengths.targets, np.int32)
        for name in (
            "decoder_target_tokens",
            "decoder_input_tokens",
            "decoder_segment_ids",
            "decoder_positions",
            "decoder_soft_kind",
            "decoder_format",
        )
    }
    weights = np.zeros(lengths.targets, np.float32)
    soft_ids = np.zeros((lengths.targets, k), np.int32)
    soft_logprobs = np.full((lengths.targets, k), UNUSED_LOGPROB, np.float32)
    soft_tail = np.full(lengths.targets, UNUSED_LOGPROB, np.float32)
    start_in = start_out = 0
    for segment, example in enumerate(examples, 1):
        here = slice(start_in, start_in + len(example.inputs))
        encoder["encoder_input_tokens"][here] = example.inputs
        encoder["encoder_segment_ids"][here] = segment
        encoder["encoder_positions"][here] = np.arange(len(example.inputs))
        there = slice(start_out, start_out + len(example.targets))
        decoder["decoder_target_tokens"][there] = example.targets
        # Each segment starts from 0, T5's start symbol, and never sees the segment before it.
        decoder["decoder_input_tokens"][start_out + 1 : there.stop] = example.targets[:-1]
        decoder["decoder_segment_ids"][there] = segment
        decoder["decoder_positions"][there] = np.arange(len(example.targets))
        decoder["decoder_soft_kind"][there] = example.soft.kind
        decoder["decoder_format"][there] = example.format
        weights[there] = 1.0
        soft_ids[there] = example.soft.ids
        soft_logprobs[there] = example.soft.logprobs
        soft_tail[there] = example.soft.tail_logprob
        start_in, start_out = here.stop, there.stop
    return {
        **encoder,
        **decoder,
        "decoder_loss_weights": weights,
        "decoder_soft_ids": soft_ids,
        "decoder_soft_logprobs": soft_logprobs,
        "decoder_soft_tail_logprob": soft_tail,
        **({} if None in ids else {EXAMPLE_IDS: np.array(ids, np.str_)}),
    }


def pack(
    examples: Iterable[Example], lengths: Lengths, k: int, *, window: int = 1024
) -> Iterator[Row]:
    """Packs examples into rows; see `windowed` for which share one.

    Args:
      examples: each no longer than `lengths` (see `too_long`).
      lengths: of a row.
      k: entries per target token.
      window: examples that wait at a time; more fill better and use more memory. 1 gives every
        example a row of its own.

    Yields:
      Rows; the examples of one stand in the order in which they came.

    Raises:
      ValueError: an example is longer than a row.
    """
    waiting: dict[int, Example] = {}

    def sizes() -> Iterator[tuple[int, int]]:
        for number, example in enumerate(examples):
            if feature := too_long(example, lengths):
                raise ValueError(
                    f"'{feature}' of {len(getattr(example, feature))} tokens in a row of "
                    f"{getattr(lengths, feature)}"
                )
            waiting[number] = example
            yield len(example.inputs), len(example.targets)

    for group in windowed.groups(sizes(), lengths, window=window):
        yield build_row([waiting.pop(number) for number in group], lengths, k)


def unpack(row: Row) -> list[Example]:
    """Returns the examples of a row: the inverse of `build_row`, for tests and for looking.

    Reasons are not part of a batch: those of the result are 0.
    """
    examples = []
    for segment in range(1, int(row["decoder_segment_ids"].max(initial=0)) + 1):
        here = row["encoder_segment_ids"] == segment
        there = row["decoder_segment_ids"] == segment
        soft = SparseTargets(
            row["decoder_soft_ids"][there],
            row["decoder_soft_logprobs"][there],
            row["decoder_soft_tail_logprob"][there],
            row["decoder_soft_kind"][there],
            np.zeros(int(there.sum()), np.int32),
        )
        examples.append(
            Example(
                row["encoder_input_tokens"][here],
                row["decoder_target_tokens"][there],
                soft,
                Format(int(row["decoder_format"][there][0])),
            )
        )
    return examples


def one_hot(targets: np.ndarray, k: int, kind: Kind, reason: int) -> SparseTargets:
    """Returns one-hot targets: what a target token without a teacher distribution gets.

    Args:
      targets: [m] int.
      k: entries per target token.
      kind: ONE_HOT or ANSWER_ONLY.
      reason: a `Reason`.
    """
    ids = np.zeros((len(targets), k), np.int32)
    logprobs = np.full((len(targets), k), UNUSED_LOGPROB, np.float32)
    ids[:, 0], logprobs[:, 0] = targets, 0.0
    fill = np.full(len(targets), UNUSED_LOGPROB, np.float32)
    whole = np.ones(len(targets), np.int32)
    return SparseTargets(ids, logprobs, fill, whole * kind, whole * reason)
