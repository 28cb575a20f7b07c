"""T5, T5 1.1, Flan-T5 and mT5 in Hugging Face's form: config.json and names of tensors.

Theirs store a projection as [out, in] and one tensor a layer; ours are [in, out] and stacked.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from specialize_jax.convert.names import Architecture, Row, read_fields
from specialize_jax.models import t5
from specialize_jax.models.t5 import T5Config

# Ours: theirs, and what theirs means where config.json leaves it out.
_FIELDS: dict[str, tuple[str, Any]] = {
    "d_model": ("d_model", 512),
    "d_kv": ("d_kv", 64),
    "d_ff": ("d_ff", 2048),
    "num_heads": ("num_heads", 8),
    "num_encoder_layers": ("num_layers", 6),
    "vocab_size": ("vocab_size", 32128),
    "relative_buckets": ("relative_attention_num_buckets", 32),
    "relative_max_distance": ("relative_attention_max_distance", 128),
    "activation": ("feed_forward_proj", "relu"),
    "dropout_rate": ("dropout_rate", 0.1),
    "layer_norm_epsilon": ("layer_norm_epsilon", 1e-6),
}
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}
# Sublayers in their order: our name, our norm's name, their name.
_SUBLAYERS = {
    "encoder": (
        ("attention", "pre_attention_layer_norm", "SelfAttention"),
        ("mlp", "pre_mlp_layer_norm", "DenseReluDense"),
    ),
    "decoder": (
        ("self_attention", "pre_self_attention_layer_norm", "SelfAttention"),
        ("encoder_decoder_attention", "pre_cross_attention_layer_norm", "EncDecAttention"),
        ("mlp", "pre_mlp_layer_norm", "DenseReluDense"),
    ),
}
_EMBEDDING = "shared.weight"
_HEAD = "lm_head.weight"


def _read_config(raw: Mapping[str, Any], *, tied: bool) -> T5Config:
    """Reads config.json; the config is in float32 and without rematerialisation."""
    fields = read_fields(raw, _FIELDS)
    decoder_layers = raw.get("num_decoder_layers")
    # `scale_decoder_outputs` is transformers 5; before, tying and rescaling went together. mT5 is
    # never rescaled, though transformers 5 calls each one tied.
    together = raw.get("tie_word_embeddings", True) and raw["model_type"] != "mt5"
    rescale = raw.get("scale_decoder_outputs", together)
    return T5Config(
        **fields,
        num_decoder_layers=(
            fields["num_encoder_layers"] if decoder_layers is None else decoder_layers
        ),
        tied_embeddings=tied,
        rescale_output=rescale,
    )


def _write_config(config: T5Config) -> dict[str, Any]:
    """What config.json says of a model; token ids are those of every published T5."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _FIELDS.items()},
        "num_decoder_layers": config.num_decoder_layers,
        "tie_word_embeddings": config.tied_embeddings,
        "scale_decoder_outputs": config.rescale_output,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }


def table(config: T5Config) -> list[Row]:
    """Every parameter of a T5 of this shape, once."""
    rows = [Row("token_embedder/embedding", _EMBEDDING)]
    depths = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    for stack, depth in depths.items():
        rows += _stack(stack, depth, gated=config.activation == "gated-gelu")
    if not config.tied_embeddings:
        rows.append(Row("logits_dense/kernel", _HEAD, transposed=True))
    return rows


def _stack(stack: str, depth: int, *, gated: bool) -> Iterator[Row]:
    bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Row(f"{stack}/relpos_bias/rel_embedding", bias, transposed=True)
    yield Row(f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight")
    matrices = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    for position, (part, norm, theirs) in enumerate(_SUBLAYERS[stack]):
        block = f"{stack}.block.{{}}.layer.{position}"
        yield Row(f"{stack}/layers/{norm}/scale", f"{block}.layer_norm.weight", layers=depth)
        names = {name: name for name in matrices} if part == "mlp" else _PROJECTIONS
        for our_name, their_name in names.items():
            ours = f"{stack}/layers/{part}/{our_name}/kernel"
            yield Row(ours, f"{block}.{theirs}.{their_name}.weight", transposed=True, layers=depth)


T5 = Architecture(
    family="t5",
    model_types=("t5", "mt5"),
    config_type=T5Config,
    read_config=_read_config,
    write_config=_write_config,
    build=t5.build,
    table=table,
    embedding=_EMBEDDING,
    head=_HEAD,
    copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    # Stands in old files.
    ignored=re.compile(
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    ),
)
