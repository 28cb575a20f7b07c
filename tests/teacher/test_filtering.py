"""Prompts, and from a served answer to a row or the reason of its drop."""

import math

import pytest

from specialize_jax.data import formats
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import records
from specialize_jax.teacher import filtering, prompts, wire
from specialize_jax.teacher.names import Name
from tests.real_data import data_dir

QUESTION = Question("q/0", "2 + 2?", "4")
HALF = math.log(0.5)


def choice(*tokens, finish="stop", text=None):
    steps = [wire.Step(Name(t.encode(), None, t), HALF, {t: HALF}) for t in tokens]
    return wire.Choice("".join(tokens) if text is None else text, finish, steps)


def rows(*choices, **rules):
    rules = filtering.Rules(**rules)
    return list(filtering.rows(QUESTION, "P", enumerate(choices), rules, top_logprobs=5))


def test_an_answer_ends_with_its_line():
    tokens = ["\n", "2 + 2 = 4", ".\n", "The", " answer is", " 4", ".\n\n", "Question:", " x"]
    (row,) = rows(choice(*tokens))
    records.check_row({name: row[name] for name in records.ARROW_SCHEMA.names})
    # The full stop goes with the newline whose token it shares; the first newline is the prompt's.
    assert records.target_text(row) == "2 + 2 = 4.\nThe answer is 4"
    assert row["completion"] == "".join(tokens)
    assert row["terminal_bytes"] == [b".\n\n"] and row["is_correct"]
    (row,) = rows(choice(*tokens), answer_line=False)
    assert records.target_text(row).endswith("Question: x")


def test_an_answer_cut_behind_its_line_has_ended_and_one_cut_in_it_has_not():
    (row,) = rows(choice("The answer is 4", "\n", "Que", finish="length"))
    assert row["finish_reason"] == "stop"
    assert rows(choice("The answer is 4", finish="length")) == ["cut_by_length"]


@pytest.mark.parametrize(
    ("text", "rules", "reason"),
    [
        ("", {}, "empty"),
        (" \n", {}, "empty"),
        ("It is 4", {}, "no_answer_line"),
        ("So\ufffd. The answer is 4", {}, "lost_characters"),
        ("The answer is 4", {"min_chars": 16}, "too_short"),
        ("The answer is 4", {"max_chars": 14}, "too_long"),
    ],
)
def test_reasons(text, rules, reason):
    assert rows(wire.Choice(text, "stop", None), **rules) == [reason]


def test_chains_that_are_the_same_are_kept_once():
    found = rows(
        *[choice("The answer is 4", "\n", rest) for rest in "ab"], choice("The answer is 4")
    )
    assert found[1:] == ["duplicate", "duplicate"]


def test_a_target_does_not_end_within_a_character():
    raw = [b"The answer is 4", b"\xe2\x80", b"\x9d\n", b"x"]
    strings = [token.decode(errors="replace") for token in raw]
    steps = [wire.Step(Name(t, None, s), HALF, {}) for t, s in zip(raw, strings, strict=True)]
    (row,) = rows(wire.Choice(b"".join(raw).decode(), "stop", steps))
    assert records.target_text(row) == "The answer is 4"


def test_tokens_that_are_not_the_text_leave_the_text():
    (row,) = rows(choice("The", "answer is 4", text="The answer is 4"))
    assert (row["completion"], row["token_bytes"]) == ("The answer is 4", [])
    assert row["counts"]["no_tokens"] == 1 and not records.has_logprobs(row)


def test_modes_of_comparison():
    odd = Question("q", "?", "1,200")
    found = [
        next(
            filtering.rows(
                odd, "P", [(0, choice("The answer is 200"))], filtering.Rules(mode), top_logprobs=1
            )
        )["is_correct"]
        for mode in ("corrected", "fu2023")
    ]
    assert found == [False, True]  # the paper's expression reads 1,200 as 200
    with pytest.raises(ValueError, match="choices: corrected"):
        filtering.Rules("exact")


# ---- prompts ----


@pytest.mark.parametrize("name", ["complex", "simple", "original", "direct"])
def test_the_papers_prompts_are_theirs_to_the_letter(name):
    form = prompts.FORMS[name]
    text = (data_dir() / "cot_prompts" / form.exemplars).read_text()
    made = prompts.fill(form.template, question="How many?", answer="4", exemplars=text)
    # `process_prompt_complex` of scripts/codex_decode_gsm8k.py, but for the steps of `direct`.
    steps = "" if name == "direct" else "\nLet's think step by step"
    assert made == f"{text}\nQuestion: How many?{steps}"


def test_the_hint_stands_between_question_and_chain():
    text = (data_dir() / "cot_prompts" / "prompt_original.txt").read_text()
    exemplars = prompts.hinted(formats.read_exemplars(text, "it"))
    form = prompts.FORMS["hint"]
    made = prompts.fill(form.template, question="How many?", answer="4", exemplars=exemplars)
    assert made.endswith("\n\nQuestion: How many?\nThe answer is 4.\nLet's think step by step")
    assert "plant today?\nThe answer is 6.\nLet's think step by step\nThere are 15" in made
    assert made.count("\nLet's think step by step") == 9 == made.count("Question: ")


def test_a_decomposition_has_no_answer_line():
    form = prompts.FORMS["decomposition"]
    prompts.check(form.template, "it", exemplars=None)
    assert prompts.fill(form.template, question="P", answer="").endswith("\nProblem: P\nQ:")
    assert not form.answer_line


def test_placeholders_are_replaced_once():
    made = prompts.fill("{question} {answer}", question="{answer} {x}", answer="{question}")
    assert made == "{answer} {x} {question}"


@pytest.mark.parametrize(
    ("template", "exemplars", "expected"),
    [
        ("Q: A", None, r"it: expected the placeholder \{question\}, found none"),
        ("{answer}", None, r"found \{answer\}"),
        ("{question} {exemplars}", None, "needs --exemplars"),
        ("{question}", "x", r"has no \{exemplars\}"),
    ],
)
def test_placeholders_that_are_missing(template, exemplars, expected):
    with pytest.raises(ValueError, match=expected):
        prompts.check(template, "it", exemplars=exemplars)
