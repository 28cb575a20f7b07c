import dataclasses

import jax
import numpy as np
import pytest

from specialize_jax.models import gpt2
from tests.models import tiny
from tests.quick_jit import quick_jit


def _tokens(rows=3, length=11, seed=0):
    return np.random.default_rng(seed).integers(0, tiny.PAD, (rows, length), dtype=np.int32)


def _batch(tokens):
    return {"decoder_input_tokens": tokens}


def _left_padded(tokens, lengths):
    """Rows that end together, and before them padding: the first tokens move to the right."""
    out = np.full_like(tokens, tiny.PAD)
    for row, length in enumerate(lengths):
        out[row, tokens.shape[1] - length :] = tokens[row, :length]
    return out


def test_initial_scales_are_those_of_the_paper():
    config = dataclasses.replace(
        tiny.CONFIGS["gpt2"], d_model=128, d_ff=256, vocab_size=512, num_positions=256
    )
    params = quick_jit(gpt2.build(config).init)(jax.random.key(1))
    layer = params["decoder"]["layers"]
    into_stream = 0.02 / 6**0.5  # two projections into it a layer
    deviations = {
        "embedding": (params["token_embedder"]["embedding"], 0.02),
        "positions": (params["position_embedder"]["embedding"], 0.01),
        "query": (layer["attention"]["query"]["kernel"], 0.02),
        "out": (layer["attention"]["out"]["kernel"], into_stream),
        "wi": (layer["mlp"]["wi"]["kernel"], 0.02),
        "wo": (layer["mlp"]["wo"]["kernel"], into_stream),
    }
    for name, (kernel, expected) in deviations.items():
        np.testing.assert_allclose(np.std(kernel), expected, rtol=0.05, err_msg=name)
    assert not np.any(layer["attention"]["out"]["bias"])


@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize("prompt", [1, 6])
def test_cached_decoding_equals_the_full_forward_pass(prompt, attention):
    model, params = tiny.compiled("gpt2", attention=attention)
    tokens = _tokens()
    expected = model.logits(params, _batch(tokens))
    cache = model.init_cache(params, tokens[:, :prompt], 11 - prompt + 1)
    np.testing.assert_array_equal(model.start_tokens(tokens[:, :prompt]), tokens[:, prompt - 1])
    before = model.decode_step._cache_size()
    for position in range(prompt - 1, 11):
        given = jax.tree.leaves(cache["layers"])
        logits, cache = model.decode_step(params, cache, tokens[:, position])
        np.testing.assert_allclose(logits, expected[:, position], atol=2e-5, rtol=0)
        assert all(array.is_deleted() for array in given)  # donated: the step wrote in place
    assert model.decode_step._cache_size() - before <= 1  # one compilation for all positions


def test_padding_on_the_left_changes_nothing():
    model, params = tiny.compiled("gpt2")
    tokens, lengths = _tokens(), (11, 7, 1)
    padded = _left_padded(tokens, lengths)
    expected = model.logits(params, _batch(tokens))
    found = model.logits(params, _batch(padded))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            found[row, 11 - length :], expected[row, :length], atol=2e-5, rtol=0
        )
    assert np.all(np.isfinite(found))


def _check_continued(model, params, tokens, lengths, expected):
    """Decodes from left-padded prompts of these lengths along the rows, and compares logits."""
    padded = _left_padded(tokens[:, : max(lengths)], lengths)
    steps = tokens.shape[1] - max(lengths)
    cache = model.init_cache(params, padded, steps)
    last = model.start_tokens(padded)
    for step in range(steps):
        logits, cache = model.decode_step(params, cache, last)
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(
                logits[row], expected[row, length - 1 + step], atol=2e-5, rtol=0
            )
        last = np.array([tokens[row, length + step] for row, length in enumerate(lengths)])


def test_cached_decoding_of_left_padded_prompts_equals_each_prompt_alone():
    model, params = tiny.compiled("gpt2")
    tokens = _tokens()
    expected = model.logits(params, _batch(tokens))
    _check_continued(model, params, tokens, (5, 4, 1), expected)


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_a_prefix_that_is_shared_is_read_once_and_changes_nothing(attention):
    model, params = tiny.compiled("gpt2", attention=attention)
    prefix, tokens = _tokens(rows=1, length=4, seed=1)[0], _tokens()
    whole = np.concatenate([np.tile(prefix, (3, 1)), tokens], axis=1)
    expected = model.logits(params, _batch(whole))[:, 4:]
    behind = model.share(params, prefix)
    _check_continued(model, behind, tokens, (5, 4, 1), expected)
    cache = model.init_cache(behind, tokens, 3)
    assert all(layer["input_key"].shape[2] == 10 for layer in cache["layers"])  # theirs alone
    with pytest.raises(ValueError, match="within 20 positions, got 18 tokens"):
        model.init_cache(behind, np.tile(tokens, 2)[:, :14], 4)


def test_what_sees_both_ways_shares_nothing():
    assert tiny.plain("gpt2", prefix_attention=True)[0].share is None
    assert tiny.plain("t5")[0].share is None


