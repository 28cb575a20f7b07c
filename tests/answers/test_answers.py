"""table.py is the specification: what each mode reads in real and in hostile strings."""

import doctest
import json
import re
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import answers
from tests.answers import table
from tests.real_data import data_dir

_COLUMNS = (
    "corrected",
    "fu2023",
    "gsm8k_cot:flexible-extract",
    "gsm8k_cot:strict-match",
    "gsm8k:strict-match",
)


@pytest.mark.parametrize("row", table.NUMBERS, ids=range(len(table.NUMBERS)))
def test_numbers(row):
    text, *expected = row
    expected += [None] * (len(_COLUMNS) - len(expected))
    assert [answers.extract(text, mode) for mode in _COLUMNS] == expected


@pytest.mark.parametrize(("text", "kind", "expected"), table.OTHERS, ids=range(len(table.OTHERS)))
def test_other_kinds(text, kind, expected):
    assert {mode: answers.extract(text, mode, kind=kind) for mode in expected} == expected


def test_table_is_long_and_has_no_duplicates():
    texts = [(row[0], "number") for row in table.NUMBERS] + [row[:2] for row in table.OTHERS]
    assert len(texts) == len(set(texts)) >= 250


@pytest.mark.parametrize("text", [row[1] for row in table.NUMBERS if row[1] is not None])
def test_canonical_form_reads_as_itself(text):
    assert answers.extract(text) == text
    assert answers.equal(text, text)


@pytest.mark.parametrize(
    ("a", "b", "corrected", "fu2023"),
    [
        ("1,200", "1200", True, False),
        ("2,200", "1,200", False, True),
        ("-5", "5", False, True),
        ("0.75", "3/4", True, False),
        ("0.333333", "1/3", True, False),
        ("0.33", "1/3", False, False),
        ("17.9999999", "18", True, False),
        ("17.99", "18", False, False),
        ("18.00", "$18", True, True),
        ("12345678", "12345679", False, False),
        ("9007199254740993", "9007199254740992", False, True),
        ("9" * 400, "9" * 401, False, True),
        ("9" * 2000, "09" + "9" * 1999, True, True),
        ("12:16", "3:4", True, False),
        ("10:05", "2:01", False, False),
        ("10:05", "2", False, False),
        ("3:4", "4", False, True),
        ("-3:4", "3:4", False, True),
        ("Yes", "Yes", False, False),
        ("", "", False, False),
        (None, "5", False, False),
        (None, None, False, False),
    ],
)
def test_equal_numbers(a, b, corrected, fu2023):
    assert answers.equal(a, b) == answers.equal(b, a) == corrected
    assert answers.equal(a, b, mode="fu2023") == answers.equal(b, a, mode="fu2023") == fu2023


@pytest.mark.parametrize(
    ("a", "b", "kind", "same"),
    [
        ("(b)", "B", "option", True),
        ("A", "B", "option", False),
        ("True", "yes", "boolean", True),
        ("no", "yes", "boolean", False),
        ("maybe", "maybe", "boolean", False),
        ("They are Equal.", "they are equal", "text", True),
        ("valid", "invalid", "text", False),
    ],
)
def test_equal_other_kinds(a, b, kind, same):
    assert answers.equal(a, b, kind=kind) == same


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("fu", "number", "unknown extraction mode 'fu'; choices: corrected, fu2023"),
        ("corrected", "int", "unknown kind of answer 'int'; choices: number, option, boolean"),
        ("fu2023", "option", "mode 'fu2023' reads only kind 'number', got 'option'"),
    ],
)
def test_unknown_names_list_the_choices(mode, kind, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        answers.extract("5", mode, kind=kind)
    with pytest.raises(ValueError, match=re.escape(message)):
        answers.equal(None, "5", mode=mode, kind=kind)


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_a_fraction_reads_as_its_value(value):
    text = answers.extract(f"The answer is {value}.")
    assert text is not None
    assert Fraction(text) == value
    assert answers.extract(f"so {text} apples") == text


@given(st.integers(-(10**30), 10**30), st.sampled_from(["{:,}", "{}", "{}.0", "{}.", "${:,}"]))
def test_every_way_to_write_an_integer_reads_the_same(value, form):
    assert answers.extract("The answer is " + form.format(value)) == str(value)


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    for kind in answers.KINDS:
        found = answers.extract(text, kind=kind)
        assert found is None or (found and answers.equal(text, text, kind=kind))
    answers.equal(text, text, mode="fu2023")


@pytest.mark.parametrize("text", table.HOSTILE.values(), ids=table.HOSTILE)
def test_hostile_texts_take_bounded_time(text):
    started = time.monotonic()
    for kind in answers.KINDS:
        answers.extract(text, kind=kind)
    answers.equal(text, text)
    answers.equal(text, text, mode="fu2023")
    # A quadratic step over 1e5 characters takes minutes; the linear one a tenth of a second.
    assert time.monotonic() - started < 5


def test_long_numbers_are_kept_digit_by_digit():
    assert answers.extract("9" * 100_000) == "9" * 100_000
    assert answers.extract("-" + "0" * 50_000 + "1" * 50_000) == "-" + "1" * 50_000
    assert answers.extract("-" + "0" * 50_000 + ".0") == "0"


def _lines(*path):
    with data_dir().joinpath(*path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(("split", "rows", "misread"), [("train", 7473, 82), ("test", 1319, 16)])
def test_gsm8k_gold_answers(split, rows, misread):
    """Counts of reference/papers.md A.2: commas and minus signs defeat the original pattern."""
    solutions = [row["answer"] for row in _lines("gsm8k", f"{split}.jsonl")]
    golds = [solution.split("#### ")[1].replace(",", "") for solution in solutions]
    assert len(golds) == rows
    assert [answers.extract(solution) for solution in solutions] == golds
    fu2023 = [answers.extract(solution, "fu2023") for solution in solutions]
    assert sum(float(f) != float(gold) for f, gold in zip(fu2023, golds, strict=True)) == misread


@pytest.mark.parametrize(
    ("teacher", "corrected", "fu2023"),
    [("code002", 838, 831), ("text003", 786, 772), ("gpt4", 1234, 1189)],
)
def test_gsm8k_teacher_texts(teacher, corrected, fu2023):
    rows = _lines("teacher_cot_text", "GSM8K", f"{teacher}_COT", "predictions.jsonl")
    golds = [row["answer"] for row in _lines("gsm8k", "test.jsonl")]
    pairs = [(row["completion"], gold) for row, gold in zip(rows, golds, strict=True)]
    assert sum(answers.equal(*pair) for pair in pairs) == corrected
    assert sum(answers.equal(*pair, mode="fu2023") for pair in pairs) == fu2023


@pytest.mark.parametrize(
    ("name", "kind", "answered"), [("AQUA", "option", 239), ("StrategyQA", "boolean", 2281)]
)
def test_teacher_texts_of_other_kinds(name, kind, answered):
    """We read what the collectors of these texts read, and nothing where they read nothing."""
    rows = _lines("teacher_cot_text", name, "code002_COT", "predictions.jsonl")
    words = {True: "yes", False: "no", "[invalid]": None}
    theirs = [words.get(row["answer"], row["answer"]) for row in rows]
    ours = [answers.extract(row["completion"], kind=kind) for row in rows]
    assert ours == theirs
    assert sum(answer is not None for answer in ours) == answered


def test_docstring_examples():
    assert doctest.testmod(answers).failed == 0
