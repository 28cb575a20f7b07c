"""The templates of the paper's code, character by character, and the draw of exemplars."""

import pytest

from specialize_jax.data import formats
from specialize_jax.data.formats import Exemplar
from specialize_jax.schemas import Format

QUESTION = "How many: 2 + 3?"
DEMOS = [
    Exemplar("What is 1 + 1?", "1 + 1 = 2.\nThe answer is 2", "2"),
    Exemplar("What is 2 + 2?", "2 + 2 = 4.\nThe answer is 4", "4"),
]


# papers.md A.4 (src/data_utils.py of the reference repository)
@pytest.mark.parametrize(
    ("label", "exemplars", "expected"),
    [
        ("zero_shot_answer_only", [], "Q: How many: 2 + 3? A:"),
        ("zero_shot_chain_of_thought", [], "Q: How many: 2 + 3?\nLet's think step by step"),
        (
            "in_context_answer_only",
            DEMOS,
            "Q: What is 1 + 1?\nA: The answer is 2\n\n"
            "Q: What is 2 + 2?\nA: The answer is 4\n\n"
            "Q: How many: 2 + 3?\nA:",
        ),
        (
            "in_context_chain_of_thought",
            DEMOS,
            "Q: What is 1 + 1?\nLet's think step by step\n1 + 1 = 2.\nThe answer is 2\n\n"
            "Q: What is 2 + 2?\nLet's think step by step\n2 + 2 = 4.\nThe answer is 4\n\n"
            "Q: How many: 2 + 3?\nLet's think step by step",
        ),
    ],
)
def test_inputs_are_the_papers_templates(label, exemplars, expected):
    assert formats.render_inputs(formats.parse(label), QUESTION, exemplars) == expected


def test_targets():
    chain = "2 + 3 = 5.\nThe answer is 5"
    for fmt in Format:
        expected = chain if fmt.is_chain_of_thought else "The answer is 5"
        assert formats.render_target(fmt, chain, "5") == expected


def test_every_format_parses_from_its_label_and_an_unknown_one_names_them():
    assert [formats.parse(fmt.label) for fmt in Format] == list(Format)
    with pytest.raises(ValueError, match="unknown format 'few_shot'.*zero_shot_answer_only"):
        formats.parse("few_shot")


def test_exemplars_must_fit_the_format():
    with pytest.raises(ValueError, match="'in_context_answer_only' needs exemplars, got 0"):
        formats.render_inputs(Format.IN_CONTEXT_ANSWER_ONLY, QUESTION)
    with pytest.raises(ValueError, match="takes no exemplars, got 2"):
        formats.render_inputs(Format.ZERO_SHOT_ANSWER_ONLY, QUESTION, DEMOS)


def test_exemplars_are_distinct_never_the_question_and_reach_every_other_one():
    seen = set()
    for seed in range(300):
        drawn = formats.draw_exemplars(7, seed=(3, 0, seed), exclude=2)
        assert len(set(drawn.tolist())) == formats.NUM_EXEMPLARS
        seen |= set(drawn.tolist())
    assert seen == {0, 1, 3, 4, 5, 6}


def test_exemplars_are_a_function_of_the_seed():
    first = formats.draw_exemplars(1000, seed=(1, 2, 3), exclude=5).tolist()
    assert first == formats.draw_exemplars(1000, seed=(1, 2, 3), exclude=5).tolist()
    assert first != formats.draw_exemplars(1000, seed=(1, 2, 4), exclude=5).tolist()


def test_a_question_outside_the_pool_excludes_nothing():
    seen = {i for s in range(100) for i in formats.draw_exemplars(5, seed=(s,)).tolist()}
    assert seen == set(range(5))


def test_too_small_a_pool_is_an_error():
    with pytest.raises(ValueError, match="at least 4 other questions as exemplars, got 3"):
        formats.draw_exemplars(4, seed=(0,), exclude=1)


@pytest.mark.parametrize("fmt", list(Format))
@pytest.mark.parametrize("joined", [False, True])
def test_the_questions_of_an_input_are_read_back(fmt, joined):
    """Also where a tokenizer made spaces of the newlines."""
    exemplars = DEMOS if fmt.is_in_context else []
    text = formats.render_inputs(fmt, "How many\npens?", exemplars)
    asked = [*(one.question for one in exemplars), "How many\npens?"]
    if joined:
        text, asked = " ".join(text.split()), [" ".join(one.split()) for one in asked]
    assert formats.questions_in(text) == asked


def test_an_input_of_another_form_is_one_question():
    assert formats.questions_in("Add 3 and 4.") == ["Add 3 and 4."]
