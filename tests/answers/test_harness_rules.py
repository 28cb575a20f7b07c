"""lm-evaluation-harness's filters: what they call right, where they apply, and in what time."""

import doctest
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import answers
from specialize_jax.answers import harness_rules
from tests.answers import table


def judged(mode, response, gold):
    kind = harness_rules.RULES[mode].kinds[-1] if mode in harness_rules.RULES else "text"
    answer = answers.extract(response, mode, kind=kind)
    return answers.equal(answer, answers.reference(gold, mode, kind=kind), mode=mode, kind=kind)


@pytest.mark.parametrize(
    ("mode", "response", "gold", "right"),
    [
        # gold solutions are cut at their mark, whatever the filter
        ("gsm8k:strict-match", "#### 1,200", "So 600 * 2 = 1200 (in all)\n#### 1,200", True),
        ("gsm8k:strict-match", "#### $1,200", "1200", False),
        ("gsm8k:flexible-extract", "#### $1,200", "1200", True),
        ("gsm8k:flexible-extract", "It is 5.\nQuestion: 7?", "5", True),
        ("gsm_plus:strict-match", "#### 5", "5", True),
        ("gsm8k_cot:strict-match", "The answer is 18.", "18", True),
        ("gsm8k_cot:strict-match", "The answer is 18", "18", False),
        ("gsm8k_cot:strict-match", "The answer is 18", "1", True),
        ("gsm8k_cot:strict-match", "The answer is $18.", "18", False),
        ("gsm8k_cot:flexible-extract", "It is $1,200.", "1200", True),
        ("gsm8k_cot:flexible-extract", "It is $75.00", "75", False),
        ("gsm8k_cot:flexible-extract", "It is 3/4", "0.75", False),
        ("gsm8k_cot_zeroshot:strict-match", "The answer is -3.", "-3", True),
        ("gsm8k_cot_llama:strict-match", "The final answer is 7", "7", True),
        ("gsm8k_cot_llama:strict-match", "The final answer is 7\nThe final answer is 8", "8", True),
        ("gsm8k_cot_llama:strict-match", "The answer is 7", "7", False),
        ("gsm8k_cot_self_consistency:score-first", "The answer is 18", "18", True),
        ("gsm8k_cot_self_consistency:score-first", "So:\n\nThe answer is 18", "18", False),
        ("asdiv_cot_llama:flexible-extract", "It is 9", "9 (apples)", True),
        ("bbh_cot_fewshot:get-answer", "the answer is valid.", "valid", True),
        ("bbh_cot_fewshot:get-answer", "the answer is valid", "valid", False),
        ("bbh_cot_fewshot:get-answer", "the answer is Valid.", "valid", False),
        ("bbh_cot_fewshot:get-answer", "The answer is valid.", "valid", False),
        ("bbh_cot_fewshot:get-answer", "so\n\nthe answer is valid.", "valid", False),
        ("bbh_cot_zeroshot:strict-match", 'The answer is "Valid"..', "valid", True),
        ("bbh_cot_zeroshot:strict-match", "The answer is a, b.", "a b", True),
        ("bbh_fewshot:none", "True", "True", True),
        ("bbh_fewshot:none", " True", "True", False),
        ("bbh_fewshot:none", "True\n\nQ: more", "True", True),
        ("mmlu_flan_cot_fewshot:get-answer", "The answer is (b).", "B", True),
        ("mmlu_flan_cot_fewshot:get-answer", "The answer is (b)", "(B)", True),
        ("mmlu_flan_cot_fewshot:get-answer", "The answer is b", "(B)", False),
        ("mmlu_flan_cot_zeroshot:strict-match", "The answer: (C).", "C", True),
        ("mmlu_generative:get_response", " b. \nmore", "B", True),
        ("mmlu_generative:get_response", "b is it", "B", False),
        # 2301.12726's own on BIG-Bench Hard: a part is enough
        ("fu2023_bbh", "the answer is 12.", "2", True),
        ("fu2023_bbh", "the answer is None.", "No", True),
        ("fu2023_bbh", "The answer is 2.", "2", False),
        ("fu2023_bbh", "2. the answer is 3.", "2", False),
        ("fu2023_bbh", "the answer is 3. But the answer is 2.", "2", False),
        ("fu2023_bbh_direct", "(A) or (B)", "(B)", True),
        ("fu2023_bbh_direct", "b", "(B)", False),
    ],
)
def test_what_is_right(mode, response, gold, right):
    assert judged(mode, response, gold) == right


@pytest.mark.parametrize(
    ("kinds", "harness", "expected"),
    [
        (["number"], None, ["corrected", "fu2023"]),
        (["option"], None, ["corrected"]),
        (["number", "text"], None, ["corrected"]),
        (
            ["number"],
            "gsm8k",
            ["corrected", "fu2023", "gsm8k:strict-match", "gsm8k:flexible-extract"],
        ),
        (
            ["number"],
            "bbh_cot_fewshot",
            ["corrected", "fu2023_bbh", "bbh_cot_fewshot:get-answer"],
        ),
        (
            ["option", "text"],
            "bbh_cot_zeroshot_navigate",
            ["corrected", "fu2023_bbh", "bbh_cot_zeroshot:strict-match"],
        ),
        (["boolean"], "bbh_fewshot", ["corrected", "fu2023_bbh_direct", "bbh_fewshot:none"]),
        (["option"], "mmlu_generative", ["corrected", "mmlu_generative:get_response"]),
    ],
)
def test_modes_of_a_set(kinds, harness, expected):
    assert list(answers.modes_of(*kinds, harness=harness)) == expected


def test_every_task_of_the_harness_has_modes_that_read():
    for task in harness_rules.TASKS:
        kind = harness_rules.RULES[harness_rules.modes_of(task)[0]].kinds[0]
        for mode in answers.modes_of(kind, harness=task):
            assert mode in answers.MODES
            answers.extract("the answer is 5.", mode, kind=kind)


@pytest.mark.parametrize(
    ("kinds", "harness", "message"),
    [
        (["number"], "gsm9k", "unknown harness task 'gsm9k'; choices: gsm8k, gsm_plus, "),
        (["option"], "gsm8k", "mode 'gsm8k:strict-match' reads only kind 'number', got 'option'"),
        (["int"], None, "unknown kind of answer 'int'; choices: number, "),
    ],
)
def test_what_does_not_fit_is_named(kinds, harness, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        answers.modes_of(*kinds, harness=harness)


@pytest.mark.parametrize("name", [*table.HOSTILE, "cued digits", "cued dots", "marks"])
def test_hostile_texts_take_bounded_time(name):
    more = {
        "cued digits": "The answer is " + "1," * 50_000,
        "cued dots": "The answer is " + "." * 100_000,
        "marks": "#### " * 20_000,
    }
    text = (table.HOSTILE | more)[name]
    started = time.monotonic()
    for mode, rule in harness_rules.RULES.items():
        answer = answers.extract(text, mode, kind=rule.kinds[0])
        gold = answers.reference(text, mode, kind=rule.kinds[0])
        answers.equal(answer or text, gold, mode=mode, kind=rule.kinds[0])
    assert time.monotonic() - started < 5


@given(st.text() | st.text(alphabet="The answer is 0123456789.,$-#\n"))
def test_any_text_is_read_by_any_mode(text):
    for mode in answers.MODES:
        kind = harness_rules.RULES[mode].kinds[0] if mode in harness_rules.RULES else "number"
        answer = answers.extract(text, mode, kind=kind)
        assert answer is None or answer in text or mode == "corrected"
        assert answer != ""


def test_docstring_examples():
    assert doctest.testmod(harness_rules).failed == 0
