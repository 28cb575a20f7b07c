"""Slots against one question after the other, in plain Python and by the plain batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import decoding, models
from specialize_jax.apps import student_slots
from specialize_jax.decoding import sampling, slots
from specialize_jax.decoding.greedy import most_likely
from tests.models import tiny
from tests.quick_jit import quick_jit

EOS, LENGTH, VOCABULARY = 1, 9, 12
HALTING = np.isin(np.arange(VOCABULARY), [3, 8])


def greedy(logits, *_):
    return most_likely(logits)


def respond(tokens):
    """Nothing after an even number of tokens; else up to three, among them halting ones."""
    return [3, 5, 8][: len(tokens) % 4] if len(tokens) % 2 else []


# A toy: the next token is a function of the inputs, of how many were read and of the last one.


def _toy_logits(inputs, read, last):
    number = inputs.sum(1) * 5 + read * 7 + last * 11 + read * last
    return jax.nn.one_hot(number % VOCABULARY, VOCABULARY)


def _toy_step(params, cache, tokens):
    logits = _toy_logits(cache["inputs"], cache["read"], tokens)
    return logits + params, {**cache, "read": cache["read"] + (tokens >= 0)}


def _toy_insert(cache, new, sources, rows):
    return jax.tree.map(lambda x, y: x.at[rows].set(y[sources], mode="drop"), cache, new)


def _toy_widen(cache, like):
    more = like["inputs"].shape[1] - cache["inputs"].shape[1]
    return {**cache, "inputs": jnp.pad(cache["inputs"], ((0, 0), (0, more)))}


def _toy_pad(rows, width):
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)


TOY = slots.Functions(
    pad=_toy_pad,
    encode=lambda params, tokens: {"inputs": tokens, "read": jnp.zeros(len(tokens), jnp.int32)},
    start_tokens=lambda tokens: tokens[:, 0],
    decode_step=_toy_step,
    empty=lambda like, rows, columns: jax.tree.map(
        lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), like
    ),
    insert=_toy_insert,
    widen=_toy_widen,
)


def _toy_alone(inputs, halting, eos=EOS):
    """A toy's answer in plain Python."""
    tokens, forced, last = [], [], inputs[0]
    while len(tokens) < LENGTH and eos not in tokens:
        read = len(tokens)
        drawn = (sum(inputs) * 5 + read * 7 + last * 11 + read * last) % VOCABULARY
        is_forced = bool(forced)
        tokens.append(last := forced.pop(0) if forced else drawn)
        if halting is not None and not is_forced and halting[last]:
            forced = list(respond(tokens))
    return tokens


@functools.cache
def _toy_engine(rows, group, samples, halts, spare, eos=EOS):
    return slots.Engine(
        TOY,
        greedy,
        slots=rows,
        max_length=LENGTH,
        eos_id=eos,
        widths=[2, 4, 7],
        samples=samples,
        group=group,
        halting=HALTING if halts else None,
        respond=respond if halts else None,
        spare=spare,
        jit=quick_jit,
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(2, 11), min_size=1, max_size=7), max_size=12),
    st.sampled_from(
        [
            (1, None, 1, False, 0),
            (3, None, 2, True, 2),
            (3, 2, 1, True, 0),
            (5, 4, 3, False, 9),
            (8, 1, 1, True, 50),
            (2, 5, 7, True, 1),
        ]
    ),
)
def test_every_sample_of_every_question_is_what_plain_python_says(queue, shape):
    engine = _toy_engine(*shape)
    questions = [slots.Question(inputs, number) for number, inputs in enumerate(queue)]
    found = sorted(engine.run(jnp.zeros(()), questions))
    halting = engine.halting
    assert found == [
        (place, sample, _toy_alone(inputs, halting))
        for place, inputs in enumerate(queue)
        for sample in range(shape[2])
    ]


@pytest.mark.parametrize("eos", [-1, 11])
def test_no_row_ends_or_all_end_together(eos):
    """Without an end all rows fill up at one step; or all end with their first token."""
    engine = _toy_engine(3, None, 1, False, 0, eos)
    inputs = [[2, 3]] * 7
    expected = _toy_alone(inputs[0], None, eos)
    found = list(engine.run(jnp.zeros(()), [slots.Question(one, 0) for one in inputs]))
    assert [tokens for _, _, tokens in sorted(found)] == [expected] * 7
    assert len(expected) == (LENGTH if eos < 0 else 1)


def test_no_slot_idles_while_there_is_work_and_questions_are_encoded_once():
    encoded, live = [], []
    engine = slots.Engine(
        TOY._replace(pad=lambda rows, width: encoded.extend(rows) or _toy_pad(rows, width)),
        greedy,
        slots=4,
        max_length=LENGTH,
        eos_id=EOS,
        widths=[3],
        samples=3,
        group=2,
    )
    segment = engine._segment
    engine.__dict__["_segment"] = lambda *args: live.append(args[2].live.sum()) or segment(*args)
    queue = [[2 + n % 9, n] for n in range(2, 9)]
    found = list(engine.run(jnp.zeros(()), [slots.Question(one, 0) for one in queue]))
    assert len(found) == 21
    assert sorted(one for one in encoded if one != [EOS]) == sorted(queue)
    assert len(live) > 3 and set(live[:-1]) == {4}


