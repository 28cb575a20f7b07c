"""Evaluation of a decoder-only student: prompts of several lengths, padded on the left."""

import pathlib

import jax
import numpy as np

from specialize_jax import models, tokenizers
from specialize_jax.apps import answering

TOKENIZER = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "student_tokenizer.model"
STEPS = 5


def _alone(model, params, tokenizer, prompt):
    """One prompt, not padded, a full forward pass for every token."""
    tokens = tokenizer.encode(prompt)
    logits = jax.jit(model.logits)
    for _ in range(STEPS):
        row = np.array([tokens], np.int32)
        best = int(np.argmax(logits(params, {"decoder_input_tokens": row})[0, -1]))
        if best == tokenizer.eos_id:
            break
        tokens = [*tokens, best]
    return tokenizer.decode(tokens[len(tokenizer.encode(prompt)) :])


def test_answers_equal_those_of_each_prompt_alone():
    tokenizer = tokenizers.load(TOKENIZER)
    model = models.build(
        "gpt2_tiny", d_model=32, d_ff=32, vocab_size=128, pad_id=0, num_positions=128
    )
    params = jax.tree.map(lambda x: 8 * x, jax.jit(model.init)(jax.random.key(1)))
    settings = answering.Settings(max_length=STEPS)
    prompts = ["Tom has 3 apples.", "Q: how many?"]
    answerer = answering.answerer(model, tokenizer, settings, batch_size=3, input_length=64)
    answers = answerer.answer(params, prompts)
    assert dict(answerer.stream(params, prompts, [0, 1])) == {0: [answers[0]], 1: [answers[1]]}
    assert answers == [_alone(model, params, tokenizer, prompt) for prompt in prompts]
    assert len(set(answers)) == 2
    assert all(answers)
