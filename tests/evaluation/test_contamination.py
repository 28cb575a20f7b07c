"""Questions that were trained on are found, however they are set; others are not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax.evaluation import contamination
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError

BASE = "Ann's 3 pens cost $1,250.50 - how much is one (in dollars)?"


@pytest.mark.parametrize(
    "other",
    [
        "ANN'S 3 PENS COST $1,250.50 - HOW MUCH IS ONE (IN DOLLARS)?",
        "Ann\u2019s 3 pens cost $1250.50.  How much\nis one ( in dollars )",
        "Ann\u2019s \uff13 pens cost $1,250.50 \u2014 how much is one (in dollars)\u2026",
        "Anns 3\u00a0pens co\u00adst $1,250.50, how-much is one (in dollars)?!",
    ],
)
def test_the_same_question_in_another_setting(other):
    assert contamination.normalize(other) == contamination.normalize(BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 5 - 3?", "What is 5 + 3?"),
        ("What is 5 - 3?", "What is 53?"),
        ("What is -5?", "What is 5?"),
        ("What is .5?", "What is 5?"),
        ("What is 3.5?", "What is 35?"),
        ("At 9:05", "At 905"),
        ("What is not (true and false)?", "What is (not true) and false?"),
        ("Is 3 < 4?", "Is 3 > 4?"),
        ("What is 3%?", "What is 3?"),
        ("What is 1/2?", "What is 12?"),
    ],
)
def test_another_question(one, other):
    assert contamination.normalize(one) != contamination.normalize(other)


def test_minus_signs_and_fractions_are_one():
    forms = ["5 - 3", "5-3", "5\u22123", "5\u20133"]
    assert {contamination.normalize(form) for form in forms} == {"5 - 3"}
    assert contamination.normalize("\u00bd cup") == contamination.normalize("1/2 cup")


@given(st.text(max_size=40))
def test_normalising_again_changes_nothing(text):
    plain = contamination.normalize(text)
    assert contamination.normalize(plain) == plain
    assert contamination.normalize(unicodedata.normalize("NFD", text.replace(" ", "\n "))) == plain


def question(index: int, text: str) -> Question:
    return Question(f"set/{index}", text, "1")


def test_what_was_trained_on_is_listed_and_refused_unless_allowed(tmp_path):
    texts = [f"What is {n} + 1?" for n in range(9)]
    path = tmp_path / "record.json"
    contamination.write(path, filter(None, map(contamination.fingerprint, texts[:5])))
    hashes = contamination.read(path)
    assert len(hashes) == 5
    sets = {
        "sums": [question(n, text.upper()) for n, text in enumerate(texts)],
        "others": [question(n, f"What is {n} - 1?") for n in range(9)],
        "empty": [question(0, "?!")],
    }
    with pytest.raises(contamination.ContaminationError) as error:
        contamination.check(sets, hashes, allowed=False)
    line = str(error.value)
    assert line.startswith("5 evaluation questions are in the training mixture: 5 of 9 of sums (")
    assert "set/0 'WHAT IS 0 + 1?'; set/1" in line and "set/3" not in line and ", ...)" in line
    assert "ALLOW_CONTAMINATION" in line and "others" not in line
    found = contamination.check(sets, hashes, allowed=True)
    assert found == {"sums": sets["sums"][:5], "others": [], "empty": []}
    del sets["sums"]
    nothing = contamination.check(sets, hashes, allowed=False)
    assert contamination.describe(nothing, sets) == (
        "no evaluation question is in the training mixture (others 9, empty 1)"
    )


def test_a_question_that_no_utf8_can_hold_has_a_fingerprint():
    assert contamination.fingerprint("half \ud83d") != contamination.fingerprint("half")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "training_questions", "ver', "expected JSON"),
        ("[]", "missing 'schema', 'version', 'hashes'"),
        ('{"schema": "training_questions", "version": 2, "hashes": []}', "expected version 1 of"),
    ],
)
def test_a_damaged_record(tmp_path, content, message):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(SchemaError, match=message):
        contamination.read(tmp_path / "record.json")
