"""The fields of a training batch, and the packed rows that it is read from.

Letters: `B` rows of a batch, `T` encoder length, `S` decoder length, `K` entries per target token.

Names follow seqio's feature converters. A packed row holds several examples one after another;
`*_segment_ids` counts them from 1 (0 is padding) and `*_positions` restarts at 0 in each.

A packed folder holds ArrayRecord parts per split and `packed_info.json` (`data.packed` writes it).
A record is the row's fields in the order of `fields`, each as the raw little-endian bytes of its
storage type: random access and no parser, so that reading costs a copy.
"""

import dataclasses
import math
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
    ids = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    encoder, decoder = (encoder_length,), (decoder_length,)
    return {
        "encoder_input_tokens": Field(np.int32, ids, encoder),
        "encoder_segment_ids": Field(np.int32, np.uint16, encoder),
        "encoder_positions": Field(np.int32, np.uint16, encoder),
        "decoder_target_tokens": Field(np.int32, ids, decoder),
        "decoder_input_tokens": Field(np.int32, ids, decoder),
        "decoder_loss_weights": Field(np.float32, np.float32, decoder),
        "decoder_segment_ids": Field(np.int32, np.uint16, decoder),
        "decoder_positions": Field(np.int32, np.uint16, decoder),
        "decoder_soft_ids": Field(np.int32, ids, (decoder_length, k)),
        "decoder_soft_logprobs": Field(np.float32, np.float16, (decoder_length, k)),
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
    for side in ("encoder", "decoder"):
        ids = batch[f"{side}_segment_ids"]
        expect((np.diff(ids, axis=1) >= 0) | (ids[:, 1:] == 0), f"{side} segments out of order")
    starts = batch["decoder_positions"] == 0
    expect(~starts | (batch["decoder_input_tokens"] == 0), "a segment does not start from 0")


def render_row(batch: dict[str, np.ndarray], index: int) -> str:
    """Returns a line that shows a packed row to a person."""
    segments, formats = batch["decoder_segment_ids"][index], batch["decoder_format"][index]
    starts = (segments > 0) & (batch["decoder_positions"][index] == 0)
    labels = [Format(int(value)).label for value in formats[starts]]
    real = [float((batch[f"{s}_segment_ids"][index] > 0).mean()) for s in ("encoder", "decoder")]
    return (
        f"row {index}: {len(labels)} examples ({', '.join(labels)}), "
        f"{real[0]:.0%} of the encoder and {real[1]:.0%} of the decoder filled"
    )
