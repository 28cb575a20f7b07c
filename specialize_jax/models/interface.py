"""What the rest of the library knows of a student: seven functions over plain pytrees.

Letters: `B` rows, `Tin` encoder tokens, `S` decoder tokens, `D` model width, `V` vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax

Params: TypeAlias = dict[str, Any]
"""Nested dict of float32 arrays, without boxes."""
Cache: TypeAlias = dict[str, Any]
"""State of cached decoding; opaque, but every array but the scalar `index` has a leading `B`."""
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
      config: its frozen configuration, `t5.T5Config` for T5.
      init: `init(rng) -> params`.
      axes: `axes() -> tree like params` of tuples that name each dimension (`("embed", "mlp")`).
      hidden: states before the unembedding, [B, S, D] in the activation dtype, already scaled
        where the variant scales them: `hidden @ unembed` are the logits. Reads
        `encoder_input_tokens`, `decoder_input_tokens` and, for packed rows, `*_segment_ids`.
      unembed: `unembed(params) -> [D, V]` float32.
      logits: `logits(params, batch) -> [B, S, V]` float32, without dropout.
      init_cache: `init_cache(params, encoder_input_tokens [B, Tin], max_decode_length) -> cache`;
        encodes once. Token 0 is padding.
      decode_step: `decode_step(params, cache, tokens [B]) -> (logits [B, V] float32, cache)`; the
        first call takes the start token. The returned cache has the given one's shapes and
        dtypes, so it can be carried by a loop and donated.
    """

    name: str
    config: Any
    init: Callable[[jax.Array], Params]
    axes: Callable[[], dict[str, Any]]
    hidden: Hidden
    unembed: Callable[[Params], jax.Array]
    logits: Callable[[Params, Batch], jax.Array]
    init_cache: Callable[[Params, jax.Array, int], Cache]
    decode_step: Callable[[Params, Cache, jax.Array], tuple[jax.Array, Cache]]
