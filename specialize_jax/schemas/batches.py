"""The fields of a training batch, and the packed rows that it is read from.

Letters: `B` rows of a batch, `T` encoder length, `S` decoder length, `K` entries per target token.

Names follow seqio's feature converters. A packed row holds several examples one after another;
`*_segment_ids` counts them from 1 (0 is padding) and `*_positions` restarts at 0 in each. A
decoder-only student reads prompt and target in one: `decoder_causal_attention` is 1 where an input
token is of the prompt, and the tokens to be predicted weigh 0 as long as they are, too.

A packed folder holds ArrayRecord parts per split and `packed_info.json` (`data.packed` writes it).
A record is the row's fields in the order of `fields`, each as the raw little-endian bytes of its
storage type: random access and no parser, so that reading costs a copy.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

import numpy as np

from specialize_jax.schemas.targets import Format, Kind, SchemaError

NAME = "packed_rows"


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a batch.

    Attributes:
      dtype: in a batch.
      storage: on disk; narrower where nothing is lost that the aligned examples still had.
      shape: of one row, without `B`.
    """

    dtype: type[np.generic]
    storage: type[np.generic]
    shape: tuple[int, ...]


def fields(encoder_length: int, decoder_length: int, k: int, vocab_size: int) -> dict[str, Field]:
    """Returns the fields of a row, in the order in which they are stored.

    Args:
      encoder_length: T.
      decoder_length: S.
      k: K.
      vocab_size: of the student; ids are stored in 16 bits up to 65,536.
    """
    encoder = (encoder_length,)
    return {
        "encoder_input_tokens": Field(np.int32, _ids(vocab_size), encoder),
        "encoder_segment_ids": Field(np.int32, np.uint16, encoder),
        "encoder_positions": Field(np.int32, np.uint16, encoder),
        **_decoder_fields(decoder_length, k, vocab_size),
    }


def decoder_only_fields(length: int, k: int, vocab_size: int) -> dict[str, Field]:
    """Returns the fields of a decoder-only student's row, in the order in which they are stored.

    Args:
      length: S, prompt and target together.
      k: K.
      vocab_size: of the student.
    """
    return {
        **_decoder_fields(length, k, vocab_size),
        "decoder_causal_attention": Field(np.int32, np.uint8, (length,)),
    }


def _ids(vocab_size: int) -> type[np.generic]:
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _decoder_fields(length: int, k: int, vocab_size: int) -> dict[str, Field]:
    ids, decoder = _ids(vocab_size), (length,)
    return {
        "decoder_target_tokens": Field(np.int32, ids, decoder),
        "decoder_input_tokens": Field(np.int32, ids, decoder),
        "decoder_loss_weights": Field(np.float32, np.float32, decoder),
        "decoder_segment_ids": Field(np.int32, np.uint16, decoder),
        "decoder_positions": Field(np.int32, np.uint16, decoder),
        "decoder_soft_ids": Field(np.int32, ids, (length, k)),
        "decoder_soft_logprobs": Field(np.float32, np.float16, (length, k)),
        "decoder_soft_tail_logprob": Field(np.float32, np.float16, decoder),
        "decoder_soft_kind": Field(np.int32, np.uint8, decoder),
        "decoder_format": Field(np.int32, np.uint8, decoder),
    }


def encode_row(row: dict[str, np.ndarray], layout: dict[str, Field]) -> bytes:
    """Returns the record of one row."""
    return b"".join(
        np.ascontiguousarray(row[name], field.storage).tobytes() for name, field in layout.items()
    )


