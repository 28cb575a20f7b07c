"""Prompts in, texts out: how `evaluate`, and `train` while it runs, ask a student.

Letters: `B` prompts, `T` input tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax import decoding, models, tokenizers
from specialize_jax.models import Model, activations
from specialize_jax.training import partitioning

_LENGTH_STEP = 64

Decode = Callable[[Any, Any], jax.Array]
"""`decode(params, tokens [B, T]) -> answers [B, max_length]`; compiled once for every shape."""


def greedy_decoder(
    model: Model, eos_id: int, max_length: int, *, mesh: Mesh | None = None
) -> Decode:
    """Returns a compiled function from input tokens to greedy answers.

    Args:
      model: the student.
      eos_id: ends an answer.
      max_length: tokens of an answer at most.
      mesh: where parameters and inputs lie; every host gets the whole answers. None for the
        default device.
    """
    decode = functools.partial(_decode, model, eos_id, max_length)
    if mesh is None:
        return jax.jit(decode)

    def on_mesh(params: Any, tokens: jax.Array) -> jax.Array:
        with activations.sharded(mesh, partitioning.ACTIVATION_RULES):
            return decode(params, tokens)

    return jax.jit(on_mesh, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _decode(
    model: Model, eos_id: int, max_length: int, params: Any, tokens: jax.Array
) -> jax.Array:
    cache = model.init_cache(params, tokens, max_length)
    answers, _ = decoding.greedy(
        functools.partial(model.decode_step, params),
        cache,
        batch_size=tokens.shape[0],
        max_length=max_length,
        eos_id=eos_id,
        start_tokens=model.start_tokens(tokens),
        pad_id=model.pad_id,
    )
    return answers


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A student that answers prompts, whatever its parameters are at the time.

    Attributes:
      model: the student.
      tokenizer: its tokenizer.
      decode: of `greedy_decoder`.
      batch_size: rows that are decoded at a time; where there is a mesh, its shards divide them.
      input_length: tokens of a prompt at most.
      mesh: that of `decode`.
    """

    model: Model
    tokenizer: tokenizers.Tokenizer
    decode: Decode
    batch_size: int
    input_length: int
    mesh: Mesh | None = None

    def encode(self, prompt: str) -> list[int]:
        """Returns a prompt's tokens: an encoder's input is ended, another is to be continued."""
        end = [] if self.model.decoder_only else [self.tokenizer.eos_id]
        return [*self.tokenizer.encode(prompt), *end]

    def answer(self, params: Any, prompts: Sequence[str], *, shortest: int = 0) -> list[str]:
        """Returns the answers to at most `batch_size` prompts.

        Args:
          params: of the student.
          prompts: what to answer.
          shortest: tokens that inputs are padded to at least, so that calls share a shape.

        Raises:
          ValueError: a prompt is longer than `input_length`.
        """
        ids = [self.encode(prompt) for prompt in prompts]
        longest = max(shortest, *map(len, ids))
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, self.input_length)
        # Rows beyond the prompts hold a token, for inputs of padding alone mean nothing.
        unused = [[self.tokenizer.eos_id]] * (self.batch_size - len(ids))
        tokens: Any = models.pad_inputs(self.model, [*ids, *unused], length)
        if self.mesh is not None:
            tokens = partitioning.shard_batch({"tokens": tokens}, self.mesh)["tokens"]
        rows = jax.device_get(self.decode(params, tokens))[: len(ids)]
        return [self.tokenizer.decode(row.tolist()) for row in rows]
