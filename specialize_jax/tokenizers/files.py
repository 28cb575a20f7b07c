"""Tokenizers from files alone: SentencePiece, tiktoken, Hugging Face. Never the network.

| file                   | form                                                                    |
|------------------------|-------------------------------------------------------------------------|
| `*.model`              | a SentencePiece model                                                   |
| `p50k_base.tiktoken`   | byte-level BPE of code-davinci-002 and text-davinci-002/003             |
| `cl100k_base.tiktoken` | byte-level BPE of gpt-3.5-turbo and gpt-4                               |
| `tokenizer.json`       | any tokenizer of Hugging Face's `tokenizers`                            |

A `.tiktoken` file holds ranks only; the split pattern and the special tokens belong to its name.
The tokenizer libraries are imported when a file is loaded. A tokenizer pickles as its path.
"""

import json
from typing import Any

from etils import epath

from specialize_jax.tokenizers import tiktoken_ranks
from specialize_jax.tokenizers.base import Tokenizer
from specialize_jax.tokenizers.hugging_face import HuggingFaceTokenizer
from specialize_jax.tokenizers.sentencepiece_model import SentencePieceTokenizer

_HUGGING_FACE = "tokenizer.json"


def load(path: Any, *, extra_ids: int | None = None) -> Tokenizer:
    """Loads a tokenizer from one file.

    Args:
      path: a `.model`, `.tiktoken` or `tokenizer.json` file (see the table above), local or remote
        (`gs://`). The special tokens of a `tokenizer.json` are those that `tokenizer_config.json`
        beside it names, if there is one.
      extra_ids: sentinel ids that follow the pieces of a SentencePiece model, as T5's
        `<extra_id_0>`. None: 100 if the model is laid out as T5's (32,000 pieces, padding 0,
        end 1, unknown 2), so that it counts 32,100 like T5's published tokenizer; else 0.

    Returns:
      A `Tokenizer`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file's name says no form known here, its content is cut or of another form,
        it has no end-of-sequence token, or extra ids are asked of another form than `.model`.
    """
    file = epath.Path(path)
    ranks = [f"{name}.tiktoken" for name in tiktoken_ranks.KNOWN]
    known = ["*.model (SentencePiece)", *ranks, _HUGGING_FACE]
    if file.suffix != ".model" and file.name not in [*ranks, _HUGGING_FACE]:
        raise ValueError(f"unknown tokenizer file {str(path)!r}; known are {', '.join(known)}")
    if not file.exists():
        raise FileNotFoundError(
            f"no tokenizer file at {str(path)!r}; known forms are {', '.join(known)}"
        )
    if file.suffix == ".model":
        return SentencePieceTokenizer(str(path), file.stem, file.read_bytes(), extra_ids)
    if extra_ids:
        raise ValueError(f"extra_ids are for SentencePiece models, got {extra_ids} for {file.name}")
    if file.name == _HUGGING_FACE:
        config = file.parent / "tokenizer_config.json"
        special = json.loads(config.read_text()) if config.exists() else {}
        return HuggingFaceTokenizer(str(path), file.stem, file.read_bytes(), special)
    return tiktoken_ranks.TiktokenTokenizer(str(path), file.stem, file.read_bytes())
