"""How many parameters a student has, from the shape that its `checkpoints/config.json` states."""

from collections.abc import Mapping
from typing import Any


def parameters(config: Mapping[str, Any]) -> int | None:
    """Returns the number of parameters of a student; None where its family is not known.

    Args:
      config: `checkpoints/config.json` of a run: `family` and, under `model`, its shape.
    """
    count = _FAMILIES.get(str(config.get("family")))
    try:
        return None if count is None else count(config["model"])
    except (KeyError, TypeError):
        return None


def _t5(shape: Mapping[str, Any]) -> int:
    d, inner = shape["d_model"], shape["num_heads"] * shape["d_kv"]
    attention, norm = 4 * d * inner, d
    is_gated = shape["activation"].startswith("gated")
    feed_forward = (3 if is_gated else 2) * d * shape["d_ff"]
    bias = shape["relative_buckets"] * shape["num_heads"]
    encoder = shape["num_encoder_layers"] * (attention + feed_forward + 2 * norm)
    decoder = shape["num_decoder_layers"] * (2 * attention + feed_forward + 3 * norm)
    embeddings = (1 if shape["tied_embeddings"] else 2) * shape["vocab_size"] * d
    return int(encoder + decoder + embeddings + 2 * (bias + norm))


def _gpt2(shape: Mapping[str, Any]) -> int:
    d, width = shape["d_model"], shape["d_ff"]
    norm = 2 * d
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * width + width + d
    layers = shape["num_layers"] * (attention + feed_forward + 2 * norm)
    return int(layers + (shape["vocab_size"] + shape["num_positions"]) * d + norm)


_FAMILIES = {"t5": _t5, "gpt2": _gpt2}