def test_widths_that_few_questions_have_are_joined():
    engine = _toy_engine(3, None, 1, False, 0)
    queue = [slots.Question([2] * length, 0) for length in (7, 1, 2, 4, 3, 2)]
    assert engine._in_order(queue) == [(2, 1), (2, 2), (2, 5), (7, 4), (7, 3), (7, 0)]
    assert engine._in_order(queue[1:3]) == [(2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots >= 1, got 0"),
        ({"samples": -1}, "samples >= 1, got -1"),
        ({"halting": HALTING}, "both or neither of halting and respond"),
    ],
)
def test_settings_out_of_range(change, message):
    given_ = {"slots": 1, "max_length": 1, "eos_id": 1, "widths": [1]}
    with pytest.raises(ValueError, match=message):
        slots.Engine(TOY, greedy, **(given_ | change))


def test_a_question_that_is_too_long():
    with pytest.raises(ValueError, match="at most 7 tokens, got one of 8"):
        list(_toy_engine(1, None, 1, False, 0).run(0.0, [slots.Question([2] * 8, 0)]))


# Students.


def _questions(count):
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 11, count)
    return [
        slots.Question(rng.integers(2, tiny.PAD, length).tolist(), int(number))
        for length, number in zip(lengths, rng.permutation(50), strict=False)
    ]


def _plain_batch(model, params, questions, samples, seed):
    """All questions in one batch that is decoded to its end."""
    width = max(len(question.inputs) for question in questions)
    tokens = models.pad_inputs(model, [question.inputs for question in questions], width)
    numbers = jnp.asarray([question.number for question in questions]).repeat(samples)

    @quick_jit
    def decode(params, tokens):
        cache = decoding.repeat(model.init_cache(params, tokens, LENGTH), samples)
        step = functools.partial(model.decode_step, params)
        shape = {"max_length": LENGTH, "eos_id": EOS, "pad_id": model.pad_id}
        shape["start_tokens"] = jnp.repeat(model.start_tokens(tokens), samples)
        if seed is None:
            return decoding.greedy(step, cache, batch_size=len(numbers), **shape)
        which = jnp.tile(jnp.arange(samples), len(questions))
        given = {"row_numbers": numbers, "sample_numbers": which, "temperature": 1.5}
        return decoding.sample(step, cache, seed=seed, **given, **shape)

    found, lengths = decode(params, tokens)
    rows = [row[:n] for row, n in zip(found.tolist(), lengths.tolist(), strict=True)]
    return [(*divmod(i, samples), row) for i, row in enumerate(rows)]


SHALLOW = {
    "t5": {"num_encoder_layers": 1, "num_decoder_layers": 1},
    "gpt2": {"num_layers": 1},
}


def _engine(functions, pad_id, choose, **settings):
    fixed = {"max_length": LENGTH, "eos_id": EOS, "pad_id": pad_id, "jit": quick_jit}
    return slots.Engine(functions, choose, **(fixed | settings))


@pytest.mark.parametrize("family", ["t5", "gpt2"])
@pytest.mark.parametrize(("rows", "samples", "seed"), [(3, 1, None), (5, 3, 7)])
def test_students_answer_as_in_one_batch(family, rows, samples, seed):
    """Slots fewer and more than questions; rows begin at different steps; caches grow."""
    model, params = tiny.plain(family, **SHALLOW[family])
    choose = greedy if seed is None else sampling.drawer(seed, 1.5)
    shape = {"slots": rows, "samples": samples, "widths": [5, 12]}
    engine = _engine(student_slots.functions(model), model.pad_id, choose, **shape)
    questions = _questions(13)
    found = sorted(engine.run(params, questions))
    assert found == _plain_batch(model, params, questions, samples, seed)
    assert len({len(tokens) for _, _, tokens in found}) > 2 or samples == 1


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_prepared_parameters_give_the_same(family):
    """In bfloat16, so that a norm's parameters that were cast would show."""
    model, params = tiny.plain(family, **SHALLOW[family], dtype="bfloat16")
    inputs = models.pad_inputs(model, [question.inputs for question in _questions(3)], 12)
    cache = model.init_cache(params, inputs, 2)
    step = quick_jit(model.decode_step)
    found, _ = step(quick_jit(model.prepare)(params), cache, model.start_tokens(inputs))
    expected, _ = step(params, cache, model.start_tokens(inputs))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def _alone(model, params, question, sample, choose, halting):
    """One sample in plain Python, a token at a time."""
    inputs = models.pad_inputs(model, [question.inputs], len(question.inputs))
    cache = model.init_cache(params, inputs, LENGTH)
    last, tokens, forced = model.start_tokens(inputs), [], []
    while len(tokens) < LENGTH and EOS not in tokens:
        logits, cache = model.decode_step(params, cache, last)
        is_forced = bool(forced)
        drawn = choose(logits, *np.array([[question.number], [sample], [len(tokens)]], np.int32))
        token = forced.pop(0) if forced else int(drawn[0])
        tokens.append(token)
        if halting[token] and not is_forced:
            forced = list(respond(tokens))
        last = jnp.array([token], jnp.int32)
    return tokens


@pytest.mark.parametrize(("family", "spare"), [("t5", 0), ("gpt2", 4)])
def test_students_that_wait_for_the_host_answer_as_alone(family, spare):
    model, params = tiny.plain(family, **SHALLOW[family])
    halting = np.arange(40) % 3 == 0
    choose = sampling.drawer(5, 1.5, top_k=20)
    shape = {"slots": 4, "samples": 2, "widths": [12], "group": 3, "spare": spare}
    engine = _engine(
        student_slots.functions(model),
        model.pad_id,
        choose,
        halting=halting,
        respond=respond,
        **shape,
    )
    questions = _questions(5)
    step = dataclasses.replace(model, decode_step=quick_jit(model.decode_step))
    assert sorted(engine.run(params, questions)) == [
        (place, sample, _alone(step, params, question, sample, jax.jit(choose), halting))
        for place, question in enumerate(questions)
        for sample in range(2)
    ]
