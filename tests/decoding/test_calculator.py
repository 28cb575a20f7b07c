"""The calculator: against Python's arithmetic, and against what attacks it."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax.decoding import calculator, equations


@st.composite
def _expressions(draw, depth=3):
    """(text, the same for Python), of numbers, signs and brackets."""
    kind = draw(st.sampled_from(["number", "binary", "bracket", "minus"])) if depth else "number"
    if kind == "number":
        number = draw(st.one_of(st.integers(0, 99_999).map(str), st.sampled_from([".5", "2.25"])))
        shown = draw(st.sampled_from(["{}", "${}"])).format(number)
        return shown, f"Fraction('{number}')"
    if kind == "bracket":
        text, python = draw(_expressions(depth=depth - 1))
        return f"({text})", f"({python})"
    if kind == "minus":
        text, python = draw(_expressions(depth=depth - 1))
        return f"-({text})", f"-({python})"
    left, right = draw(_expressions(depth=depth - 1)), draw(_expressions(depth=depth - 1))
    sign, python = draw(st.sampled_from([("+", "+"), ("-", "-"), ("×", "*"), ("÷", "/")]))
    space = draw(st.sampled_from(["", " "]))
    return f"{left[0]}{space}{sign}{space}{right[0]}", f"{left[1]}{python}{right[1]}"


@given(_expressions())
def test_value_is_pythons(pair):
    text, python = pair
    try:
        expected = eval(python, {"Fraction": Fraction})  # our own text, not a model's
    except ZeroDivisionError:
        expected = None
    assert calculator.evaluate(text) == (expected if len(text) <= calculator.MAX_LENGTH else None)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1,200 / 5", 240),
        ("$5 * 3", 15),
        ("3x4 x (1 + 1)", 24),
        ("$ 5 + 1", 6),
        ("-$5", -5),
        ("10 − 4", 6),
        ("10 - -4", 14),
        ("2 - 3 - 4", -5),
        ("12 / 3 / 2", 2),
        ("2 + 3 * 4", 14),
        ("1 / 3 * 3", 1),
        (" 7\t", 7),
        ("(" * 19 + "1" + ")" * 19, 1),
    ],
)
def test_values(expression, value):
    assert calculator.evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "",
            " ",
            "two + 2",
            "x",
            "5x",
            "x5",
            "3x4y",
            "2(3)",
            "3 3",
            "3 +",
            "* 3",
            "()",
            "(3",
            "3)",
        ),
        *("9**9**9", "2^10", "2²", "1e9", "1_000", "5!", "20% * 5", "3 // 2", "5 % 2"),
        *("1 / 0", "1 / (2 - 2)", "1,2", "12,34", "1.2.3", "1.", "007", "$-5", "$$5", "1 = 1"),
        *("\u0663 + 1", "\uff13 + 1", "\u00bd + 1", "\u2460 + 1", "3\u200b + 1", "3\n+ 1"),
        *("__import__('os')", "(lambda: 1)()", "1 if 1 else 2", "[1]", "1;2"),
        "(" * 25 + "1" + ")" * 25,
        "-" * 30 + "1",
        "9" * 31,
        "1+" * 150 + "1",
    ],
)
def test_what_is_no_expression(expression):
    assert calculator.evaluate(expression) is None


@pytest.mark.parametrize("bomb", ["(", "-", "9*", "1/(", "9**", "=", "1=", "$", "1.", "1,", " "])
def test_long_text_takes_little_time(bomb):
    text = bomb * 50_000
    start = time.process_time()
    calculator.evaluate(text)
    equations.correct(text)
    # Quadratic work on 100,000 characters would take minutes.
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(24), "24"),
        (Fraction(0), "0"),
        (Fraction(-3), "-3"),
        (Fraction(5, 2), "2.5"),
        (Fraction(1, 64), "0.015625"),
        (Fraction(1, 3), "0.33"),
        (Fraction(-2, 3), "-0.67"),
        (Fraction(299, 300), "1"),
        (Fraction(1200), "1200"),
    ],
)
def test_a_value_is_written(value, text):
    assert calculator.write(value) == text
