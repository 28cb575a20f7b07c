"""Hugging Face's config.json of a T5 <-> `T5Config`."""

from collections.abc import Mapping
from typing import Any

from specialize_jax.models.t5 import T5Config

MODEL_TYPES = ("t5", "mt5")
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


def from_hf(raw: Mapping[str, Any], *, tied: bool) -> T5Config:
    """Reads config.json.

    Args:
      raw: its content.
      tied: whether the head is the embedding; the tensors know this better than the config.

    Returns:
      The config, in float32 and without rematerialisation.

    Raises:
      ValueError: another kind of model, or an activation that we do not build.
    """
    kind = raw.get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"Expected model_type in config.json to be one of {', '.join(MODEL_TYPES)}, "
            f"got {kind!r}."
        )
    fields = {ours: raw.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    decoder_layers = raw.get("num_decoder_layers")
    # `scale_decoder_outputs` is transformers 5; before, tying and rescaling went together.
    rescale = raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings", True))
    return T5Config(
        **fields,
        num_decoder_layers=(
            fields["num_encoder_layers"] if decoder_layers is None else decoder_layers
        ),
        tied_embeddings=tied,
        rescale_output=rescale,
    )


def to_hf(config: T5Config) -> dict[str, Any]:
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
