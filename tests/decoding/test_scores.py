"""Scores of given tokens, against one parallel pass through the model."""

import functools

import jax
import numpy as np
import pytest

from specialize_jax import decoding, models

SIZES = {
    "t5_1_1_tiny": {"vocab_size": 32},
    "gpt2_tiny": {"vocab_size": 32, "num_positions": 32, "pad_id": 0},
}


@pytest.mark.parametrize("size", SIZES)
def test_scores_are_those_of_the_parallel_pass(size):
    model = models.build(size, **SIZES[size])
    params = jax.jit(model.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    prompts = rng.integers(2, 32, (3, 6)).astype(np.int32)
    tokens = rng.integers(2, 32, (3, 5)).astype(np.int32)

    @functools.partial(jax.jit, static_argnames="top_k")
    def scores(params, top_k):
        cache = model.init_cache(params, prompts, 5)
        step = functools.partial(model.decode_step, params)
        start = model.start_tokens(prompts)
        return decoding.score(step, cache, tokens, top_k=top_k, start_tokens=start)

    if model.decoder_only:
        whole = np.concatenate([prompts, tokens], axis=1)
        prompt = np.arange(whole.shape[1])[None] < prompts.shape[1]
        batch = {
            "decoder_input_tokens": whole[:, :-1],
            "decoder_causal_attention": np.repeat(prompt, 3, axis=0)[:, :-1].astype(np.int32),
        }
        logits = jax.jit(model.logits)(params, batch)[:, prompts.shape[1] - 1 :]
    else:
        shifted = np.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
        batch = {"encoder_input_tokens": prompts, "decoder_input_tokens": shifted}
        logits = jax.jit(model.logits)(params, batch)
    expected = np.asarray(jax.nn.log_softmax(logits))
    found = scores(params, 4)
    np.testing.assert_allclose(
        found.logprobs,
        np.take_along_axis(expected, tokens[..., None], axis=2)[..., 0],
        atol=1e-4,
    )
    best = -np.sort(-expected, axis=2)[..., :4]
    np.testing.assert_allclose(found.topk_logprobs, best, atol=1e-4)
    np.testing.assert_allclose(
        np.take_along_axis(expected, np.asarray(found.topk_ids), axis=2), best, atol=1e-4
    )
    assert scores(params, 0).topk_ids.shape == (3, 5, 0)


def test_a_negative_number_of_candidates_is_refused():
    with pytest.raises(ValueError, match="top_k >= 0, got -1"):
        decoding.score(None, None, np.zeros((1, 1), np.int32), top_k=-1)
