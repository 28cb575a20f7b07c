"""Files of a Hugging Face folder that belong to the model, and are carried along as they are."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from specialize_jax import tokenizers

CONFIG = "config.json"
PIECES = "spiece.model"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    PIECES,
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
FILES = (*TOKENIZER, "generation_config.json")


def copy(source: epath.PathLike, target: epath.PathLike) -> list[str]:
    """Copies those of `FILES` that are in `source`; returns their names."""
    source, target = epath.Path(source), epath.Path(target)
    found = [name for name in FILES if (source / name).exists()]
    for name in found:
        (target / name).write_bytes((source / name).read_bytes())
    return found


def vocabulary(folder: epath.PathLike) -> tuple[str, int] | None:
    """The tokenizer with the largest vocabulary in a folder.

    Args:
      folder: of Hugging Face's form.

    Returns:
      Its file and one more than its largest id; None where there is no tokenizer.

    Raises:
      ValueError: a tokenizer's file is damaged.
    """
    folder = epath.Path(folder)
    sizes = {}
    if (folder / PIECES).exists():
        sizes[PIECES] = tokenizers.load(folder / PIECES).vocab_size
    for name in ("tokenizer.json", "vocab.json"):
        if (folder / name).exists():
            sizes[name] = _largest_id(folder / name) + 1
    return max(sizes.items(), key=lambda item: item[1], default=None)


def _largest_id(path: epath.Path) -> int:
    """The largest id of a tokenizer.json or vocab.json, without the library that reads them."""
    try:
        raw = json.loads(path.read_text())
        if path.name == "vocab.json":
            return max(raw.values(), default=-1)
        vocab = raw["model"]["vocab"]
        pieces = max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1
        return max([pieces, *(token["id"] for token in raw.get("added_tokens", []))])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the tokenizer's vocabulary cannot be read: {error!r}") from error


def read_config(folder: epath.PathLike) -> dict[str, Any]:
    """Reads config.json.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no JSON object.
    """
    path = epath.Path(folder) / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"Expected a Hugging Face folder, found no {path}.")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(raw).__name__}.")
    return raw


def write_config(folder: epath.Path, value: Mapping[str, Any]) -> None:
    """Writes config.json."""
    (folder / CONFIG).write_text(json.dumps(value, indent=2) + "\n")
