"""Every variant against the goldens that `tests/golden/make_*_golden.py` made with transformers."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from specialize_jax import convert, decoding, models
from tests.quick_jit import quick_jit

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
T5 = ("t5_tiny_hf", "t5_tiny_tied_hf", "mt5_tiny_hf")
ALL = (*T5, "gpt2_tiny_hf")
_BUILD = {models.t5.T5Config: models.t5.build, models.gpt2.GPT2Config: models.gpt2.build}
# Theirs says which tokens of a prompt are padding; ours reads it off the prompt.
_INPUTS = {name: "encoder_input_tokens" for name in T5} | {"gpt2_tiny_hf": "prompts"}
_END = {name: 1 for name in T5} | {"gpt2_tiny_hf": 63}


def _load(name):
    config, params = convert.load_hf(GOLDEN / name)
    model = _BUILD[type(config)](config)
    with np.load(GOLDEN / name / "expected.npz") as file:
        expected = dict(file)
    return model, params, expected


def _batch(expected):
    return {name: tokens for name, tokens in expected.items() if name.endswith("_input_tokens")}


@pytest.mark.parametrize("name", ALL)
def test_logits_equal_those_of_transformers(name):
    model, params, expected = _load(name)
    logits = quick_jit(model.logits)(params, _batch(expected))
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_greedy_tokens_equal_those_of_transformers(name):
    model, params, expected = _load(name)
    rows, length = expected["generated"].shape

    @quick_jit
    def generate(params, inputs):
        return decoding.greedy(
            functools.partial(model.decode_step, params),
            model.init_cache(params, inputs, length),
            batch_size=rows,
            max_length=length,
            eos_id=_END[name],
            start_tokens=model.start_tokens(inputs),
            pad_id=model.pad_id,
        )

    tokens, _ = generate(params, expected[_INPUTS[name]])
    np.testing.assert_array_equal(tokens, expected["generated"])


@pytest.mark.parametrize("name", ALL)
def test_gradients_equal_those_of_torch(name, tmp_path):
    model, params, expected = _load(name)
    batch = _batch(expected)
    successors = batch["decoder_input_tokens"][:, 1:, None]

    def loss(params):
        log_probs = jax.nn.log_softmax(model.logits(params, batch)[:, :-1])
        return -jnp.mean(jnp.take_along_axis(log_probs, successors, axis=-1))

    # A gradient has the parameters' shape, so the converter finds their names for it.
    convert.save_hf(model.config, quick_jit(jax.grad(loss))(params), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    with np.load(GOLDEN / name / "gradients.npz") as theirs:
        assert len(theirs.files) >= 7
        for tensor in theirs.files:
            np.testing.assert_allclose(
                found[tensor], theirs[tensor], atol=1e-5, rtol=1e-4, err_msg=tensor
            )
