"""Prompts in, texts out: how `evaluate`, and `train` while it runs, ask a student.

Letters: `B` prompts, `n` samples of each, `T` input tokens, `L` tokens of an answer at most.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax import decoding, models, tokenizers
from specialize_jax.apps import student_slots
from specialize_jax.decoding import slots
from specialize_jax.models import Model, activations
from specialize_jax.training import partitioning

_LENGTH_STEP = 64

Decode = Callable[..., jax.Array]
"""`decode(params, tokens [B, T]) -> answers [B, L]`; compiled once for every shape."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a student is asked; `dataclasses.asdict` is what files record.

    Attributes:
      max_length: tokens of an answer at most, the end-of-sequence token included.
      temperature: of sampling; 0 takes the most likely token.
      top_k: how many of the most likely tokens may be drawn; None for all.
      top_p: share of the probability that may be drawn, in (0, 1].
      samples: answers to a prompt.
      num_beams: above 1 a beam search.
      seed: of all draws; JAX knows 32 bits, so in [0, 2**32).
      calculator: what computes while an answer is written.
    """

    max_length: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    samples: int = 1
    num_beams: int = 1
    seed: int = 0
    calculator: str = "none"

    def __post_init__(self) -> None:
        """Checks what belongs together.

        Raises:
          ValueError: a number is out of range, or two settings exclude each other.
        """
        for name in ("max_length", "samples", "num_beams"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"expected a seed from 0 to 4294967295, got {self.seed}")
        if self.temperature < 0:
            raise ValueError(f"expected temperature >= 0, got {self.temperature}")
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"expected a temperature above 0 for {self.samples} samples, for at 0 all of them "
                "are the same"
            )
        if self.num_beams > 1 and (self.temperature or self.calculator != "none"):
            raise ValueError(
                f"expected temperature 0 and no calculator with {self.num_beams} beams, got "
                f"temperature={self.temperature}, calculator={self.calculator!r}"
            )


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
    return _compiled(functools.partial(_greedy, model, eos_id, max_length), mesh)


def _compiled(decode: Callable[..., jax.Array], mesh: Mesh | None) -> Decode:
    if mesh is None:
        return jax.jit(decode)

    def on_mesh(*args: Any) -> jax.Array:
        with activations.sharded(mesh, partitioning.ACTIVATION_RULES):
            return decode(*args)

    return jax.jit(on_mesh, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _greedy(
    model: Model, eos_id: int, max_length: int, params: Any, tokens: jax.Array
) -> jax.Array:
    """Answers [B, L]."""
    params = model.prepare(params)  # outside of the loop
    decode_step = functools.partial(model.decode_step, params)
    cache = model.init_cache(params, tokens, max_length)
    shape = _shape(model, eos_id, max_length, tokens)
    return decoding.greedy(decode_step, cache, batch_size=tokens.shape[0], **shape)[0]


def _shape(model: Model, eos_id: int, max_length: int, tokens: jax.Array) -> dict[str, Any]:
    """What all ways of decoding are told."""
    start, pad = model.start_tokens(tokens), model.pad_id
    return {"max_length": max_length, "eos_id": eos_id, "start_tokens": start, "pad_id": pad}


def _best_of_beams(
    model: Model, eos_id: int, settings: Settings, params: Any, tokens: jax.Array
) -> jax.Array:
    """Answers [B, L]."""
    params = model.prepare(params)
    found, _ = decoding.beam(
        functools.partial(model.decode_step, params),
        model.init_cache(params, tokens, settings.max_length),
        batch_size=tokens.shape[0],
        num_beams=settings.num_beams,
        **_shape(model, eos_id, settings.max_length, tokens),
    )
    return found[:, 0]


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A student that answers prompts, whatever its parameters are at the time; of `answerer`.

    Attributes:
      model: the student.
      tokenizer: its tokenizer.
      settings: how it is asked.
      batch_size: rows that are decoded at a time; where there is a mesh, its shards divide them.
      input_length: tokens of a prompt at most.
      mesh: where the parameters lie; None for the default device.
      greedy: of `greedy_decoder`.
      beams: the same of beam search, whose rows all end together; None where it is not used.
      engine: for all else.
    """

    model: Model
    tokenizer: tokenizers.Tokenizer
    settings: Settings
    batch_size: int
    input_length: int
    mesh: Mesh | None
    greedy: Decode
    beams: Decode | None
    engine: slots.Engine

    def encode(self, prompt: str) -> list[int]:
        """Returns a prompt's tokens: an encoder's input is ended, another is to be continued."""
        end = [] if self.model.decoder_only else [self.tokenizer.eos_id]
        return [*self.tokenizer.encode(prompt), *end]

    def length(self, prompt: str) -> int:
        """Returns a prompt's tokens; one with more than `input_length` cannot be asked."""
        return len(self.encode(prompt))

    def stream(
        self, params: Any, prompts: Sequence[str], numbers: Sequence[int]
    ) -> Iterator[tuple[int, list[str]]]:
        """Answers any number of prompts.

        Args:
          params: of the student.
          prompts: what to answer.
          numbers: each prompt's own number (its row in the set): with the seed and the sample's
            number it decides what is drawn, whatever else is in the batch.

        Yields:
          A place in `prompts` and its answers, as many as `settings.samples`, in any order.

        Raises:
          ValueError: a prompt is longer than `input_length`, or there are not as many numbers.
        """
        for place, answers in self.stream_tokens(params, prompts, numbers):
            yield place, [self.tokenizer.decode(ids) for ids in answers]

    def stream_tokens(
        self, params: Any, prompts: Sequence[str], numbers: Sequence[int]
    ) -> Iterator[tuple[int, list[list[int]]]]:
        """`stream`, with the tokens of the answers; an end-of-sequence token is the last."""
        if len(numbers) != len(prompts):
            raise ValueError(f"expected {len(prompts)} numbers, one a prompt, got {len(numbers)}")
        ids = [self.encode(prompt) for prompt in prompts]
        if self.beams is not None:
            yield from self._in_batches(params, ids, self.beams)
            return
        student_slots.check_room(
            self.model, max(map(len, ids), default=1), self.settings.max_length
        )
        answers: dict[int, dict[int, list[int]]] = collections.defaultdict(dict)
        params, ids = student_slots.shared(self.model, params, ids, slots=self.batch_size)
        questions = [slots.Question(*one) for one in zip(ids, numbers, strict=True)]
        for place, sample, tokens in self.engine.run(params, questions):
            answers[place][sample] = tokens
            if len(answers[place]) == self.settings.samples:
                yield place, [ids for _, ids in sorted(answers.pop(place).items())]

    def _in_batches(
        self, params: Any, ids: Sequence[list[int]], decode: Decode
    ) -> Iterator[tuple[int, list[list[int]]]]:
        places = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        for start in range(0, len(places), self.batch_size):
            batch = places[start : start + self.batch_size]
            rows = jax.device_get(decode(params, self._batch([ids[place] for place in batch])))
            for place, row in zip(batch, rows, strict=False):
                yield place, [self._until_end(row.tolist())]

    def _until_end(self, ids: list[int]) -> list[int]:
        eos = self.tokenizer.eos_id
        return ids[: ids.index(eos) + 1] if eos in ids else ids

    def answer(self, params: Any, prompts: Sequence[str], *, shortest: int = 0) -> list[str]:
        """Returns the greedy answers to at most `batch_size` prompts, in order.

        Args:
          params: of the student.
          prompts: what to answer.
          shortest: tokens that inputs are padded to at least, so that calls share a shape.

        Raises:
          ValueError: a prompt is longer than `input_length`.
        """
        tokens = self._batch([self.encode(prompt) for prompt in prompts], shortest)
        rows = jax.device_get(self.greedy(params, tokens))[: len(prompts)]
        return [self.tokenizer.decode(row.tolist()) for row in rows]

    def _batch(self, ids: Sequence[list[int]], shortest: int = 0) -> Any:
        """Tokens [batch_size, T] where they are decoded."""
        longest = max(shortest, *map(len, ids))
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, self.input_length)
        # Rows beyond the prompts hold a token, for inputs of padding alone mean nothing.
        unused = [[self.tokenizer.eos_id]] * (self.batch_size - len(ids))
        tokens: Any = models.pad_inputs(self.model, [*ids, *unused], length)
        if self.mesh is not None:
            tokens = partitioning.shard_batch({"tokens": tokens}, self.mesh)["tokens"]
        return tokens


