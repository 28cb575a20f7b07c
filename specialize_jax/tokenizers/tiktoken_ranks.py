"""Byte-level BPE of the `tiktoken` package, its ranks read from a file."""

import base64
import functools
import hashlib
from collections.abc import Iterable

import numpy as np

from specialize_jax.tokenizers.base import Tokenizer, consecutive

# name -> (split pattern, special tokens), from the `tiktoken` package (tiktoken_ext/openai_public).
KNOWN: dict[str, tuple[str, dict[str, int]]] = {
    "p50k_base": (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        {"<|endoftext|>": 50256},
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
}

# Numbers of ranks in the published files.
_SIZES = {"p50k_base": 50_280, "cl100k_base": 100_256}


class TiktokenTokenizer(Tokenizer):
    """A byte-level BPE of the `tiktoken` package, its ranks read from a file."""

    pad_id = None
    unk_id = None

    def __init__(self, path: str, name: str, ranks: bytes) -> None:
        """Reads lines of `base64(token bytes) rank`; see `load` for the arguments."""
        import tiktoken

        pattern, special = KNOWN[name]
        self._ranks = _read_ranks(path, ranks)
        # A file cut at the end of a line, or within the last rank, reads well: count the ranks.
        if (count := len({*self._ranks.values()})) != _SIZES[name]:
            raise ValueError(
                f"{path!r}: expected {_SIZES[name]} ranks of {name}, got {count}: the "
                "file is cut or another one"
            )
        self._encoding = tiktoken.Encoding(
            name, pat_str=pattern, mergeable_ranks=self._ranks, special_tokens=special
        )
        self._special = special
        self.path, self.name = path, name
        self.sha256 = hashlib.sha256(ranks).hexdigest()
        self.eos_id = special["<|endoftext|>"]
        self.vocab_size = self._encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text; the spelling of a special token is text like any other."""
        return self._encoding.encode_ordinary(text)

    def encode_with_spans(self, text: str) -> tuple[list[int], np.ndarray]:
        """See `Tokenizer`; every byte of the text belongs to exactly one token."""
        # Without this tiktoken would take U+FFFD for a lone surrogate.
        text.encode()
        ids = self.encode(text)
        return ids, consecutive(self._sizes[ids])

    @functools.cached_property
    def _sizes(self) -> np.ndarray:
        """[vocab_size] int32; bytes of each token, 0 for ids that stand for none."""
        sizes = np.zeros(self.vocab_size, np.int32)
        for token, token_id in self._ranks.items():
            sizes[token_id] = len(token)
        return sizes

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer`."""
        special = self._special.values()
        return self._encoding.decode(
            [int(i) for i in ids if i not in special and i < self.vocab_size]
        )

    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Returns each token's bytes, which need not be valid UTF-8 by themselves."""
        return [self._encoding.decode_single_token_bytes(int(i)) for i in ids]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Returns each token's bytes as text, U+FFFD for what is not valid UTF-8."""
        return [token.decode("utf-8", errors="replace") for token in self.token_bytes(ids)]

    def piece_to_id(self, piece: str) -> int | None:
        """See `Tokenizer`."""
        return self._special.get(piece, self.bytes_to_id(piece.encode("utf-8")))

    def bytes_to_id(self, token: bytes) -> int | None:
        """See `Tokenizer`."""
        return self._ranks.get(token)


def _read_ranks(path: str, content: bytes) -> dict[bytes, int]:
    """Reads lines of `base64(token bytes) rank`; `path` is named in errors."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise ValueError(
                f"{path!r} line {number}: expected 'base64(token bytes) rank', got {line[:40]!r}"
            ) from error
    return ranks
