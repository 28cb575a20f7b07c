"""Hugging Face's `tokenizer.json`."""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from specialize_jax.tokenizers.base import MARKER, Tokenizer, consecutive

# What `tokenizer.json` does not say, for files without a `tokenizer_config.json` beside them.
_USUAL_NAMES = {
    "eos_token": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"),
    "pad_token": ("<pad>", "[PAD]"),
}
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of Hugging Face's `tokenizers` package.

    Two kinds. The pieces of a byte-level one (GPT-2, Llama 3, Qwen) are bytes, spelled in GPT-2's
    alphabet, where `Ġ` is a space. Those of any other are text, and spans rest on the library's
    offsets; where they mark spaces (T5, Llama 2) they have bytes, too.
    """

    def __init__(self, path: str, name: str, content: bytes, special: dict[str, Any]) -> None:
        """Reads a serialized tokenizer; see `load` for the arguments.

        Args:
          path: where it was loaded from.
          name: the file's name without its suffix.
          content: of the file.
          special: "eos_token" and "pad_token" as in a `tokenizer_config.json`; what it lacks is
            looked for under its usual names.
        """
        import tokenizers

        try:
            spec = json.loads(content)
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(
                f"{path!r}: expected a complete tokenizer.json, got {len(content)} bytes that are "
                f"none: {error}"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # The spelling of a special token is text like any other.
        self._tokenizer.encode_special_tokens = True
        self._byte_level = (spec.get("decoder") or {}).get("type") == "ByteLevel"
        rules = {part: spec.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")}
        self._has_marker = MARKER in json.dumps(rules, ensure_ascii=False)
        self._added = self._tokenizer.get_added_tokens_decoder()
        self._vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.path, self.name = path, name
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.vocab_size = max(self._vocabulary.values(), default=-1) + 1
        eos_id = self._find("eos_token", special)
        if eos_id is None:
            raise ValueError(
                f"{path!r}: no end-of-sequence token; expected an 'eos_token' in a "
                f"tokenizer_config.json beside it or one of {', '.join(_USUAL_NAMES['eos_token'])}"
            )
        self.eos_id, self.pad_id = eos_id, self._find("pad_token", special)
        model = spec["model"]
        self.unk_id = model.get("unk_id", self._vocabulary.get(model.get("unk_token")))

    def _find(self, role: str, special: dict[str, Any]) -> int | None:
        """Returns the id of the token with a role; None if there is none."""
        named = special.get(role)
        if isinstance(named, dict):
            named = named.get("content")
        names = _USUAL_NAMES[role] if named is None else (named,)
        return next((self._vocabulary[n] for n in names if n in self._vocabulary), None)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text; the spelling of a special token is text like any other."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_with_spans(self, text: str) -> tuple[list[int], np.ndarray]:
        """Encodes a text and says which of its bytes each token stands for; see `Tokenizer`.

        Exact for a byte-level tokenizer that does not change the text, save for a space it puts
        before it. For any other by the library's offsets, made monotone and gap-free as those of
        a SentencePiece model: what they leave out belongs to the token before up to the first
        white space, from there to the next; white space at the end belongs to none. They count
        characters, so all tokens that share a character have the whole of it, and they can be off
        by a character where the normaliser drops or joins some.
        """
        source = text.encode()
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if self._byte_level:
            tokens = [self._bytes(token_id) for token_id in encoding.ids]
            spelled = b"".join(tokens)
            if spelled in (source, b" " + source):
                spans = consecutive(np.array([len(token) for token in tokens], np.int32))
                return encoding.ids, np.maximum(spans - (len(spelled) - len(source)), 0)
        return encoding.ids, self._spans_by_offsets(text, encoding.tokens, encoding.offsets)

    def _spans_by_offsets(
        self, text: str, pieces: Sequence[str], offsets: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Makes byte spans of the library's ranges of characters."""
        spans = np.zeros((len(pieces), 2), np.int32)
        marked = text[:1].isspace() or text.startswith(MARKER)
        last = 0  # end of the token before
        for j, (start, end) in enumerate(offsets):
            # A marker that stands for no white space, at the start: the library lends it a letter.
            if j == 0 and pieces[0] == MARKER and not marked:
                end = start = 0
            if start > last and j:
                after = _first_space(text, last, start)
                spans[:j, 1][spans[:j, 1] == last] = after  # all tokens that share a character
                last = after
            start = min(start, last)
            last = max(last, end)
            spans[j] = start, last
        spans[:, 1][spans[:, 1] == last] = _first_space(text, last, len(text))
        # Starts must not decrease either: a later token may share the segment of an earlier one.
        spans[:, 0] = np.minimum.accumulate(spans[::-1, 0])[::-1]
        sizes = [len(char.encode()) for char in text]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int32)])[spans].astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer`; every special token is left out."""
        known = [int(i) for i in ids if 0 <= i < self.vocab_size]
        return self._tokenizer.decode(known, skip_special_tokens=True)

    def _bytes(self, token_id: int) -> bytes:
        """Returns the bytes of a token of a byte-level tokenizer, or one with markers."""
        if token_id in self._added:
            return self._added[token_id].content.encode()
        piece = self._piece(token_id)
        if not self._byte_level:
            is_byte = _BYTE_PIECE.fullmatch(piece)
            return bytes.fromhex(piece[3:-1]) if is_byte else piece.replace(MARKER, " ").encode()
        return piece.translate(_byte_of_character()).encode("latin-1")

    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Returns each token's bytes, which need not be valid UTF-8 by themselves.

        Raises:
          ValueError: an id of no token, or the tokenizer neither is byte-level nor marks spaces.
        """
        if not self._byte_level and not self._has_marker:
            raise ValueError(
                f"{self.path!r}: only tokens of a byte-level tokenizer have bytes, and of one "
                "that marks spaces"
            )
        return [self._bytes(int(i)) for i in ids]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Returns each token as the file spells it; a byte-level one as text, U+FFFD where none."""
        if self._byte_level:
            return [token.decode("utf-8", errors="replace") for token in self.token_bytes(ids)]
        return [self._piece(int(i)) for i in ids]

    def _piece(self, token_id: int) -> str:
        piece = self._tokenizer.id_to_token(token_id) if token_id >= 0 else None
        if piece is None:
            raise ValueError(f"ids must be in [0, {self.vocab_size}), got {token_id}")
        return piece

    def piece_to_id(self, piece: str) -> int | None:
        """See `Tokenizer`."""
        if self._byte_level and not self._is_added(self._vocabulary.get(piece)):
            return self.bytes_to_id(piece.encode())
        return self._vocabulary.get(piece)

    def bytes_to_id(self, token: bytes) -> int | None:
        """See `Tokenizer`; None throughout if pieces are neither bytes nor text with markers."""
        if self._byte_level:
            piece = "".join(_byte_alphabet()[byte] for byte in token)
        elif self._has_marker:
            # `<0x0A>` is a byte, not its spelling.
            piece = token.decode("utf-8", errors="ignore").replace(" ", MARKER)
            if piece.replace(MARKER, " ").encode() != token or _BYTE_PIECE.fullmatch(piece):
                return None
        else:
            return None
        token_id = self._vocabulary.get(piece)
        return None if token_id == self.unk_id or self._is_added(token_id) else token_id

    def _is_added(self, token_id: int | None) -> bool:
        return token_id in self._added


@functools.cache
def _byte_alphabet() -> str:
    """Returns the character that stands for each byte in a byte-level vocabulary.

    The printable ones of Latin-1 stand for themselves; the others follow from U+0100 in the order
    of their bytes (`bytes_to_unicode` in https://github.com/openai/gpt-2, src/encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


@functools.cache
def _byte_of_character() -> dict[int, int]:
    return {ord(char): byte for byte, char in enumerate(_byte_alphabet())}


def _first_space(text: str, start: int, end: int) -> int:
    """Returns the place of the first white space in [start, end); `end` if there is none."""
    return next((i for i in range(start, end) if text[i].isspace()), end)
