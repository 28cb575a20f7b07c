"""Prompts in, texts out: every way of decoding, in batches of any size."""

import functools

import jax
import numpy as np
import pytest

from specialize_jax import decoding, models, tokenizers
from specialize_jax.apps import answering, student_slots
from tests.fixtures import world
from tests.quick_jit import quick_jit

PROMPTS = ["Tom has 3 apples.", "Q: how many?", "2 + 2 = 4 so what is it", "A"]
STEPS = 6


@pytest.fixture(scope="module")
def student():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "vocab_size": 130}
    sizes |= {"num_encoder_layers": 1, "num_decoder_layers": 1}
    model = models.build("t5_1_1_tiny", **sizes)
    return model, model.init(jax.random.key(2)), tokenizers.load(world.TOKENIZER)


def _streamed(student, batch_size, prompts=PROMPTS, numbers=(5, 0, 9, 2), **settings):
    model, params, tokenizer = student
    given = answering.Settings(max_length=STEPS, **settings)
    asked = answering.answerer(model, tokenizer, given, batch_size=batch_size, input_length=64)
    return dict(asked.stream(params, prompts, numbers))


def test_samples_depend_on_the_question_alone(student):
    """Not on the batch, nor on what else is asked, nor on the order."""
    settings = {"temperature": 1.0, "top_k": 50, "samples": 2, "seed": 3}
    found = _streamed(student, 3, **settings)
    assert sorted(found) == [0, 1, 2, 3]
    assert len({text for texts in found.values() for text in texts}) == 8
    again = _streamed(student, 1, PROMPTS[::-1][:3], (2, 9, 0), **settings)
    assert again == {0: found[3], 1: found[2], 2: found[1]}
    assert _streamed(student, 3, **(settings | {"seed": 4})) != found


def test_beams_are_those_of_beam_search(student):
    model, params, tokenizer = student
    rows = [[*tokenizer.encode(prompt), tokenizer.eos_id] for prompt in PROMPTS]

    @quick_jit
    def search(params, tokens):
        return decoding.beam(
            functools.partial(model.decode_step, params),
            model.init_cache(params, tokens, STEPS),
            batch_size=len(PROMPTS),
            num_beams=3,
            max_length=STEPS,
            eos_id=tokenizer.eos_id,
        )

    best = np.asarray(search(params, models.pad_inputs(model, rows, 64))[0])[:, 0]
    assert _streamed(student, 3, num_beams=3) == {
        place: [tokenizer.decode(row.tolist())] for place, row in enumerate(best)
    }


def test_a_calculator_writes_while_an_answer_is_decoded(student, monkeypatch):
    """A row that writes the marked token must go on with what the calculator says."""
    model, params, tokenizer = student
    plain = _streamed(student, 2, PROMPTS[:1], (0,))[0][0]
    ids = tokenizer.encode("24")
    halting = np.ones(tokenizer.vocab_size, bool)

    def calculator(kind, *, encode, decode, surfaces):
        assert kind == "equations" and encode("24") == ids and decode(ids) == "24"
        assert len(surfaces) == tokenizer.vocab_size
        return halting, lambda tokens: ids

    monkeypatch.setattr(student_slots.calculating, "calculator", calculator)
    found = _streamed(student, 2, PROMPTS[:1], (0,), calculator="equations")[0][0]
    assert "24" in found and found != plain


def test_nothing_to_ask_and_numbers_that_do_not_fit(student):
    assert _streamed(student, 2, [], ()) == {}
    with pytest.raises(ValueError, match="expected 4 numbers, one a prompt, got 1"):
        _streamed(student, 2, numbers=(1,))
    with pytest.raises(ValueError, match="at most 64 tokens, got one of"):
        _streamed(student, 2, ["word " * 70], (0,))


def test_an_answer_that_does_not_fit_the_positions_is_refused():
    tokenizer = tokenizers.load(world.TOKENIZER)
    model = models.build("gpt2_tiny", d_model=8, d_ff=8, vocab_size=130, pad_id=0, num_positions=9)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="within 9 positions"):
        _streamed((model, params, tokenizer), 2, ["a b c d e f g h i"], (0,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length >= 1, got 0"),
        ({"temperature": -1.0}, "temperature >= 0, got -1.0"),
        ({"seed": 1 << 32}, "a seed from 0 to 4294967295, got 4294967296"),  # JAX takes it for 0
        ({"samples": 2}, "temperature above 0 for 2 samples"),
        ({"num_beams": 2, "temperature": 1.0}, "temperature 0 and no calculator with 2 beams"),
        ({"num_beams": 2, "calculator": "equations"}, "no calculator with 2 beams"),
    ],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        answering.Settings(**settings)


def test_exemplars_before_all_prompts_are_read_once_and_answers_are_the_same():
    tokenizer = tokenizers.load(world.TOKENIZER)
    sizes = {"d_model": 16, "d_ff": 16, "num_layers": 1, "vocab_size": 130, "pad_id": 0}
    model = models.build("gpt2_tiny", **sizes, num_positions=256)
    params = jax.tree.map(lambda leaf: 8 * leaf, model.init(jax.random.key(0)))
    prompts = ["Tom has 3 apples and finds 2 more. " * 6 + end for end in ("so?", "a", "2 + 2")]
    given = answering.Settings(max_length=STEPS, temperature=1.0)
    settings = {"batch_size": 2, "input_length": 180}
    asked = answering.answerer(model, tokenizer, given, **settings)
    alone = [dict(asked.stream(params, [prompt], [i]))[0] for i, prompt in enumerate(prompts)]
    assert len({text for texts in alone for text in texts}) == 3

    ids = [asked.encode(prompt) for prompt in prompts]
    _, left = student_slots.shared(model, params, ids, slots=2)
    assert [len(tokens) + 128 for tokens in left] == [len(tokens) for tokens in ids]
    assert dict(asked.stream(params, prompts, range(3))) == dict(enumerate(alone))


def test_widths_rise_to_the_longest():
    assert student_slots.widths(1000) == [64, 128, 192, 256, 384, 512, 768, 1000]
    assert student_slots.widths(10) == [10]
