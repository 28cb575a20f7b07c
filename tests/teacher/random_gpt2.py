"""A GPT-2 with random weights, in a folder that other people's servers read.

It says what a trained teacher hardly ever says: bytes that are no text, and halves of characters.
Its answers end by themselves after a few tokens.
"""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax import convert, models, tokenizers
from specialize_jax.models import Model
from specialize_jax.tokenizers import Tokenizer
from tests.byte_level import byte_level, save
from tests.quick_jit import quick_jit

POSITIONS = 256
# In GPT-2's alphabet. The beginnings of a word are tokens too, here also such that cut a character.
WORDS = ("ĠtheĠanswerĠis", "ĠcafÃ©", "æĹ¥", "12", "34", "ing", "an", "er", "on")
_END = "<|endoftext|>"
_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


class Teacher(NamedTuple):
    """A teacher.

    Attributes:
      folder: what a server reads.
      tokenizer: that of its tokenizer.json.
      model: of the same weights, for an independent pass.
      params: the weights.
    """

    folder: pathlib.Path
    tokenizer: Tokenizer
    model: Model
    params: dict

    def logprobs(self, prompt: str, ids: list[int]) -> np.ndarray:
        """Returns [T, V] of an answer's tokens, from one pass over prompt and answer."""
        before = self.tokenizer.encode(prompt)
        tokens = np.full((1, POSITIONS), self.tokenizer.eos_id, np.int32)
        tokens[0, : len(before) + len(ids)] = before + ids
        # A model reads its inputs shifted by one, and the first of a text is not predicted.
        logits = quick_jit(self.model.logits)(self.params, {"decoder_input_tokens": tokens})[0]
        return np.asarray(jax.nn.log_softmax(logits)[len(before) - 1 :][: len(ids)])


def write(folder: pathlib.Path, seed: int = 0) -> Teacher:
    """Writes a teacher."""
    folder.mkdir()
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END}
    path = save(folder, byte_level(*WORDS), **config, chat_template=_TEMPLATE)
    tokenizer = tokenizers.load(path)
    shape = {"vocab_size": tokenizer.vocab_size, "num_positions": POSITIONS, "num_heads": 2}
    model = models.build("gpt2_tiny", **shape, pad_id=tokenizer.eos_id)
    params = _weights(quick_jit(model.init)(jax.random.key(seed)), _bias(tokenizer), seed)
    convert.save_hf(model.config, params, folder)
    return Teacher(folder, tokenizer, model, params)


def _bias(tokenizer: Tokenizer) -> np.ndarray:
    """Returns [V] what is added to every logit of a token."""
    end = tokenizer.eos_id
    found = np.zeros(tokenizer.vocab_size, np.float32)
    for token in set(range(len(found))) - {end}:
        [value] = tokenizer.token_bytes([token])
        found[token] = 0.5 if value.isascii() and value.decode().isprintable() else -0.7
        found[token] += 1.5 * (len(value) > 1)
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
    norm = {"scale": scale, "bias": np.eye(len(scale))[0]}
    found = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), norm)
    params["decoder"]["decoder_norm"] = found
    params["token_embedder"] = {"embedding": jnp.asarray(embedding, jnp.float32)}
    return params
