"""A student's functions as `decoding.slots` wants them, on one device or a mesh."""

import functools
import os.path
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from specialize_jax import models, tokenizers
from specialize_jax.decoding import calculating, sampling, segments, slots
from specialize_jax.decoding.greedy import most_likely
from specialize_jax.models import Model, activations, caches
from specialize_jax.training import partitioning

_NARROWEST = 64
_SHARED_STEP = 64
_NAMES = ("batch", "heads", "length", "kv")


def engine(
    model: Model,
    tokenizer: tokenizers.Tokenizer,
    *,
    rows: int,
    samples: int,
    max_length: int,
    input_length: int,
    choose: segments.Choose,
    calculator: str = "none",
    mesh: Mesh | None = None,
) -> slots.Engine:
    """Returns an engine for a student.

    Args:
      model: the student.
      tokenizer: its tokenizer.
      rows: that are decoded at a time; where there is a mesh, its shards divide them.
      samples: answers to a prompt.
      max_length: tokens of an answer at most.
      input_length: tokens of a prompt at most.
      choose: of `chooser`.
      calculator: one of `calculating.KINDS`; only what works while decoding is done here.
      mesh: where the parameters lie; None for the default device.

    Raises:
      ValueError: an unknown calculator, or one whose signs the vocabulary cannot write.
    """
    halting, respond = calculating.calculator(
        calculator,
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        surfaces=tokenizer.pieces(range(tokenizer.vocab_size)),
    )
    if halting is not None:  # a model's vocabulary may be padded
        wide = np.zeros(max(model.config.vocab_size, len(halting)), bool)
        wide[: len(halting)] = halting
        halting = wide
    shards = 1 if mesh is None else partitioning.batch_shards(mesh)
    return slots.Engine(
        functions(model, mesh),
        choose,
        slots=rows,
        max_length=max_length,
        eos_id=tokenizer.eos_id,
        pad_id=model.pad_id,
        widths=widths(input_length),
        samples=samples,
        group=-(-rows // (8 * shards)) * shards,
        halting=halting,
        respond=respond,
        place=on_mesh(mesh, _constrained),
    )


def functions(model: Model, mesh: Mesh | None = None) -> slots.Functions:
    """Returns a student's functions, for the default device or a mesh."""
    return slots.Functions(
        pad=functools.partial(models.pad_inputs, model),
        encode=on_mesh(mesh, lambda params, tokens: model.init_cache(params, tokens, 1)),
        start_tokens=model.start_tokens,
        decode_step=on_mesh(mesh, model.decode_step),
        empty=caches.empty,
        insert=caches.insert,
        widen=caches.widen,
    )


def chooser(*, seed: int, temperature: float, top_k: int | None, top_p: float) -> segments.Choose:
    """Returns how the next tokens are chosen; at temperature 0 the most likely ones are."""
    if temperature:
        return sampling.drawer(seed, temperature, top_k, top_p)
    return lambda logits, *_: most_likely(logits)


_compiled = functools.cache(jax.jit)  # once for each function of each model


def prepared(model: Model, params: Any) -> Any:
    """Returns `Model.prepare` of parameters, which an engine takes quickest."""
    return _compiled(model.prepare)(params)


def shared(
    model: Model, params: Any, inputs: Sequence[list[int]], *, slots: int
) -> tuple[Any, list[list[int]]]:
    """Returns parameters that have read what all inputs begin with, and what is left of the inputs.

    In-context exemplars stand before every question. A causal student reads them once.

    Args:
      model: the student.
      params: its parameters.
      inputs: of all questions.
      slots: rows that are decoded at a time; fewer questions are not worth another compilation.
    """
    count = _shared_tokens(model, inputs) if model.share and len(inputs) > slots else 0
    if not count:
        return prepared(model, params), list(inputs)
    prefix = np.asarray(inputs[0][:count], np.int32)
    return _compiled(model.share)(params, prefix), [tokens[count:] for tokens in inputs]


def _shared_tokens(model: Model, inputs: Sequence[list[int]]) -> int:
    """How many of the first tokens to read once: a multiple of 64, for every number is compiled."""
    longest = max(map(len, inputs))
    # Something has to be left of each, which begins with no padding.
    most = min(len(os.path.commonprefix(inputs)), min(map(len, inputs)) - 1)
    count = most // _SHARED_STEP * _SHARED_STEP
    padded = next(width for width in widths(longest) if width >= longest - count)
    fits = count + padded <= model.config.num_positions
    return count if fits and all(tokens[count] != model.pad_id for tokens in inputs) else 0


def widths(longest: int) -> list[int]:
    """Input lengths that caches may have: from 64 on, each longer by a quarter to a half.

    >>> widths(1000)
    [64, 128, 192, 256, 384, 512, 768, 1000]
    """
    found, width = [], _NARROWEST
    while width < longest:
        found.append(width)
        width += max(_NARROWEST, 2 ** (width.bit_length() - 1) // 2)
    return [*found, longest]


def check_room(model: Model, inputs: int, max_length: int) -> None:
    """Checks that a prompt and its answer fit the positions that a student knows.

    Raises:
      ValueError: they do not.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, inputs), np.int32)
    jax.eval_shape(
        lambda params, tokens: model.init_cache(params, tokens, max_length), params, tokens
    )


def on_mesh(mesh: Mesh | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, whose activations are laid out where they are traced."""
    if mesh is None:
        return function

    def laid_out(*args: Any) -> Any:
        with activations.sharded(mesh, partitioning.ACTIVATION_RULES):
            return function(*args)

    return laid_out


def _constrained(cache: Any) -> Any:
    """A cache whose rows lie where a batch's do, and its heads where their parameters are."""

    def one(x: jax.Array) -> jax.Array:
        names = _NAMES if x.ndim == len(_NAMES) else ("batch", *["length"] * (x.ndim - 1))
        return activations.constrain(x, *names) if x.ndim else x

    return jax.tree.map(one, cache)
