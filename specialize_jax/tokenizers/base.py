"""What every tokenizer of this room does, and what they share."""

import abc
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MARKER = "\u2581"


class Tokenizer(abc.ABC):
    """Text to ids and back.

    Attributes:
      name: the file's name without its suffix.
      path: where it was loaded from.
      sha256: of the file's content, in hexadecimal.
      vocab_size: one more than the largest id, extra ids included.
      eos_id: the end-of-sequence token.
      pad_id: the padding token; None if there is none.
      unk_id: the token for what the vocabulary lacks; None if it lacks nothing.
    """

    name: str
    path: str
    sha256: str
    vocab_size: int
    eos_id: int
    pad_id: int | None
    unk_id: int | None

    def __reduce__(self) -> tuple[Any, ...]:
        from specialize_jax.tokenizers.files import load  # which imports this module

        return load, (self.path,)

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without end-of-sequence."""

    @abc.abstractmethod
    def encode_with_spans(self, text: str) -> tuple[list[int], np.ndarray]:
        """Encodes a text and says which of its bytes each token stands for.

        The first span starts at 0; starts and ends never decrease. A span starts where the one
        before ends, except that tokens which share what cannot be divided (one ligature made two
        letters, and they fell to two tokens) all have the whole of it: a span that starts before
        the end of the one before starts inside such a segment.

        Args:
          text: any text that UTF-8 can hold, so without lone surrogates.

        Returns:
          The ids of `encode`, and [S, 2] int32 half-open ranges of bytes of `text.encode()`.

        Raises:
          UnicodeEncodeError: the text has a lone surrogate.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of some ids.

        Padding, end-of-sequence, extra ids and ids beyond the vocabulary (a model's may be padded)
        stand for no text and are left out.
        """

    @abc.abstractmethod
    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Returns each token as text: a SentencePiece piece with its marker, or decoded bytes."""

    @abc.abstractmethod
    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Returns each token's bytes, which need not be valid UTF-8 by themselves.

        Raises:
          ValueError: an id of no token, or the tokenizer's tokens have no bytes of their own.
        """

    @abc.abstractmethod
    def piece_to_id(self, piece: str) -> int | None:
        """Returns the id whose piece this is, control and extra pieces included."""

    @abc.abstractmethod
    def bytes_to_id(self, token: bytes) -> int | None:
        """Returns the id of the ordinary token that stands for exactly these bytes."""


def vocabulary_map(byte_strings: Sequence[bytes], tokenizer: Tokenizer) -> np.ndarray:
    """Finds the token that is exactly each byte string.

    For SentencePiece the bytes must be valid UTF-8 that, with U+2581 for every space, is an
    ordinary piece: neither a control piece (`</s>`), nor unknown, nor an extra id.

    Args:
      byte_strings: `M` tokens of a teacher.
      tokenizer: the student's.

    Returns:
      [M] int32; the student's id, -1 where it has no such token.
    """
    ids = map(tokenizer.bytes_to_id, byte_strings)
    found = (-1 if token_id is None else token_id for token_id in ids)
    return np.fromiter(found, np.int32, len(byte_strings))


def consecutive(sizes: np.ndarray) -> np.ndarray:
    """Returns [S, 2] int32 spans of these sizes, one behind the other from 0."""
    ends = np.cumsum(sizes, dtype=np.int32)
    return np.stack([ends - sizes, ends], axis=1).astype(np.int32)