def answerer(
    model: Model,
    tokenizer: tokenizers.Tokenizer,
    settings: Settings,
    *,
    batch_size: int,
    input_length: int,
    mesh: Mesh | None = None,
) -> Answerer:
    """Makes a student that answers prompts.

    Args:
      model: the student.
      tokenizer: its tokenizer.
      settings: how it is asked.
      batch_size: rows that are decoded at a time; where there is a mesh, its shards divide them.
      input_length: tokens of a prompt at most.
      mesh: where the parameters lie; None for the default device.
    """
    eos_id, beams = tokenizer.eos_id, None
    if settings.num_beams > 1:
        beams = _compiled(functools.partial(_best_of_beams, model, eos_id, settings), mesh)
    names = ("seed", "temperature", "top_k", "top_p")
    return Answerer(
        model,
        tokenizer,
        settings,
        batch_size,
        input_length,
        mesh,
        greedy=greedy_decoder(model, eos_id, settings.max_length, mesh=mesh),
        beams=beams,
        engine=student_slots.engine(
            model,
            tokenizer,
            rows=batch_size,
            samples=settings.samples,
            max_length=settings.max_length,
            input_length=input_length,
            choose=student_slots.chooser(**{name: getattr(settings, name) for name in names}),
            calculator=settings.calculator,
            mesh=mesh,
        ),
    )
