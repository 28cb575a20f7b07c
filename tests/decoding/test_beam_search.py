"""Beam search, against going through every sequence, and with one beam against greedy."""

import jax
import numpy as np
import pytest

from specialize_jax import decoding
from specialize_jax.models import t5
from tests.decoding import toy_language

LENGTH, VOCABULARY = 4, 3


def _exhaustive(logits, alpha):
    def penalty(length):
        return ((5 + length) / 6) ** alpha

    found = toy_language.sequences(logits, LENGTH)
    ended = sorted(((s / penalty(len(t)), t) for s, t, end in found if end), reverse=True)
    cut = sorted(((s / penalty(LENGTH), t) for s, t, end in found if not end), reverse=True)
    return ended + cut


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(2))
def test_full_width_is_exhaustive_search(seed, alpha):
    logits = toy_language.table(VOCABULARY, LENGTH, seed)
    beams = VOCABULARY**LENGTH
    tokens, scores = decoding.beam(
        toy_language.make_step(logits),
        toy_language.start(2),
        batch_size=2,
        num_beams=beams,
        max_length=LENGTH,
        eos_id=toy_language.EOS,
        length_penalty=alpha,
    )
    expected = _exhaustive(logits, alpha)
    for row in range(2):
        np.testing.assert_allclose(
            scores[row, : len(expected)], [score for score, _ in expected], rtol=1e-5
        )
        assert np.all(np.isneginf(scores[row, len(expected) :]))
        for sequence, (_, best) in zip(np.asarray(tokens[row]), expected, strict=False):
            np.testing.assert_array_equal(sequence[: len(best)], best)
            assert not sequence[len(best) :].any()


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy_until_it_ends(seed):
    """A beam that ends goes on searching where ending was not the best; greedy stops."""
    logits = toy_language.table(VOCABULARY, LENGTH, seed)
    logits[:, toy_language.EOS] = -100  # nothing ends: both go to the last place
    options = {"batch_size": 1, "max_length": LENGTH, "eos_id": toy_language.EOS}
    step = toy_language.make_step(logits)
    tokens, _ = decoding.beam(step, toy_language.start(1), num_beams=1, **options)
    greedy, _ = decoding.greedy(step, toy_language.start(1), **options)
    np.testing.assert_array_equal(tokens[:, 0], greedy)


def test_a_t5_is_searched_with_its_cache():
    """The score of what is returned is its log-probability under the whole forward pass."""
    config = t5.T5Config(
        vocab_size=11, d_model=16, d_kv=4, d_ff=32, num_heads=2,
        num_encoder_layers=1, num_decoder_layers=2,
    )  # fmt: skip
    model = t5.build(config)
    params = model.init(jax.random.key(0))
    inputs = np.array([[3, 4, 5, 1], [7, 1, 0, 0]], np.int32)

    @jax.jit
    def search(params):
        return decoding.beam(
            lambda cache, last: model.decode_step(params, cache, last),
            model.init_cache(params, inputs, 5),
            batch_size=2,
            num_beams=3,
            max_length=5,
            eos_id=1,
            start_tokens=model.start_tokens(inputs),
            length_penalty=0.0,
        )

    tokens, scores = (np.asarray(x).reshape(6, -1) for x in search(params))
    batch = {
        "encoder_input_tokens": np.repeat(inputs, 3, axis=0),
        "decoder_input_tokens": np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
    }
    logprobs = np.asarray(jax.nn.log_softmax(model.logits(params, batch)))
    taken = np.take_along_axis(logprobs, tokens[:, :, None], axis=2)[:, :, 0]
    ended_before = np.cumsum(tokens == 1, axis=1) - (tokens == 1) > 0
    expected = np.where(ended_before, 0, taken).sum(axis=1)
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-4)


def test_no_beams_are_an_error():
    with pytest.raises(ValueError, match="num_beams >= 1, got 0"):
        decoding.beam(
            toy_language.make_step(np.zeros((1, 3), np.float32)),
            toy_language.start(1),
            batch_size=1,
            num_beams=0,
            max_length=2,
            eos_id=1,
        )
