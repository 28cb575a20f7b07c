"""Sampling, against drawing row by row, and its head against a sort in plain Python."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specialize_jax import decoding
from specialize_jax.decoding import sampling
from tests.decoding import toy_language

LENGTH, VOCABULARY = 4, 6
LOGITS = toy_language.table(VOCABULARY, LENGTH)
STEP = toy_language.make_step(LOGITS)


def _sample(row_numbers, seed=0, **options):
    return _jitted(jnp.asarray(row_numbers, jnp.int32), seed, **options)


@functools.partial(jax.jit, static_argnames=("temperature", "top_k", "top_p"))
def _jitted(rows, seed, **options):
    return decoding.sample(
        STEP,
        toy_language.start(len(rows)),
        seed=seed,
        row_numbers=rows,
        max_length=LENGTH,
        eos_id=toy_language.EOS,
        **options,
    )


def _greedy(batch_size):
    return decoding.greedy(
        STEP,
        toy_language.start(batch_size),
        batch_size=batch_size,
        max_length=LENGTH,
        eos_id=toy_language.EOS,
    )


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}])
def test_what_leaves_one_token_is_greedy(options):
    for ours, expected in zip(_sample(range(3), **options), _greedy(3), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_of_equal_tokens_the_first_is_top_1():
    logits = jnp.zeros((2, 5))
    _, ids = sampling.head(logits, 1, 1.0)
    np.testing.assert_array_equal(ids, [[0], [0]])


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.8, "temperature": 2.0}])
def test_a_row_draws_the_same_in_any_batch(options):
    together = np.asarray(_sample([7, 2, 5, 2], **options)[0])
    for place, number in enumerate([7, 2, 5, 2]):
        np.testing.assert_array_equal(together[place], _sample([number], **options)[0][0])
    np.testing.assert_array_equal(_sample([5, 7], **options)[0], together[[2, 0]])


def test_seeds_and_rows_draw_apart():
    tokens = np.asarray(_sample(range(64))[0])
    assert len(np.unique(tokens, axis=0)) > 20
    assert np.any(tokens != np.asarray(_sample(range(64), seed=1)[0]))


def test_frequencies_are_the_models():
    """Of 20,000 draws; a share differs from its probability by 5 standard errors at most."""
    draws = 20_000
    tokens = np.asarray(_sample(range(draws), temperature=0.7)[0])
    counts = collections.Counter(tuple(row.tolist()) for row in tokens)
    expected = toy_language.sequences(LOGITS / np.float32(0.7), LENGTH)
    seen = 0
    for logprob, sequence, _ in expected:
        p = np.exp(logprob)
        padded = (*sequence, *[0] * (LENGTH - len(sequence)))
        seen += counts[padded]
        assert abs(counts[padded] / draws - p) < 5 * np.sqrt(p * (1 - p) / draws) + 1e-4
    assert seen == draws


def _head_in_python(logits, top_k, top_p):
    """Sorted by falling logit and rising id; the ids that may be drawn."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    weights = [np.exp(np.float64(logits[i]) - np.float64(logits[order[0]])) for i in order]
    shares = [weight / sum(weights) for weight in weights]
    kept = [i for n, i in enumerate(order) if n == 0 or sum(shares[:n]) < top_p]
    near = any(abs(sum(shares[:n]) - top_p) < 1e-5 for n in range(1, len(order)))
    return kept, near


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, 7, elements=st.integers(-3, 3).map(float)),
    st.sampled_from([None, 1, 2, 5, 7, 9]),
    st.sampled_from([1.0, 0.9, 0.5, 0.13]),
)
def test_head_is_what_a_sort_gives(logits, top_k, top_p):
    kept, ids = sampling.head(jnp.asarray(logits)[None], top_k, top_p)
    ours = [int(i) for i, x in zip(ids[0], kept[0], strict=True) if np.isfinite(x)]
    expected, near = _head_in_python(logits, top_k, top_p)
    if not near:  # at the border rounding decides
        assert sorted(ours) == sorted(expected)


def test_samples_share_one_encoding():
    cache = {"index": jnp.int32(4), "cross": jnp.arange(6).reshape(3, 2)}
    shared = decoding.repeat(cache, 2)
    assert shared["index"] == 4
    np.testing.assert_array_equal(shared["cross"][:, 0], [0, 0, 2, 2, 4, 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature > 0, got 0; for 0 use greedy"),
        ({"temperature": float("nan")}, "temperature > 0, got nan"),
        ({"top_k": 0}, "top_k >= 1 or None, got 0"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p in \(0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        _sample([0], **options)


def test_temperature_may_be_traced():
    traced = jax.jit(
        lambda temperature: _jitted.__wrapped__(jnp.arange(4), 0, temperature=temperature)[0]
    )
    np.testing.assert_array_equal(traced(0.5), _sample(range(4), temperature=0.5)[0])
