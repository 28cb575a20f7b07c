"""Last letters and coin flips against a dull second look at the question's own words."""

import hashlib
import json
import re

import pytest

from specialize_jax import answers
from specialize_jax.data import formats
from specialize_jax.evaluation import readers

NAMES = readers.expand(["last_letters", "coin_flip"])


def solve(name, question):
    """Answers a question by reading it."""
    if name.startswith("last_letters"):
        words = re.search('"(.*)"', question)[1].split(" ")
        return len(words), "".join(word[-1] for word in words)
    flips = re.findall(r"(\w+) (flips|does not flip) it\.", question)
    heads = True
    for _, did in flips:
        heads = heads != (did == "flips")
    return len(flips), "yes" if heads else "no"


@pytest.mark.parametrize("name", NAMES)
def test_answers_follow_from_the_questions(name):
    for split, count in (("test", 500), ("train", 2000)):
        questions = readers.read(name, None, split)
        assert len(questions) == len({q.question for q in questions}) == count
        assert [q.row for q in questions] == list(range(count))
        for question in questions:
            assert solve(name, question.question) == (int(name[-1]), question.answer)
            chain = f"{question.source['chain']}\nThe answer is {question.answer}"
            assert answers.extract(chain, kind=question.kind) == question.answer


@pytest.mark.parametrize("name", NAMES)
def test_no_question_is_in_two_splits(name):
    test, train = ({q.question for q in readers.read(name, None, s)} for s in ("test", "train"))
    assert test.isdisjoint(train)


def test_coin_flips_are_balanced():
    for name in readers.expand(["coin_flip"]):
        yes = sum(q.answer == "yes" for q in readers.read(name))
        assert 200 < yes < 300  # 4.5 standard deviations around a half of 500


def test_the_questions_are_always_the_same():
    """A change here changes every score on these sets."""
    rows = [(q.id, q.question, q.answer) for name in NAMES for q in readers.read(name)]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest == "1820892c4b101cb8fa37942cc9b4f6542a449c59c5562657c79c7f567356f8f7"


@pytest.mark.parametrize("name", NAMES)
def test_exemplars_are_training_questions_of_two_names(name):
    shown = formats.read_exemplars(*readers.exemplars(name))
    short = f"{name[:-1]}2"
    train = {q.question: q.answer for q in readers.read(short, None, "train")}
    assert len(shown) == 4
    for exemplar in shown:
        assert train[exemplar.question] == exemplar.answer
