"""T5: 1.1 and Flan (gated GELU, a head of its own) and 1.0 (ReLU, tied and rescaled head).

Letters: `B` rows, `Tin` encoder tokens, `S` decoder tokens, `D` model width, `V` vocabulary.

Sources: 1910.10683; T5 1.1 at
https://github.com/google-research/text-to-text-transfer-transformer/blob/main/released_checkpoints.md.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from specialize_jax.models import attention, boundary, caches, flops
from specialize_jax.models.interface import Batch, Cache, Model, Params
from specialize_jax.models.t5_config import ACTIVATIONS, SIZES, T5Config
from specialize_jax.models.t5_network import T5, DecoderLayer, relative_bias

__all__ = ["ACTIVATIONS", "SIZES", "T5Config", "build"]

START_TOKEN = 0
"""What decoding starts from: padding, as every published T5 was trained."""


def build(config: T5Config, *, name: str = "t5") -> Model:
    """Makes the functions of a T5.

    Args:
      config: shape and numerics; `dataclasses.replace(SIZES[...], dtype="bfloat16")` and so on.
      name: for logs and reports.

    Returns:
      The model; it holds no parameters.
    """
    return Model(
        name=name,
        family="t5",
        config=config,
        decoder_only=False,
        pad_id=0,
        init=functools.partial(_init, config),
        axes=functools.partial(_axes, config),
        hidden=functools.partial(_hidden, config),
        unembed=functools.partial(_unembed, config),
        logits=functools.partial(_logits, config),
        start_tokens=_start_tokens,
        prepare=functools.partial(_prepare, config),
        share=None,  # the encoder sees both ways
        init_cache=functools.partial(_init_cache, config),
        decode_step=functools.partial(_decode_step, config),
        row_flops=functools.partial(flops.t5_row, config),
        decoding_flops=functools.partial(flops.t5_decoding, config),
    )


def _dummy_batch() -> Batch:
    tokens = jnp.ones((1, 1), jnp.int32)
    return {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}


def _init(config: T5Config, rng: jax.Array) -> Params:
    return boundary.init(_without_dropout(config), _dummy_batch(), rng)


def _axes(config: T5Config) -> dict[str, Any]:
    return boundary.axes(_without_dropout(config), _dummy_batch())


def _without_dropout(config: T5Config) -> T5:
    return T5(dataclasses.replace(config, dropout_rate=0.0))


def _hidden(
    config: T5Config, params: Params, batch: Batch, *, dropout_rng: jax.Array | None = None
) -> jax.Array:
    if dropout_rng is None or config.dropout_rate == 0:
        return _without_dropout(config).bind({"params": params}).hidden(batch)
    return T5(config).bind({"params": params}, rngs={"dropout": dropout_rng}).hidden(batch)


def _unembed(config: T5Config, params: Params) -> jax.Array:
    if config.tied_embeddings:
        return params["token_embedder"]["embedding"].T
    return params["logits_dense"]["kernel"]


def _logits(config: T5Config, params: Params, batch: Batch) -> jax.Array:
    return _project(config, params, _hidden(config, params, batch))


def _project(config: T5Config, params: Params, hidden: jax.Array) -> jax.Array:
    return boundary.project(hidden, _unembed(config, params), config.dtype)


def _decoder_layer(config: T5Config, own: Params) -> DecoderLayer:
    return DecoderLayer(dataclasses.replace(config, dropout_rate=0.0)).bind({"params": own})


def _start_tokens(inputs: jax.Array) -> jax.Array:
    return jnp.full(inputs.shape[:1], START_TOKEN, jnp.int32)


def _prepare(config: T5Config, params: Params) -> Params:
    return boundary.prepare(params, _unembed(config, params), config.dtype)


def _init_cache(
    config: T5Config, params: Params, encoder_input_tokens: jax.Array, max_decode_length: int
) -> Cache:
    tokens = jnp.asarray(encoder_input_tokens)
    network = _without_dropout(config).bind({"params": params})

    def encode(tokens: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        encoded = network.encode(tokens, (tokens > 0).astype(jnp.int32))
        return [
            _decoder_layer(config, own).cross_keys_values(encoded)
            for own in boundary.unstack(params["decoder"]["layers"])
        ]

    return caches.new(tokens > 0, boundary.in_groups(encode, tokens), max_decode_length)


def _decode_step(
    config: T5Config, params: Params, cache: Cache, tokens: jax.Array
) -> tuple[jax.Array, Cache]:
    params = _prepare(config, params)
    module = _without_dropout(config).bind({"params": params})
    step = caches.begin(cache, tokens)
    table = {"params": params["decoder"]["relpos_bias"]}
    bias = relative_bias(config, bidirectional=False).bind(table).of_step(step.places, step.written)
    seen = attention.mask_bias(cache["seen"])[:, None]
    x = module.token_embedder(step.tokens)
    updated = []
    for own, layer_cache in zip(params[boundary.PREPARED], cache["layers"], strict=True):
        layer = _decoder_layer(config, own)
        x, layer_cache = layer.step(x, layer_cache, step.column, bias, seen)
        updated.append(layer_cache)
    x = module.rescale(module.decoder.decoder_norm(x))
    logits = boundary.project(x, params[boundary.UNEMBED], config.dtype)
    return logits, caches.end(cache, step, tokens, updated)