def decode_rows(records: list[bytes], layout: dict[str, Field]) -> dict[str, np.ndarray]:
    """Returns the batch of some records.

    Raises:
      SchemaError: a record is not as long as the layout says.
    """
    width = sum(math.prod(f.shape) * np.dtype(f.storage).itemsize for f in layout.values())
    for record in records:
        if len(record) != width:
            raise SchemaError(f"packed record: expected {width} bytes, got {len(record)}")
    block = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), width)
    batch, start = {}, 0
    for name, field in layout.items():
        size = math.prod(field.shape) * np.dtype(field.storage).itemsize
        raw = np.ascontiguousarray(block[:, start : start + size]).view(field.storage)
        batch[name] = raw.astype(field.dtype).reshape(len(records), *field.shape)
        start += size
    return batch


def check_batch(batch: dict[str, np.ndarray], layout: dict[str, Field], where: str) -> None:
    """Checks a batch: names, types, shapes, and what holds between the fields.

    Raises:
      SchemaError: the first broken rule.
    """

    def expect(condition: Any, rule: str) -> None:
        if not np.all(condition):
            raise SchemaError(f"{where}: {rule}")

    expect(set(batch) == set(layout), f"expected fields {sorted(layout)}, got {sorted(batch)}")
    rows = len(next(iter(batch.values())))
    for name, field in layout.items():
        got, want = batch[name], (rows, *field.shape)
        expect(got.shape == want, f"'{name}': expected shape {want}, got {got.shape}")
        expect(got.dtype == field.dtype, f"'{name}': expected {field.dtype}, got {got.dtype}")
    segments, kinds = batch["decoder_segment_ids"], batch["decoder_soft_kind"]
    expect((segments == 0) == (kinds == Kind.PAD), "soft kinds and decoder padding disagree")
    expect((batch["decoder_loss_weights"] > 0) <= (segments > 0), "a weight on padding")
    expect(np.isin(kinds, list(Kind)), "unknown soft kind")
    expect(np.isin(batch["decoder_format"], list(Format)), "unknown format")
    for side in _sides(layout):
        ids = batch[f"{side}_segment_ids"]
        expect((np.diff(ids, axis=1) >= 0) | (ids[:, 1:] == 0), f"{side} segments out of order")
    starts = batch["decoder_positions"] == 0
    if "decoder_causal_attention" not in layout:
        expect(~starts | (batch["decoder_input_tokens"] == 0), "a segment does not start from 0")
        return
    prompt = batch["decoder_causal_attention"]
    expect(np.isin(prompt, (0, 1)), "decoder_causal_attention: expected 0 or 1")
    expect((prompt == 0) | (segments > 0), "a prompt on padding")
    # What is read next is what is to be predicted now.
    next_is_prompt = (prompt[:, 1:] == 1) & ~starts[:, 1:]
    expect(~next_is_prompt | (prompt[:, :-1] == 1), "a prompt does not start its segment")
    weights = batch["decoder_loss_weights"]
    expect(~next_is_prompt | (weights[:, :-1] == 0), "a weight on the prompt")


def _sides(names: Collection[str]) -> list[str]:
    return [side for side in ("encoder", "decoder") if f"{side}_segment_ids" in names]


def row_at(batch: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """Returns one row of a batch."""
    return {name: value[index] for name, value in batch.items()}


def row_formats(row: dict[str, np.ndarray]) -> list[Format]:
    """Returns the formats of the examples of a row, in their order."""
    starts = (row["decoder_segment_ids"] > 0) & (row["decoder_positions"] == 0)
    return [Format(int(value)) for value in row["decoder_format"][starts]]


def render_row(batch: dict[str, np.ndarray], index: int, ids: list[str] | None = None) -> str:
    """Returns a line that shows a packed row, with the ids of its examples, to a person."""
    row = row_at(batch, index)
    labels = [fmt.label for fmt in row_formats(row)]
    names = labels if ids is None else [f"{i} {s}" for i, s in zip(ids, labels, strict=True)]
    real = [
        f"{(row[f'{side}_segment_ids'] > 0).mean():.0%} of the {side}" for side in _sides(batch)
    ]
    return f"row {index}: {len(names)} examples ({', '.join(names)}), {' and '.join(real)} filled"
