"""Byte-level tokenizers in Hugging Face's form: small ones, and GPT-2's own."""

import json

import tokenizers as hugging_face
from tokenizers import decoders, models, pre_tokenizers

from tests.real_data import data_dir


def save(folder, tokenizer, **config):
    """Writes a tokenizer as its publishers do; returns the path."""
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def byte_level(*words, normalizer=None, prefix_space=False, special=("<|endoftext|>",)):
    """A byte-level BPE of all bytes and of some words, in GPT-2's alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = list(alphabet), []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    model = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    return _tokenizer(model, prefix_space, special, normalizer)


def real_gpt2():
    """GPT-2's own; skips the test where the real data is absent."""
    folder = data_dir() / "tokenizer_gpt2"
    model = models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    return _tokenizer(model)


def _tokenizer(model, prefix_space=False, special=("<|endoftext|>",), normalizer=None):
    tokenizer = hugging_face.Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return tokenizer
