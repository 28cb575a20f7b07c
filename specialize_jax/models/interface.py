"""What the rest of the library knows of a student: twelve functions over plain pytrees.

Letters: `B` rows, `Tin` input tokens, `S` decoder tokens, `D` model width, `V` vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

from specialize_jax.models import flops
from specialize_jax.models.caches import Cache

Params: TypeAlias = dict[str, Any]
"""Nested dict of float32 arrays, without boxes."""
Batch: TypeAlias = Mapping[str, Any]
"""Arrays by seqio's names, as `schemas.batches` lists them."""


class Hidden(Protocol):
    """The type of `Model.hidden`."""

    def __call__(
        self, params: Params, batch: Batch, *, dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        """The last states [B, S, D]; without a key, dropout is off."""
        ...


@dataclass(frozen=True)
class Model:
    """A student as functions; a trainer or decoder is handed these, never a module.

    Attributes:
      name: the size it was built from, for logs and reports.
      family: a key of `models.FAMILIES`; `models.rebuild` needs it and the config's fields.
      config: its frozen configuration, `t5.T5Config` for T5.
      decoder_only: inputs are prompts, padded on the left and continued; otherwise an encoder
        reads them, padded on the right.
      pad_id: the token that pads inputs.
      init: `init(rng) -> params`.
      axes: `axes() -> tree like params` of tuples that name each dimension (`("embed", "mlp")`).
      hidden: states before the unembedding, [B, S, D] in the activation dtype, already scaled
        where the variant scales them: `hidden @ unembed` are the logits. Reads
        `decoder_input_tokens`, `encoder_input_tokens` where there is an encoder, and for packed
        rows `*_segment_ids` and, where positions are absolute, `decoder_positions`.
      unembed: `unembed(params) -> [D, V]` float32.
      logits: `logits(params, batch) -> [B, S, V]` float32, without dropout.
      start_tokens: `start_tokens(inputs [B, Tin]) -> [B]` int32, what the first `decode_step`
        reads: the family's start token, or a prompt's last token.
      init_cache: `init_cache(params, inputs [B, Tin], max_decode_length) -> cache`; encodes the
        inputs, or all of a prompt that comes before its last token, once.
      prepare: `prepare(params) -> params` with what decoding would otherwise cut and cast at
        every step beside them; `init_cache` and `decode_step` take both.
      share: `share(params, prefix [P]) -> params`, as of `prepare`, with which `init_cache` and
        `decode_step` take every input as what stands behind `prefix`, which is read this once and
        kept once for all rows. None where what a token is depends on what follows it.
      decode_step: `decode_step(params, cache, tokens [B]) -> (logits [B, V] float32, cache)`. The
        returned cache has the given one's shapes and dtypes, so it can be carried by a loop and
        donated. Rows may be at different places (`index` [B]); where a token is below 0 the row
        waits, and its logits mean nothing. See `caches`.
      row_flops: `row_flops(inputs, targets) -> int`, FLOPs of the matrix products of one row
        forward, from its lengths; see `flops`.
      decoding_flops: `decoding_flops(inputs, most) -> flops.Decoding`, the same of cached decoding.
    """

    name: str
    family: str
    config: Any
    decoder_only: bool
    pad_id: int
    init: Callable[[jax.Array], Params]
    axes: Callable[[], dict[str, Any]]
    hidden: Hidden
    unembed: Callable[[Params], jax.Array]
    logits: Callable[[Params, Batch], jax.Array]
    start_tokens: Callable[[jax.Array], jax.Array]
    prepare: Callable[[Params], Params]
    share: Callable[[Params, jax.Array], Params] | None
    init_cache: Callable[[Params, jax.Array, int], Cache]
    decode_step: Callable[[Params, Cache, jax.Array], tuple[jax.Array, Cache]]
    row_flops: Callable[[int, int], int]
    decoding_flops: Callable[[int, int], flops.Decoding]


def pad_inputs(model: Model, rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Lays inputs of several lengths out as `init_cache` reads them.

    Args:
      model: says which side is padded, and by which token.
      rows: tokens of each input.
      length: `Tin`.

    Returns:
      [B, Tin] int32.

    Raises:
      ValueError: a row is longer than `length`.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise ValueError(f"Expected inputs of at most {length} tokens, got one of {longest}.")
    padded = np.full((len(rows), length), model.pad_id, np.int32)
    for out, row in zip(padded, rows, strict=True):
        start = length - len(row) if model.decoder_only else 0
        out[start : start + len(row)] = row
    return padded
