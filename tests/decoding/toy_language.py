"""A language over few tokens, in which what follows depends on all that came before."""

import jax
import jax.numpy as jnp
import numpy as np

EOS = 1


def table(vocabulary: int, length: int, seed: int = 0) -> np.ndarray:
    """Logits [number of prefix, V]: prefixes count in base V, the empty one is 0."""
    size = sum(vocabulary**n for n in range(length))
    return np.random.default_rng(seed).normal(size=(size, vocabulary)).astype(np.float32) * 2


def child(prefix, token, vocabulary):
    """The number of the prefix that is one token longer."""
    return prefix * vocabulary + token + 1


def start(batch_size: int) -> dict[str, jax.Array]:
    return {"prefix": jnp.full((batch_size,), -1, jnp.int32), "index": jnp.zeros((), jnp.int32)}


def make_step(logits: np.ndarray):
    """A decode step whose cache is each row's prefix; the start token is not part of it."""
    vocabulary, last = logits.shape[1], len(logits) - 1

    def step(cache, tokens):
        grown = child(cache["prefix"], tokens, vocabulary)
        prefix = jnp.where(cache["index"] == 0, 0, jnp.minimum(grown, last))
        return jnp.asarray(logits)[prefix], {"prefix": prefix, "index": cache["index"] + 1}

    return step


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())


def sequences(logits: np.ndarray, length: int) -> list[tuple[float, tuple[int, ...], bool]]:
    """(log-probability, tokens, whether it ended) of every sequence, by going through them all."""
    found, waiting = [], [(0.0, (), 0)]
    while waiting:
        score, tokens, prefix = waiting.pop()
        for token, logprob in enumerate(log_softmax(logits[prefix].astype(np.float64))):
            new = (score + logprob, (*tokens, token))
            if token == EOS or len(new[1]) == length:
                found.append((*new, token == EOS))
            else:
                waiting.append((*new, child(prefix, token, logits.shape[1])))
    return found