def test_only_the_leading_run_is_padding():
    model, params = tiny.compiled("gpt2")
    tokens = _tokens()
    tokens[0, 5] = tiny.PAD  # an end of text between two texts is a token like others
    tokens[1, 9:] = tiny.PAD
    expected = model.logits(params, _batch(tokens))
    padded = np.pad(tokens, ((0, 0), (4, 0)), constant_values=tiny.PAD)
    np.testing.assert_allclose(
        model.logits(params, _batch(padded))[:, 4:], expected, atol=2e-5, rtol=0
    )
    other = tokens.copy()
    other[0, 5] = 3
    assert not np.allclose(model.logits(params, _batch(other))[0, 6:], expected[0, 6:], atol=1e-3)


def test_the_future_is_not_seen():
    model, params = tiny.compiled("gpt2")
    tokens = _tokens()
    expected = model.logits(params, _batch(tokens))
    tokens[:, 7:] = 2
    np.testing.assert_array_equal(model.logits(params, _batch(tokens))[:, :7], expected[:, :7])


def _packed():
    """One row of two examples of 4 and 6 tokens and padding, and the examples alone."""
    tokens = _tokens(rows=2, length=6)
    row = np.concatenate([tokens[0, :4], tokens[1], [0]]).astype(np.int32)
    batch = {
        "decoder_input_tokens": row[None],
        "decoder_segment_ids": np.array([[1] * 4 + [2] * 6 + [0]], np.int32),
        "decoder_positions": np.array([[*range(4), *range(6), 0]], np.int32),
    }
    return batch, _batch(tokens)


def test_packed_row_equals_its_examples_alone():
    model, params = tiny.compiled("gpt2")
    packed, alone = _packed()
    logits, expected = model.logits(params, packed), model.logits(params, alone)
    np.testing.assert_allclose(logits[0, :4], expected[0, :4], atol=2e-5, rtol=0)
    np.testing.assert_allclose(logits[0, 4:10], expected[1], atol=2e-5, rtol=0)
    assert np.all(np.isfinite(logits))


@pytest.mark.parametrize("missing", ["decoder_segment_ids", "decoder_positions"])
def test_segments_and_positions_come_together(missing):
    model, params = tiny.compiled("gpt2")
    packed, _ = _packed()
    del packed[missing]
    with pytest.raises(ValueError, match="both or neither of decoder_segment_ids, decoder_pos"):
        model.logits(params, packed)


def test_prefix_is_causal_unless_the_config_says_otherwise():
    model, params = tiny.compiled("gpt2")
    tokens = _tokens()
    batch = _batch(tokens) | {"decoder_causal_attention": (np.arange(11) < 4)[None].repeat(3, 0)}
    np.testing.assert_array_equal(model.logits(params, batch), model.logits(params, _batch(tokens)))
    both_ways, _ = tiny.compiled("gpt2", prefix_attention=True)
    expected = both_ways.logits(params, batch)
    assert not np.allclose(expected, model.logits(params, batch), atol=1e-3)
    changed = dict(batch, decoder_input_tokens=tokens.copy())
    changed["decoder_input_tokens"][:, 3] = (tokens[:, 3] + 1) % tiny.PAD
    moved = np.abs(both_ways.logits(params, changed) - expected).max(axis=(0, 2))
    assert moved[0] > 1e-3  # the prompt's first token sees its last one
    changed = dict(batch, decoder_input_tokens=tokens.copy())
    changed["decoder_input_tokens"][:, 7] = 2
    np.testing.assert_array_equal(both_ways.logits(params, changed)[:, :7], expected[:, :7])


def test_cached_decoding_of_a_prefix_that_sees_both_ways_equals_the_full_forward_pass():
    model, params = tiny.compiled("gpt2", prefix_attention=True)
    tokens, lengths = _tokens(), (5, 3, 1)
    prefix = (np.arange(11)[None] < np.array(lengths)[:, None]).astype(np.int32)
    expected = model.logits(params, _batch(tokens) | {"decoder_causal_attention": prefix})
    _check_continued(model, params, tokens, lengths, expected)


def test_rows_that_do_not_fit_are_refused():
    model, params = tiny.compiled("gpt2")
    with pytest.raises(ValueError, match="at most 20 tokens.*got 21"):
        model.logits(params, _batch(_tokens(length=21)))
    with pytest.raises(ValueError, match="within 20 positions, got 11 tokens.*length=11"):
        model.init_cache(params, _tokens(), 11)
    model.init_cache(params, _tokens(), 10)  # 10 before the last, and 10 steps
    with pytest.raises(ValueError, match="decoder-only student.*got encoder_input_tokens"):
        model.hidden(params, _batch(_tokens()) | {"encoder_input_tokens": _tokens()})
    with pytest.raises(ValueError, match="num_heads to divide d_model, got 3 and 16"):
        dataclasses.replace(tiny.CONFIGS["gpt2"], num_heads=3)


def test_token_or_position_outside_its_table_is_loud():
    model, params = tiny.compiled("gpt2")
    packed, _ = _packed()
    tokens = _tokens()
    tokens[0, 2] = 40
    logits = model.logits(params, _batch(tokens))
    assert np.all(np.isnan(logits[0, 2:]))
    assert np.all(np.isfinite(logits[1]))
    packed["decoder_positions"][0, 3] = 20
    assert np.all(np.isnan(model.logits(params, packed)[0, 3]))
