"""GPT-2: causal, learned positions, the head tied to the embedding.

Letters: `B` rows, `Tin` tokens of a prompt, `P` tokens before all prompts, `H` heads, `Dh` width of
a head, `D` model width, `V` vocabulary.

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
from specialize_jax.models.gpt2_network import GPT2, DecoderLayer, layout, visible
from specialize_jax.models.interface import Batch, Cache, Model, Params

__all__ = ["SIZES", "GPT2Config", "build"]

_SHARED = "shared_prefix"
"""What `share` adds to parameters: keys and values [H, P, Dh] of every layer."""


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
        # A token that sees what follows differs with it.
        share=None if config.prefix_attention else functools.partial(_share, config),
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
    shared = _length_of_shared(params)
    length = shared + inputs.shape[1] - 1 + max_decode_length
    if length > config.num_positions:
        raise ValueError(
            f"Expected a prompt and its continuation within {config.num_positions} positions, got "
            f"{shared + inputs.shape[1]} tokens, padding included, and max_decode_length="
            f"{max_decode_length}."
        )
    read = _read_behind_shared if shared else _read
    kept = boundary.in_groups(functools.partial(read, config, params), inputs)
    keys, values = jax.tree.map(lambda x: x[:, :, :, :-1], kept)
    segments, _ = layout(config, {"decoder_input_tokens": inputs})
    seen = segments[:, :-1] > 0
    layers = [(keys[:, layer], values[:, layer]) for layer in range(config.num_layers)]
    cache = caches.new(seen, layers, max_decode_length)
    return cache | {"prompt": jnp.sum(seen, axis=1, dtype=jnp.int32) + shared}


def _read(config: GPT2Config, params: Params, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values of inputs [B, S]: [B, L, H, S, Dh] each."""
    batch = {"decoder_input_tokens": inputs}
    segments, _ = layout(config, batch)
    module = _without_dropout(config, keeps=True).bind({"params": params})
    _, kept = module(batch | {"decoder_causal_attention": segments})
    return jax.tree.map(lambda x: x.swapaxes(0, 1), kept)


def _read_behind_shared(
    config: GPT2Config, params: Params, inputs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same of inputs that stand behind what all share."""
    config = dataclasses.replace(config, dropout_rate=0.0)
    shared = _length_of_shared(params)
    batch = {"decoder_input_tokens": inputs}
    segments, positions = layout(config, batch)
    x = GPT2(config).bind({"params": params}).embed(inputs, positions + shared)
    mask = jnp.pad(
        visible(config, batch, segments), ((0, 0),) * 3 + ((shared, 0),), constant_values=True
    )
    kept = []
    for own, before in zip(params[boundary.PREPARED], params[_SHARED], strict=True):
        layer = DecoderLayer(config, keeps=True).bind({"params": own})
        x, keys_values = layer(x, attention.mask_bias(mask), before)
        kept.append(keys_values)
    keys, values = (jnp.stack(of_layers, axis=1) for of_layers in zip(*kept, strict=True))
    return keys, values


def _prepare(config: GPT2Config, params: Params) -> Params:
    return boundary.prepare(params, _unembed(params), config.dtype)


def _share(config: GPT2Config, params: Params, prefix: jax.Array) -> Params:
    (keys,), (values,) = _read(config, params, jnp.asarray(prefix)[None])
    return _prepare(config, params) | {_SHARED: list(zip(keys, values, strict=True))}


def _length_of_shared(params: Params) -> int:
    """`P`; 0 where nothing is shared."""
    return int(params[_SHARED][0][0].shape[1]) if _SHARED in params else 0


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
    shared = params.get(_SHARED) or [None] * config.num_layers
    of_layers = zip(params[boundary.PREPARED], cache["layers"], shared, strict=True)
    for own, layer_cache, before in of_layers:
        layer = DecoderLayer(config).bind({"params": own})
        x, layer_cache = layer.step(x, layer_cache, step.column, bias, seen, before)
        updated.append(layer_cache)
    x = module.decoder.decoder_norm(x)
    logits = boundary.project(x, params[boundary.UNEMBED], config.dtype)
    return logits, caches.end(cache, step, tokens, updated)
