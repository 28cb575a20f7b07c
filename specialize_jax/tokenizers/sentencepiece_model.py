"""SentencePiece models."""

import functools
import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from specialize_jax.tokenizers.base import MARKER, Tokenizer

_T5_EXTRA_IDS = 100
MODEL_TYPES = ("unigram", "bpe")
# Printable ASCII with single white space inside.
_PLAIN = re.compile(r"[!-~]+(?:[ \n][!-~]+)*")


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model, with T5's extra ids behind its pieces where wanted."""

    def __init__(self, path: str, name: str, model: bytes, extra_ids: int | None = None) -> None:
        """Reads a serialized model; see `load` for the arguments."""
        import sentencepiece

        try:
            # An empty model makes a processor that is not initialised instead of an error.
            if not model:
                raise RuntimeError("the file is empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(
                f"{path!r}: expected a complete SentencePiece model, got {len(model)} bytes that "
                f"are none: {error}"
            ) from error
        processor = self._processor
        self.path, self.name = path, name
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.eos_id, self.unk_id = processor.eos_id(), processor.unk_id()
        self.pad_id = processor.pad_id() if processor.pad_id() >= 0 else None
        layout = (len(processor), self.pad_id, self.eos_id, self.unk_id)
        if extra_ids is None:
            extra_ids = _T5_EXTRA_IDS if layout == (32_000, 0, 1, 2) else 0
        self.extra_ids = extra_ids
        self.vocab_size = len(processor) + extra_ids

    def __reduce__(self) -> tuple[Any, ...]:
        load, arguments = super().__reduce__()
        return functools.partial(load, extra_ids=self.extra_ids), arguments

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        return self._processor.encode(text)

    def encode_surfaces(self, text: str) -> list[str]:
        """Returns the pieces of a text as `encode` cuts it; an unknown run as its own characters.

        The characters are those of the normalised text, U+2581 for every space.
        """
        return self._processor.encode(text, out_type=str)

    def surfaces_to_ids(self, surfaces: Iterable[str]) -> list[int]:
        """Returns the ids of what `encode_surfaces` returned."""
        return [self._processor.piece_to_id(surface) for surface in surfaces]

    def ordinary_pieces(self) -> list[str]:
        """Returns every piece that stands for its own text."""
        return [self._piece(i) for i in range(len(self._processor)) if self._is_ordinary(i)]

    def encode_with_spans(self, text: str) -> tuple[list[int], np.ndarray]:
        """Encodes a text and says which of its bytes each token stands for; see `Tokenizer`.

        Through the model's own normaliser (for T5: NFKC, white space collapsed):

        - A run of white space belongs whole to the marker it becomes, one at the start of the text
          to the first marker; a marker that stands for no byte of the text has zero width.
        - White space that is dropped at the end of the text belongs to no token: the last span
          ends before it. Any other character that is dropped belongs to the one before it.
        - An unknown token spans all the characters it stands for, a byte piece its one byte.
        - Where normalising changes characters, the least segment of the text that it maps as a
          whole belongs to every token with a part of its image: three tokens `▁1 ⁄ 2` for a
          U+00BD all span the two bytes of it.
        """
        source = text.encode()
        normalized, segments = self._processor.normalize(source, with_offsets=True)
        encoded = self._processor.encode(source, return_type="offset_mapping")
        ids = encoded["ids"]
        if not ids:
            return [], np.zeros((0, 2), np.int32)
        # Pieces are normalised text, an unknown's its surface; only a byte piece spells its byte.
        sizes = [
            1 if token_id in self._byte_ids else len(piece)
            for token_id, piece in zip(ids, encoded["pieces"], strict=True)
        ]
        prefix = len(self._prefix) if normalized.startswith(self._prefix) else 0
        starts, ends = _normalized_bytes_in_source(source, normalized, np.asarray(segments), prefix)
        bounds = np.cumsum(sizes)
        return ids, np.stack([starts[bounds - sizes], ends[bounds - 1]], axis=1).astype(np.int32)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts at once, without end-of-sequence.

        Returns:
          [S] int32 ids of all `R` texts, and [R + 1] int64: the ids of text `r` are those from
          `offsets[r]` to `offsets[r + 1]`.
        """
        encoded = self._processor.encode(list(texts), num_threads=1)
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        flat = itertools.chain.from_iterable(encoded)
        return np.fromiter(flat, np.int32, int(offsets[-1])), offsets

    def encode_batch_with_spans(
        self, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Is `encode_with_spans` for many texts at once.

        Returns:
          Ids and offsets as `encode_batch`, and between them [S, 2] int32 spans.
        """
        ids, offsets = self.encode_batch(texts)
        sizes = self._sizes[ids]
        ends = np.cumsum(sizes)
        counts = np.diff(offsets)
        before = np.concatenate([[0], ends])[offsets[:-1]]
        # The marker before the text stands for no byte.
        ends = ends - np.repeat(before, counts) - 1
        spans = np.stack([np.maximum(ends - sizes, 0), ends], axis=1).astype(np.int32)
        nothing = np.concatenate([[0], np.cumsum(sizes == 0)])
        is_plain = nothing[offsets[1:]] == nothing[offsets[:-1]]
        for r, (text, normal) in enumerate(
            zip(texts, self._processor.normalize(list(texts)), strict=True)
        ):
            if not (is_plain[r] and _is_plain(text, normal)):
                spans[offsets[r] : offsets[r + 1]] = self.encode_with_spans(text)[1]
        return ids, spans, offsets

    @functools.cached_property
    def _sizes(self) -> np.ndarray:
        """[vocab_size] int32; characters of each piece, 0 where it does not stand for its text."""
        return np.array(
            [len(self._piece(i)) if self._is_ordinary(i) else 0 for i in range(self.vocab_size)],
            np.int32,
        )

    @functools.cached_property
    def _byte_ids(self) -> frozenset[int]:
        return frozenset(filter(self._processor.is_byte, range(len(self._processor))))

    @functools.cached_property
    def _prefix(self) -> bytes:
        """What the normaliser puts before every text: a marker or nothing."""
        normalized = self._processor.normalize(b"a")
        return normalized.removesuffix(b"a")

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer`."""
        return self._processor.decode([int(i) for i in ids if 0 <= i < len(self._processor)])

    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Returns each token's bytes: a marker is a space, a byte piece its byte.

        A token that stands for no text of its own (end of sequence) has none.

        Raises:
          ValueError: an id of no token.
        """
        found = []
        for token_id, piece in zip(ids := [int(i) for i in ids], self.pieces(ids), strict=True):
            if token_id in self._byte_ids:
                found.append(bytes.fromhex(piece[3:-1]))  # <0x0A>
            else:
                text = piece.replace(MARKER, " ") if self._is_ordinary(token_id) else ""
                found.append(text.encode())
        return found

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Returns each piece with its marker."""
        return [self._piece(int(i)) for i in ids]

    def _piece(self, token_id: int) -> str:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"ids must be in [0, {self.vocab_size}), got {token_id}")
        if token_id < len(self._processor):
            return self._processor.id_to_piece(token_id)
        # T5 counts its sentinels down: the last id is <extra_id_0>.
        return f"<extra_id_{self.vocab_size - 1 - token_id}>"

    def piece_to_id(self, piece: str) -> int | None:
        """See `Tokenizer`."""
        return self._ids.get(piece)

    def bytes_to_id(self, token: bytes) -> int | None:
        """See `Tokenizer`."""
        try:
            piece = token.decode("utf-8").replace(" ", MARKER)
        except UnicodeDecodeError:
            return None
        token_id = self._ids.get(piece)
        return None if token_id is None or not self._is_ordinary(token_id) else token_id

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {self._piece(i): i for i in range(self.vocab_size)}

    def _is_ordinary(self, token_id: int) -> bool:
        """Whether a piece stands for its own text."""
        processor = self._processor
        return token_id < len(processor) and not (
            processor.is_control(token_id)
            or processor.is_unknown(token_id)
            or processor.is_unused(token_id)
            or processor.is_byte(token_id)
        )


def _is_plain(text: str, normalized: str) -> bool:
    """Whether each byte of a text is one character of its normalised form, a marker before them."""
    if not _PLAIN.fullmatch(text):
        return False
    return normalized == MARKER + text.replace("\n", MARKER).replace(" ", MARKER)


def _normalized_bytes_in_source(
    source: bytes, normalized: bytes, segments: np.ndarray, prefix: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the bytes of a text that each byte of its normalised form stands for.

    Args:
      source: the text, UTF-8.
      normalized: `N` >= 1 bytes.
      segments: [N + 1] int; where the segment of the source starts that each normalised byte comes
        from, and where the last one ends. Never decreases.
      prefix: normalised bytes at the start that stand for nothing but what is dropped there.

    Returns:
      [N] starts and [N] ends of half-open ranges of the source.
    """
    # Normalised bytes [first, last) come from the source's bytes [starts, ends).
    starts = segments[:-1].copy()
    heads = np.flatnonzero(np.diff(starts, prepend=-1))
    sizes = np.diff(heads, append=len(normalized))
    first, last = np.repeat(heads, sizes), np.repeat(heads + sizes, sizes)
    ends = segments[last]
    first = np.maximum(first, prefix)  # the prefix has the segment of the first real character
    places = np.arange(len(normalized))
    # A segment that normalising leaves as it is can be divided into its bytes.
    itself = starts + places - first
    read = np.frombuffer(source, np.uint8)[np.clip(itself, 0, len(source) - 1)]
    different = np.concatenate([[0], np.cumsum(read != np.frombuffer(normalized, np.uint8))])
    same = (ends - starts == last - first) & (different[last] == different[first])
    starts, ends = np.where(same, itself, starts), np.where(same, itself + 1, ends)
    # What is dropped at the start of the text goes to the first token.
    ends[:prefix] = segments[prefix]
    starts[: max(prefix, 1)] = 0
    return starts, ends


def train(texts: Iterable[str], vocab_size: int, model_type: str = "unigram") -> bytes:
    """Learns a SentencePiece model, laid out and normalised as T5's.

    Padding is 0, end of sequence 1, unknown 2; text is NFKC-normalised, and every run of white
    space, newlines included, becomes one space.

    Args:
      texts: what to learn from; the same texts give the same model.
      vocab_size: pieces in all.
      model_type: "unigram", as T5's, or "bpe", which fits a small closed world better: unigram
        takes up no piece that stands in one word alone, however frequent.

    Returns:
      The content of a `.model` file.

    Raises:
      ValueError: unknown type, or the texts do not allow a vocabulary of this size; says which
        sizes they allow.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"unknown model type '{model_type}'; choices: {', '.join(MODEL_TYPES)}")
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # A sentence of the trainer's is one line.
            sentence_iterator=(line for text in texts for line in text.split("\n") if line),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"cannot learn {vocab_size} pieces: {str(error).rpartition(']')[2].strip() or error}"
        ) from error
    return model.getvalue()
