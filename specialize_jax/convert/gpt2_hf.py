"""GPT-2 in Hugging Face's form: config.json and names of tensors.

Theirs keeps projections as [in, out], like ours, and joins query, key and value into one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from specialize_jax.convert.names import Architecture, Row, read_fields
from specialize_jax.models import gpt2
from specialize_jax.models.gpt2 import GPT2Config

# Ours: theirs, and what theirs means where config.json leaves it out.
_FIELDS: dict[str, tuple[str, Any]] = {
    "d_model": ("n_embd", 768),
    "num_heads": ("n_head", 12),
    "num_layers": ("n_layer", 12),
    "vocab_size": ("vocab_size", 50257),
    "num_positions": ("n_positions", 1024),
    # Of three rates, which are one in every published model.
    "dropout_rate": ("resid_pdrop", 0.1),
    "layer_norm_epsilon": ("layer_norm_epsilon", 1e-5),
}
# What ours is; the first is what the field means where it is left out, others are the same thing.
_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_END_OF_TEXT = 50256
_EMBEDDING = "wte.weight"
_HEAD = "lm_head.weight"
_NORMS = {"pre_attention_layer_norm": "ln_1", "pre_mlp_layer_norm": "ln_2"}
_JOINED = ("query", "key", "value")
_PROJECTIONS = {"attention/out": "attn.c_proj", "mlp/wi": "mlp.c_fc", "mlp/wo": "mlp.c_proj"}


def _read_config(raw: Mapping[str, Any], *, tied: bool) -> GPT2Config:
    """Reads config.json; the config is in float32 and without rematerialisation."""
    for field, allowed in _FIXED.items():
        if raw.get(field, allowed[0]) not in allowed:
            choices = ", ".join(map(str, allowed))
            raise ValueError(
                f"Expected {field} of a GPT-2 to be one of {choices}, got {raw[field]!r}."
            )
    if not tied:
        raise ValueError("Expected a GPT-2 whose head is its embedding, got an lm_head of its own.")
    fields = read_fields(raw, _FIELDS)
    ids = (raw.get("pad_token_id"), raw.get("eos_token_id"), _END_OF_TEXT)
    return GPT2Config(
        **fields,
        d_ff=raw.get("n_inner") or 4 * fields["d_model"],
        pad_id=next(token for token in ids if token is not None),
    )


def _write_config(config: GPT2Config) -> dict[str, Any]:
    """What config.json says of a model; its end of text is the published one, which pads, too."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _FIELDS.items()},
        **{field: allowed[0] for field, allowed in _FIXED.items()},
        "n_inner": config.d_ff,
        "embd_pdrop": config.dropout_rate,
        "attn_pdrop": config.dropout_rate,
        "tie_word_embeddings": True,
        "bos_token_id": config.pad_id,
        "eos_token_id": config.pad_id,
        "pad_token_id": config.pad_id,
    }


def table(config: GPT2Config) -> list[Row]:
    """Every parameter of a GPT-2 of this shape, once."""
    rows = [
        Row("token_embedder/embedding", _EMBEDDING),
        Row("position_embedder/embedding", "wpe.weight"),
    ]
    rows += _norm("decoder/decoder_norm", "ln_f", None)
    return [*rows, *_layers(config.num_layers)]


def _layers(depth: int) -> Iterator[Row]:
    ours, block = "decoder/layers", "h.{}"
    for our_name, their_name in _NORMS.items():
        yield from _norm(f"{ours}/{our_name}", f"{block}.{their_name}", depth)
    for our_kind, kind in {"kernel": "weight", "bias": "bias"}.items():
        for part, name in enumerate(_JOINED):
            yield Row(
                f"{ours}/attention/{name}/{our_kind}",
                f"{block}.attn.c_attn.{kind}",
                layers=depth,
                part=part,
                parts=len(_JOINED),
            )
        for our_name, their_name in _PROJECTIONS.items():
            yield Row(f"{ours}/{our_name}/{our_kind}", f"{block}.{their_name}.{kind}", layers=depth)


def _norm(ours: str, theirs: str, layers: int | None) -> Iterator[Row]:
    yield Row(f"{ours}/scale", f"{theirs}.weight", layers=layers)
    yield Row(f"{ours}/bias", f"{theirs}.bias", layers=layers)


GPT2 = Architecture(
    family="gpt2",
    model_types=("gpt2",),
    config_type=GPT2Config,
    read_config=_read_config,
    write_config=_write_config,
    build=gpt2.build,
    table=table,
    embedding=_EMBEDDING,
    head=_HEAD,
    # The causal mask, which old files hold as a buffer.
    ignored=re.compile(r"h\.\d+\.attn\.(masked_)?bias"),
    prefix="transformer.",
)
