"""A GPT-2 with random weights, in a folder that other people's servers read.

It says what a trained teacher hardly ever says: bytes that are no text, and halves of characters.
Its answers end by themselves after a few tokens.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers as hugging_face

from specialize_jax import convert, models, tokenizers
from specialize_jax.models import Model
from tests.byte_level import byte_level, save
from tests.quick_jit import quick_jit

POSITIONS = 256
# A chat template, and what it makes of one message of a user.
_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
CHAT = "user: {}\nassistant:"
# In GPT-2's alphabet. The beginnings of a word are tokens too, here also such that cut a character.
_BYTE_LEVEL = ("ĠtheĠanswerĠis", "ĠcafÃ©", "æĹ¥", "12", "34", "ing", "an", "er", "on")
_FALLBACK = ("▁the", "▁café", "日", "12", "34", "ing", "an", "er", "on")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher.

    Attributes:
      folder: what a server reads.
      tokenizer: that of its tokenizer.json.
      values: [V] bytes of each token; empty for those that are no text.
      end: the token behind an answer.
      model: of the same weights, for an independent pass.
      params: the weights.
    """

    folder: pathlib.Path
    tokenizer: hugging_face.Tokenizer
    values: list[bytes]
    end: int
    model: Model
    params: dict

    def logprobs(self, before: Sequence[int], ids: Sequence[int], temperature: float) -> np.ndarray:
        """Returns [T, V] at the tokens of an answer, from one pass over all that it read."""
        tokens = np.full((1, POSITIONS), self.end, np.int32)
        tokens[0, : len(before) + len(ids)] = [*before, *ids]
        logits = self._logits(self.params, {"decoder_input_tokens": tokens})[0]
        mine = logits[len(before) - 1 :][: len(ids)]  # what a token calls for is the next one
        return np.asarray(jax.nn.log_softmax(mine / temperature))

    @property
    def _logits(self):
        return quick_jit(self.model.logits)


def write(folder: pathlib.Path, kind: str, seed: int = 0) -> Teacher:
    """Writes a teacher.

    Args:
      folder: a new one.
      kind: of its tokenizer: "byte_level", as GPT-2's, or "byte_fallback", as Llama 2's.
      seed: of the weights.
    """
    folder.mkdir()
    if kind == "byte_level":
        tokenizer, spelled = byte_level(*_BYTE_LEVEL), "<|endoftext|>"
    else:
        tokenizer, spelled = _byte_fallback(*_FALLBACK), "</s>"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": _TEMPLATE}
    path = save(folder, tokenizer, eos_token=spelled, **config)
    end, size = tokenizer.token_to_id(spelled), tokenizer.get_vocab_size()
    if kind == "byte_level":
        values = tokenizers.load(path).token_bytes(range(size))
        values[end] = b""
    else:
        values = [_bytes_of(tokenizer.id_to_token(token)) for token in range(size)]
    shape = {"vocab_size": size, "num_positions": POSITIONS, "num_heads": 2}
    model = models.build("gpt2_tiny", **shape, pad_id=end)
    params = _weights(quick_jit(model.init)(jax.random.key(seed)), _bias(values, end), seed)
    convert.save_hf(model.config, params, folder)
    return Teacher(folder, tokenizer, values, end, model, params)


def _bytes_of(piece: str) -> bytes:
    if piece in ("<unk>", "</s>"):
        return b""
    if piece.startswith("<0x"):
        return bytes([int(piece[3:-1], 16)])
    return piece.replace("▁", " ").encode()


def _byte_fallback(*words: str) -> hugging_face.Tokenizer:
    """A BPE of marked text, which spells in bytes what it has no piece for."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "\n", *(chr(code) for code in range(33, 127))]
    merges = []
    for word in words:
        pieces += [char for char in dict.fromkeys(word) if char not in pieces]
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    model = hugging_face.models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=merges,
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = hugging_face.Tokenizer(model)
    # vLLM looks here for what marks a space; without it its names of tokens lose their first one.
    tokenizer.pre_tokenizer = hugging_face.pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="never", split=False
    )
    parts = hugging_face.decoders
    tokenizer.decoder = parts.Sequence(
        [parts.Replace("▁", " "), parts.ByteFallback(), parts.Fuse(), parts.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def _bias(values: Sequence[bytes], end: int) -> np.ndarray:
    """Returns [V] what is added to every logit of a token: the end comes soon, bytes seldom.

    Control characters never come: in Llama 2's kind they are bytes, and a run of bytes that is no
    UTF-8 is lost as a whole, here and there without a mark in the text.
    """
    found = np.full(len(values), -20, np.float32)
    seen = {b""}
    # From the back: of two tokens with the same bytes the piece is said, not the single byte.
    for token in range(len(values) - 1, -1, -1):
        value = values[token]
        is_text = not value.isascii() or value.decode().isprintable()
        if value not in seen and is_text:
            seen.add(value)
            found[token] = (0.5 if value.isascii() else -0.7) + 1.5 * (len(value) > 1)
    found[end] = 3.0
    return found


def _weights(params: dict, bias: np.ndarray, seed: int) -> dict:
    """Returns weights whose steps differ, as a trained teacher's do, with a bias to the head.

    The head is the embedding: so one of its columns is the bias, and the last norm is 1 there.
    """
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: 5 * leaf if leaf.ndim > 2 else leaf, params)
    embedding = rng.normal(0, 0.3, params["token_embedder"]["embedding"].shape)
    embedding[:, 0] = bias
    scale = rng.choice([-1.0, 1.0], params["decoder"]["decoder_norm"]["scale"].shape)
    scale[0] = 0  # random signs, or a token would call for itself
    params["decoder"]["decoder_norm"] = _float32({"scale": scale, "bias": np.eye(len(scale))[0]})
    params["token_embedder"] = _float32({"embedding": embedding})
    return params


def _float32(arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), arrays)
