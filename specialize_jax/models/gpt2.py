"""GPT-2: causal, learned positions, the head tied to the embedding.

Letters: `B` rows, `Tin` tokens of a prompt, `H` heads, `Dh` width of a head, `D` model width, `V`
vocabulary.

Source: Language Models are Unsupervised Multitask Learners (2019), and
https://github.com/openai/gpt-2.

Prompts are padded on the left by `config.pad_id`; only the leading run counts as padding. A prompt
has at least one token: a row of padding alone gives finite numbers that mean nothing.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from specialize_jax.models import attention, boundary, caches, flops
from specialize_jax.models.gpt2_config import SIZES, GPT2Config
from specialize_jax.models.gpt2_network import GPT2, DecoderLayer, layout
from specialize_jax.models.interface import Batch, Cache, Model, Params

__all__ = ["SIZES", "GPT2Config", "build"]


def build(config: GPT2Config, *, name: str = "gpt2") -> Model:
    """Makes the functions of a GPT-2.

    Args:
      config: shape and numerics; `dataclasses.replace(SIZES[...], dtype="bfloat16")` and so on.
      name: for logs and reports.

    Returns:
      The model; it holds no parameters.
    """
    return Model(
        name=name,
        family="gpt2",
        config=config,
        decoder_only=True,
        pad_id=config.pad_id,
        init=functools.partial(_init, config),
        axes=functools.partial(_axes, config),
        hidden=functools.partial(_hidden, config),
        unembed=_unembed,
        logits=functools.partial(_logits, config),
        start_tokens=_start_tokens,
        prepare=functools.partial(_prepare, config),
        init_cache=functools.partial(_init_cache, config),
        decode_step=functools.partial(_decode_step, config),
        row_flops=functools.partial(flops.gpt2_row, config),
        decoding_flops=functools.partial(flops.gpt2_decoding, config),
    )


def _dummy_batch() -> Batch:
    return {"decoder_input_tokens": jnp.ones((1, 1), jnp.int32)}


def _init(config: GPT2Config, rng: jax.Array) -> Params:
    return boundary.init(_without_dropout(config), _dummy_batch(), rng)


def _axes(config: GPT2Config) -> dict[str, Any]:
    return boundary.axes(_without_dropout(config), _dummy_batch())


def _without_dropout(config: GPT2Config, *, keeps: bool = False) -> GPT2:
    return GPT2(dataclasses.replace(config, dropout_rate=0.0), keeps)


def _hidden(
    config: GPT2Config, params: Params, batch: Batch, *, dropout_rng: jax.Array | None = None
) -> jax.Array:
    if "encoder_input_tokens" in batch:
        raise ValueError(
            "Expected a batch for a decoder-only student, its prompt within decoder_input_tokens, "
            "got encoder_input_tokens as well, which this student would not read."
        )
    if dropout_rng is None or config.dropout_rate == 0:
        return _without_dropout(config).bind({"params": params})(batch)[0]
    return GPT2(config).bind({"params": params}, rngs={"dropout": dropout_rng})(batch)[0]


def _unembed(params: Params) -> jax.Array:
    return params["token_embedder"]["embedding"].T


def _logits(config: GPT2Config, params: Params, batch: Batch) -> jax.Array:
    return boundary.project(_hidden(config, params, batch), _unembed(params), config.dtype)


def _start_tokens(inputs: jax.Array) -> jax.Array:
    return jnp.asarray(inputs)[:, -1].astype(jnp.int32)


def _init_cache(
    config: GPT2Config, params: Params, inputs: jax.Array, max_decode_length: int
) -> Cache:
    """Runs the prompt once and keeps all but its last token, which the first step reads again.

    So a prefix that sees both ways sees all of itself, and a prompt of one token is no special
    case.
    """
    inputs = jnp.asarray(inputs)
    length = inputs.shape[1] - 1 + max_decode_length
    if length > config.num_positions:
        raise ValueError(
            f"Expected a prompt and its continuation within {config.num_positions} positions, got "
            f"{inputs.shape[1]} tokens, padding included, and max_decode_length="
            f"{max_decode_length}."
        )

    def read(inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = {"decoder_input_tokens": inputs}
        segments, _ = layout(config, batch)
        _, kept = _without_dropout(config, keeps=True).bind({"params": params})(
            batch | {"decoder_causal_attention": segments}
        )
        return jax.tree.map(lambda x: x[:, :, :, :-1].swapaxes(0, 1), kept)

    keys, values = boundary.in_groups(read, inputs)
    segments, _ = layout(config, {"decoder_input_tokens": inputs})
    seen = segments[:, :-1] > 0
    layers = [(keys[:, layer], values[:, layer]) for layer in range(config.num_layers)]
    cache = caches.new(seen, layers, max_decode_length)
    return cache | {"prompt": jnp.sum(seen, axis=1, dtype=jnp.int32)}


def _prepare(config: GPT2Config, params: Params) -> Params:
    return boundary.prepare(params, _unembed(params), config.dtype)


def _decode_step(
    config: GPT2Config, params: Params, cache: Cache, tokens: jax.Array
) -> tuple[jax.Array, Cache]:
    params = _prepare(config, params)
    config = dataclasses.replace(config, dropout_rate=0.0)
    module = GPT2(config).bind({"params": params})
    step = caches.begin(cache, tokens)
    bias, seen = (attention.mask_bias(m)[:, None] for m in (step.written >= 0, cache["seen"]))
    x = module.embed(step.tokens, cache["prompt"] + step.places)
    updated = []
    for own, layer_cache in zip(params[boundary.PREPARED], cache["layers"], strict=True):
        layer = DecoderLayer(config).bind({"params": own})
        x, layer_cache = layer.step(x, layer_cache, step.column, bias, seen)
        updated.append(layer_cache)
    x = module.decoder.decoder_norm(x)
    logits = boundary.project(x, params[boundary.UNEMBED], config.dtype)
    return logits, caches.end(cache, step, tokens, updated)
