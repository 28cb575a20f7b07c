"""Solutions that are put right: by hand, and on real ones."""

import json

import pytest

from specialize_jax import answers
from specialize_jax.decoding import equations
from tests import real_data


def test_last_equation_is_what_a_model_is_about_to_answer():
    assert equations.last_equation("She sold 48/2 =").value == 24
    assert equations.last_equation("It is $1,000 - 1 = $") is None
    assert equations.last_equation("Let x = 5 and x =") is None
    assert equations.last_equation("5 + 5 = 10") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 * 3 = 16.", "5 * 3 = 15."),
        ("5 * 3 = $16, 16 + 1 = 17.", "5 * 3 = $15, 15 + 1 = 16."),
        ("2 * 600 = 1,300 in all", "2 * 600 = 1,200 in all"),
        ("48/2 = <<48/2=20>>20 left", "48/2 = <<48/2=24>>24 left"),
        ("2+2=5. 1+1=2. The answer is 5.", "2+2=4. 1+1=2. The answer is 4."),
        ("2+2=5\n#### 5", "2+2=4\n#### 4"),
        # 5 is right by now: what follows means the new one.
        ("2+2=5. 2+3=5. 5+1=6. The answer is 5.", "2+2=4. 2+3=5. 5+1=6. The answer is 5."),
        # Given numbers are not computed ones.
        ("2+2=5. He has 5 dogs.", "2+2=4. He has 5 dogs."),
        ("Day 1. 3 + 2 = 6", "Day 1. 3 + 2 = 5"),
        # A sign belongs to its number: -10 is mended, and 10 is another number.
        (
            "4 - 14 = -9. 2 * -9 = -18. The answer is -18.",
            "4 - 14 = -10. 2 * -10 = -20. The answer is -20.",
        ),
        ("4 - 14 = -9. 3 -9 = -6. 9 + 1 = 10.", "4 - 14 = -10. 3 -9 = -6. 9 + 1 = 10."),
    ],
)
def test_a_solution_is_put_right(text, expected):
    mended, changes = equations.correct(text)
    assert mended == expected
    for at, old, _ in changes:
        assert text[at : at + len(old)] == old


@pytest.mark.parametrize(
    "text",
    [
        *("10 / 3 = 3.33", "10 / 3 = 3.3", "7 / 2 = 3.5", "3 - 5 = -2", "1,000 * 2 = 2000"),
        *(
            "3x-5 = 16",
            "(5/2)x+5 = 930",
            "M + 4 + 2 = 8",
            "X*2 - $40 = $250.",
            "(X+10)*3/2 = 45",
            "3x = 12",
            "8 x 1 1/2 = 12",
        ),
        *("3 / 4 * 2 = 1 1/2", "12 x 1 and 1/4 = 15", "25 / 1/3 = 75", "5 apples + 3 apples = 9"),
        *(
            "2 + 2 = 5 + 1 = 6",
            "72 / 2 = 3x",
            "4 * 25% = 2",
            "6 = 7",
            "5 = five",
            "a = b",
            "1/0 = 7",
        ),
        # what is counted comes in wholes, and a space may divide a number
        *("47 / 6 = 7 jars, 7 * 6 = 42", "She needs 22 / 4 = 6 cars", "6, 760 / 450 = 15"),
        *("0900-0130 = 0730", "The answer is 5.", ""),
    ],
)
def test_what_is_right_or_not_plain_is_left_alone(text):
    assert equations.correct(text) == (text, [])


def test_worked_solutions_of_people_are_nearly_all_left_alone():
    lines = (real_data.data_dir() / "gsm8k" / "train.jsonl").read_text().splitlines()
    changed = [line for line in lines if equations.correct(json.loads(line)["answer"])[1]]
    # Each of the 20 was read: slips of their authors, other units.
    assert (len(lines), len(changed)) == (7473, 20)


def test_it_mends_more_answers_of_real_models_than_it_breaks():
    path = real_data.data_dir() / "teacher_gsm8k_openai" / "example_model_solutions.jsonl"
    mended = broken = 0
    for row in map(json.loads, path.read_text().splitlines()):
        gold = row["ground_truth"].rpartition("A:")[2]
        for solution in (v["solution"] for v in row.values() if isinstance(v, dict)):
            after = equations.correct(solution)[0].rpartition("A:")[2]
            before = answers.equal(solution.rpartition("A:")[2], gold)
            mended += answers.equal(after, gold) and not before
            broken += before and not answers.equal(after, gold)
    assert (mended, broken) == (10, 2)
