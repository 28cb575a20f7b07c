"""The table is the specification: what each mode reads in real and in hostile strings."""

import doctest
import json
import re
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import answers
from tests.real_data import data_dir

# text, corrected, fu2023
TABLE = [
    # gold answers and outputs as GSM8K and code-davinci-002 write them
    ("Janet makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "18", "18"),
    ("2+1=<<2+1=3>>3 bolts of fabric\n#### 3", "3", "3"),
    ("200,000-130,000=$<<200000-130000=70000>>70,000\n#### 70,000", "70000", "000"),
    ("#### 1,450,000", "1450000", "000"),
    ("He loses 3-10=<<3-10=-7>>-7 dollars\n#### -7", "-7", "7"),
    ("#### 114,200", "114200", "200"),
    ("so she makes $2 * 9 = $18. The answer is 18.\n\n", "18", "18"),
    ("$120,000 - $130,000 = -$10,000. The answer is -$10,000.\n\n", "-10000", "000"),
    ("So the answer is $250,000.", "250000", "000"),
    ("The answer is 1000 * 1/5 = 200.", "200", "200"),
    ("The answer is x = 27 - 7 = 20.", "20", "20"),
    ("His net proceeds are $118 000. The answer is 118 000.", "118000", "000"),
    ("The answer is 200, 40, and 40.", "40", "40"),
    ("The answer is 5 + 3 = 8.", "8", "8"),
    ("The answer is 20%.", "20", "20"),
    ("The answer is 62.67%.", "62.67", "62.67"),
    ("The answer is 6 / 12 = 1/2 = 50%.", "50", "50"),
    ("The answer is 10.44 inches.", "10.44", "10.44"),
    ("The answer is 86 glasses and 42 plates.", "42", "42"),
    ("The answer is 175 tomatoes and -95 potatoes.", "-95", "95"),
    ("The answer is 11 - (-33) = 11 + 33 = 44.", "44", "44"),
    ("The answer is 5/12.", "5/12", "12"),
    ("The area is 16 * 8 = 128 ft^2. The answer is 8 ft and 128 ft^2.", "128", "2"),
    ("The answer is popcorn and soda is $12. The regular price is $13.", "12", "13"),
    ("He runs 3 days a week. How fast does he run?", "3", "3"),
    ("The answer is $18", "18", "18"),
    ("The answer is 18", "18", "18"),
    ("The answer is 18. Question: Tom has 5 apples", "18", "5"),
    ("The answer is 18.\n\nQ: Tom has 5 apples.\nThe answer is 7.", "7", "7"),
    # cues
    ("THE ANSWER IS 4, not 5 + 6", "6", "6"),
    ("the answer is: 4\nI checked 9 times", "4", "9"),
    ("**Answer:** 12\n\nThere were 3 steps", "12", "3"),
    ("The answer is **-5**", "-5", "5"),
    ("The final answer is 7 because of rule\n8", "7", "8"),
    ("The answer is:\n\n18\n\n20 left", "18", "20"),
    ("The answer is unknown", None, None),
    ("It is 18. The answer is eighteen.", "18", "18"),
    ("The answer is 18. I hope the answer is clear.", "18", "18"),
    (r"\boxed{42} in 3 steps", "42", "3"),
    (r"The answer is \boxed{-\frac{3}{4}} of 9", "-0.75", "9"),
    (r"\boxed{1{,}200\text{ dollars}}, 7", "1200", "7"),
    (r"\boxed{\$1,200.50}.", "1200.5", "200.50"),
    (r"$\boxed{18", "18", "18"),
    ("####18", "18", "18"),
    ("#### Step 2: add\n3 + 4 = 7", "7", "7"),
    ("##### 5\nand 6", "6", "6"),
    ("Is 5 the answer? The answers are 9 and 11.", "11", "11"),
    # signs
    ("-5", "-5", "5"),
    ("+5", "5", "5"),
    ("- 5", "-5", "5"),
    ("\u22125", "-5", "5"),
    ("is \u22123", "-3", "3"),
    ("is \u20133 degrees", "-3", "3"),
    ("the total \u2014 5", "5", "5"),
    ("is -3", "-3", "3"),
    ("5-3", "3", "3"),
    ("5 - 3", "3", "3"),
    ("5 -3", "3", "3"),
    ("5 - -3", "-3", "3"),
    ("5--3", "-3", "3"),
    ("so --3", "3", "3"),
    ("5-(-3)", "-3", "3"),
    ("5 - 8 = -3", "-3", "3"),
    ("5 - 8 = - 3", "-3", "3"),
    ("5 * -3", "-3", "3"),
    ("-(1/3)", "-1/3", "3"),
    ("-(5 + 3)", "3", "3"),
    ("x - 3", "3", "3"),
    ("x-3", "3", "3"),
    ("Apollo-11", "11", "11"),
    ("5 apples\n- 3 pears", "3", "3"),
    ("temperature:\n-3", "-3", "3"),
    ("10% - 3", "3", "3"),
    ("(2 + 3) - 4", "4", "4"),
    ("$20 - $5", "5", "5"),
    ("$20-$5", "5", "5"),
    ("$-5", "-5", "5"),
    ("-$5", "-5", "5"),
    ("- $5", "-5", "5"),
    ("\u20ac-5", "-5", "5"),
    ("10$-5", "5", "5"),
    ("left. -5", "-5", "5"),
    ("-0", "0", "0"),
    ("-0.00", "0", "0.00"),
    ("a 12-year-old", "12", "12"),
    # separators and decimals
    ("1,200", "1200", "200"),
    ("1,234,567.89", "1234567.89", "567.89"),
    ("1,200.", "1200", "200"),
    ("1,200, and 7", "7", "7"),
    ("2, 100", "100", "100"),
    ("5,10,15", "15", "15"),
    ("-5,3", "3", "3"),
    ("5,10/2", "5", "2"),
    ("1/2,5", "5", "5"),
    ("1,200,50", "50", "50"),
    ("12,34", "34", "34"),
    ("0,001", "1", "001"),
    ("1,2345", "2345", "2345"),
    ("12,34,567", "1234567", "567"),
    ("1\u202f200", "1200", "200"),
    ("1\u00a0200\u00a0000", "1200000", "000"),
    ("1 200", "200", "200"),
    ("2023 005", "5", "005"),
    (r"10\,000", "10000", "000"),
    (".5", "0.5", ".5"),
    ("$.50", "0.5", ".50"),
    ("-.5", "-0.5", ".5"),
    ("No.5", "5", ".5"),
    ("18.", "18", "18"),
    ("18.00", "18", "18.00"),
    ("007", "7", "007"),
    ("3.1400", "3.14", "3.1400"),
    ("...5", "5", ".5"),
    ("version 1.2.3", "3", ".3"),
    ("1e5", "100000", "5"),
    ("1.5E-3 g", "0.0015", "3"),
    ("1e99999", "1", "99999"),
    ("5e", "5", "5"),
    # fractions
    ("3/4", "0.75", "4"),
    ("1/3", "1/3", "3"),
    ("2/6", "1/3", "6"),
    ("48/2", "24", "2"),
    ("3 / 4", "0.75", "4"),
    ("1 1/2", "1.5", "2"),
    ("-1 1/2", "-1.5", "2"),
    ("1 and 1/2 hours", "1.5", "2"),
    ("16 48/2", "24", "2"),
    ("1\u00bd", "1.5", "1"),
    ("\u00bd", "0.5", None),
    ("-\u2153", "-1/3", None),
    ("3\u20444", "0.75", "4"),
    (r"\frac{3}{4}", "0.75", "4"),
    (r"1\frac{1}{2}", "1.5", "2"),
    (r"\dfrac{-3}{4}", "-0.75", "4"),
    ("1,000/3", "1000/3", "3"),
    ("1/1,000", "0.001", "000"),
    ("5/0", "0", "0"),
    ("0/5", "0", "5"),
    ("7.5/2.5", "3", "2.5"),
    # percent, currency, units
    ("50%", "50", "50"),
    ("12.5 percent", "12.5", "12.5"),
    ("\u20ac1,200", "1200", "200"),
    ("\u00a35", "5", "5"),
    ("1,200\u00a5", "1200", "200"),
    ("US$5", "5", "5"),
    ("3 pens cost USD50", "50", "50"),
    ("3 pens cost Rs. 50", "50", "50"),
    ("5 liters of H2O", "5", "2"),
    ("4 cm^2", "4", "2"),
    ("4 cm^{2}", "4", "2"),
    ("4 m\u00b2", "4", "4"),
    ("4 km2", "4", "2"),
    ("x_1 + x_2", "2", "2"),
    ("CO2", "2", "2"),
    ("5kg", "5", "5"),
    ("the 21st", "21", "21"),
    ("horse #12", "12", "12"),
    # ranges, dates, times, ratios
    ("10-15", "15", "15"),
    ("10\u201315 apples", "15", "15"),
    ("from 10 to 15", "15", "15"),
    ("5/12/2020", "2020", "2020"),
    ("2020-05-12", "12", "12"),
    ("3:4", "3:4", "4"),
    ("09:05 a.m.", "9:05", "05"),
    ("9:03:36 a.m.", "9:03:36", "36"),
    # other scripts and invisible characters
    ("\uff11\uff12", "12", "\uff11\uff12"),
    ("\u0663\u0664", "34", "\u0663\u0664"),
    ("\u0661\u066b\u0665", "1.5", "\u0665"),
    ("\uff11\uff0c\uff12\uff10\uff10\u3002", "1200", "\uff12\uff10\uff10"),
    ("1\u200b2", "12", "2"),
    ("\ufeff-\u200e5", "-5", "5"),
    # nothing
    ("", None, None),
    ("   \n", None, None),
    ("They are equal", None, None),
    ("...", None, None),
    ("-$%", None, None),
    ("\u00b2", None, None),
    ("NaN", None, None),
]


@pytest.mark.parametrize(("text", "corrected", "fu2023"), TABLE)
def test_numbers(text, corrected, fu2023):
    assert answers.extract(text) == corrected
    assert answers.extract(text, "fu2023") == fu2023


def test_table_is_long_and_has_no_duplicates():
    texts = [row[0] for row in TABLE]
    assert len(texts) == len(set(texts)) >= 120


@pytest.mark.parametrize("text", [row[1] for row in TABLE if row[1] is not None])
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
    ("text", "kind", "expected"),
    [
        ("So the answer is (b).\n\n", "option", "B"),
        ("The answer is C.", "option", "C"),
        ("The answer is b", "option", "B"),
        ("The answer is a dog", "option", None),
        ("the answer is option D because A is wrong", "option", "D"),
        ("(A) 5 (B) 6. The answer is (A). Q: (C)", "option", "A"),
        (r"\boxed{\text{E}}", "option", "E"),
        ("#### (D)", "option", "D"),
        ("B", "option", "B"),
        ("(r)", "option", "R"),
        ("B) 12 km", "option", "B"),
        ("I think it is 12", "option", None),
        ("no letter", "option", None),
        ("So the answer is yes.", "boolean", "yes"),
        ("The answer is True", "boolean", "yes"),
        ("the answer is FALSE. But yes", "boolean", "no"),
        ("No, yes is wrong", "boolean", "no"),
        ("There are no doubts: yes", "boolean", "yes"),
        ("None of nobody", "boolean", None),
        (r"\boxed{no} yes", "boolean", "no"),
        ("So the answer is valid.", "text", "valid"),
        ("The answer is *They  are equal*.", "text", "They are equal"),
        ("steps\nThe answer is: St. Louis.\nQ: next", "text", "St. Louis"),
        ("#### Purple", "text", "Purple"),
        (r"So \boxed{\text{red hat}} it is", "text", "red hat"),
        ("first\nlast line.\n", "text", "last line"),
        ("line\nThe answer is", "text", "The answer is"),
        ("  \n", "text", None),
    ],
)
def test_other_kinds(text, kind, expected):
    assert answers.extract(text, kind=kind) == expected


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


HOSTILE = {
    "digits": "9" * 100_000,
    "unicode digits": "\uff19" * 100_000,
    "groups": "1" + ",234" * 25_000 + "5",
    "indian groups": "1" + ",23" * 33_000,
    "numbers": "1 " * 50_000,
    "dots": "." * 100_000,
    "fractions": "1/" * 50_000,
    "long fraction": "9" * 50_000 + "/" + "7" * 50_000,
    "times": "1:" * 50_000,
    "minus signs": "-" * 100_000 + "5",
    "spaces": "1" + " " * 100_000 + "x",
    "cues": "the answer is " * 7_000,
    "half a cue": "answer" + " " * 100_000 + "*" * 100_000,
    "boxes": "\\boxed{" * 15_000,
    "braces": "\\boxed{" + "{" * 100_000,
    "latex": "\\frac{" * 15_000,
    "hashes": "#" * 100_000,
    "exponents": "1e999 " * 15_000,
    "halves": "\u00bd" * 100_000,
    "brackets": "(b" * 50_000,
    "lines": "\n" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
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
