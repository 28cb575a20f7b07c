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

from specialize_jax.models import attention, boundary, flops
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
    """Runs the prompt once; the first step reads its last token again and writes it anew.

    So the last token's keys are there for a prefix that sees both ways, and a prompt of one token
    is no special case.
    """
    inputs = jnp.asarray(inputs)
    length = inputs.shape[1] - 1 + max_decode_length
    if length > config.num_positions:
        raise ValueError(
            f"Expected a prompt and its continuation within {config.num_positions} positions, got "
            f"{inputs.shape[1]} tokens, padding included, and max_decode_length="
            f"{max_decode_length}."
        )
    batch = {"decoder_input_tokens": inputs}
    segments, _ = layout(config, batch)
    _, (keys, values) = _without_dropout(config, keeps=True).bind({"params": params})(
        batch | {"decoder_causal_attention": segments}
    )
    room = ((0, 0), (0, 0), (0, 0), (0, max_decode_length - 1), (0, 0))
    keys, values = jnp.pad(keys, room), jnp.pad(values, room)
    return {
        "index": jnp.asarray(inputs.shape[1] - 1, jnp.int32),
        "padding": jnp.sum(segments == 0, axis=1, dtype=jnp.int32),
        "layers": [
            {"key": keys[layer], "value": values[layer]} for layer in range(config.num_layers)
        ],
    }


def _decode_step(
    config: GPT2Config, params: Params, cache: Cache, tokens: jax.Array
) -> tuple[jax.Array, Cache]:
    config = dataclasses.replace(config, dropout_rate=0.0)
    module = GPT2(config).bind({"params": params})
    index, padding = cache["index"], cache["padding"]
    slots = jnp.arange(cache["layers"][0]["key"].shape[2])
    seen = (slots <= index)[None] & (slots[None] >= padding[:, None])
    bias = attention.mask_bias(seen)[:, None]
    x = module.embed(tokens, index - padding)
    updated = []
    for number, layer_cache in enumerate(cache["layers"]):
        own = boundary.layer(params["decoder"]["layers"], number)
        layer = DecoderLayer(config).bind({"params": own})
        x, layer_cache = layer.step(x, layer_cache, index, bias)
        updated.append(layer_cache)
    logits = boundary.project(module.decoder.decoder_norm(x), _unembed(params), config.dtype)
    return logits, {**cache, "index": index + 1, "layers": updated}
