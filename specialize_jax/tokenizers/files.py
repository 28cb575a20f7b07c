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

import abc
import base64
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_MARKER = "\u2581"
_T5_EXTRA_IDS = 100
MODEL_TYPES = ("unigram", "bpe")

# name -> (split pattern, special tokens), from the `tiktoken` package (tiktoken_ext/openai_public).
_TIKTOKEN: dict[str, tuple[str, dict[str, int]]] = {
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

_HUGGING_FACE = "tokenizer.json"
# What `tokenizer.json` does not say, for files without a `tokenizer_config.json` beside them.
_USUAL_NAMES = {
    "eos_token": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"),
    "pad_token": ("<pad>", "[PAD]"),
}

# Numbers of ranks in the published files.
_TIKTOKEN_SIZES = {"p50k_base": 50_280, "cl100k_base": 100_256}


def load(path: Any, *, extra_ids: int | None = None) -> "Tokenizer":
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
    from etils import epath

    file = epath.Path(path)
    ranks = [f"{name}.tiktoken" for name in _TIKTOKEN]
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
    return TiktokenTokenizer(str(path), file.stem, file.read_bytes())


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


def vocabulary_map(byte_strings: Sequence[bytes], tokenizer: "Tokenizer") -> np.ndarray:
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
    def piece_to_id(self, piece: str) -> int | None:
        """Returns the id whose piece this is, control and extra pieces included."""

    @abc.abstractmethod
    def bytes_to_id(self, token: bytes) -> int | None:
        """Returns the id of the ordinary token that stands for exactly these bytes."""


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
        return functools.partial(load, extra_ids=self.extra_ids), (self.path,)

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
            piece = token.decode("utf-8").replace(" ", _MARKER)
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


def _consecutive(sizes: np.ndarray) -> np.ndarray:
    """Returns [S, 2] int32 spans of these sizes, one behind the other from 0."""
    ends = np.cumsum(sizes, dtype=np.int32)
    return np.stack([ends - sizes, ends], axis=1).astype(np.int32)


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


class TiktokenTokenizer(Tokenizer):
    """A byte-level BPE of the `tiktoken` package, its ranks read from a file."""

    pad_id = None
    unk_id = None

    def __init__(self, path: str, name: str, ranks: bytes) -> None:
        """Reads lines of `base64(token bytes) rank`; see `load` for the arguments."""
        import tiktoken

        pattern, special = _TIKTOKEN[name]
        self._ranks = _read_ranks(path, ranks)
        # A file cut at the end of a line, or within the last rank, reads well: count the ranks.
        if (count := len({*self._ranks.values()})) != _TIKTOKEN_SIZES[name]:
            raise ValueError(
                f"{path!r}: expected {_TIKTOKEN_SIZES[name]} ranks of {name}, got {count}: the "
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

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.path,)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text; the spelling of a special token is text like any other."""
        return self._encoding.encode_ordinary(text)

    def encode_with_spans(self, text: str) -> tuple[list[int], np.ndarray]:
        """See `Tokenizer`; every byte of the text belongs to exactly one token."""
        # Without this tiktoken would take U+FFFD for a lone surrogate.
        text.encode()
        ids = self.encode(text)
        return ids, _consecutive(self._sizes[ids])

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


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of Hugging Face's `tokenizers` package.

    Two kinds. The pieces of a byte-level one (GPT-2, Llama 3, Qwen) are bytes, spelled in GPT-2's
    alphabet, where `Ġ` is a space. Those of any other are text, and spans rest on the library's
    offsets.
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
        self._has_marker = _MARKER in json.dumps(rules, ensure_ascii=False)
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

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.path,)

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
                spans = _consecutive(np.array([len(token) for token in tokens], np.int32))
                return encoding.ids, np.maximum(spans - (len(spelled) - len(source)), 0)
        return encoding.ids, self._spans_by_offsets(text, encoding.tokens, encoding.offsets)

    def _spans_by_offsets(
        self, text: str, pieces: Sequence[str], offsets: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Makes byte spans of the library's ranges of characters."""
        spans = np.zeros((len(pieces), 2), np.int32)
        marked = text[:1].isspace() or text.startswith(_MARKER)
        last = 0  # end of the token before
        for j, (start, end) in enumerate(offsets):
            # A marker that stands for no white space, at the start: the library lends it a letter.
            if j == 0 and pieces[0] == _MARKER and not marked:
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
        """Returns the bytes of a token of a byte-level tokenizer."""
        if token_id in self._added:
            return self._added[token_id].content.encode()
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:
            raise ValueError(f"ids must be in [0, {self.vocab_size}), got {token_id}")
        return piece.translate(_byte_of_character()).encode("latin-1")

    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Returns each token's bytes, which need not be valid UTF-8 by themselves.

        Raises:
          ValueError: an id of no token, or the tokenizer is not byte-level.
        """
        if not self._byte_level:
            raise ValueError(f"{self.path!r}: only tokens of a byte-level tokenizer have bytes")
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
            piece = token.decode("utf-8", errors="ignore").replace(" ", _MARKER)
            if piece.replace(_MARKER, " ").encode() != token or _BYTE_PIECE.fullmatch(piece):
                return None
        else:
            return None
        token_id = self._vocabulary.get(piece)
        return None if token_id == self.unk_id or self._is_added(token_id) else token_id

    def _is_added(self, token_id: int | None) -> bool:
        return token_id in self._added


_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


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
