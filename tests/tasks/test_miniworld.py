"""The embedded world: splits, solutions, and a teacher whose distributions are exact."""

import collections
import itertools
import math
import random

import pytest

from specialize_jax import answers
from specialize_jax.data import formats
from specialize_jax.evaluation import readers
from specialize_jax.schemas import records as schema
from specialize_jax.tasks import miniworld
from specialize_jax.tasks.miniworld import Settings
from specialize_jax.teacher import collect, grammar

KNOBS = Settings()


@pytest.fixture(scope="module")
def teacher():
    return miniworld.Teacher(error_rate=0.2)


@pytest.mark.parametrize("family", miniworld.FAMILIES)
def test_questions_are_a_prefix_of_one_order_and_none_stands_twice(family):
    few = miniworld.questions(family, "train", 20, KNOBS)
    many = miniworld.questions(family, "train", 60, KNOBS)
    assert many[:20] == few
    assert len({q.question for q in many}) == len({q.id for q in many}) == 60
    other = miniworld.questions(family, "train", 20, Settings(seed=1))
    assert [q.question for q in other] != [q.question for q in few]


def test_no_question_is_in_two_splits_and_no_story_computes_what_a_test_story_does():
    texts, computations = collections.Counter(), collections.defaultdict(set)
    for family, split in itertools.product(miniworld.FAMILIES, miniworld.SPLITS):
        found = miniworld.questions(family, split, 100, KNOBS)
        texts.update({q.question for q in found})
        computations[split] |= {
            (q.source["start"], *q.source["steps"]) for q in found if "steps" in q.source
        }
    assert max(texts.values()) == 1
    assert not computations["train"] & computations["test"]


@pytest.mark.parametrize("family", miniworld.FAMILIES)
def test_the_right_solution_is_right_by_its_own_lines(family):
    """Every line of arithmetic or logic is true, and the last one gives the gold answer."""
    for question in miniworld.questions(family, "test", 40, KNOBS):
        chain = miniworld.solution(question)
        answer = answers.extract(chain, kind=question.kind)
        assert answers.equal(answer, question.answer, kind=question.kind), chain
        for line in chain.split("\n"):
            if "=" in line:
                sum_, _, result = line.removesuffix(".").partition("=")
                assert eval(sum_) == int(result), line
            if family == "boolean" and " is " in line and not line.startswith("The"):
                expression, _, result = line.removesuffix(".").partition(" is ")
                assert str(eval(expression)) == result, line


def test_boolean_questions_have_the_value_that_python_gives_them():
    for question in miniworld.questions("boolean", "test", 60, KNOBS):
        expression = question.question.removeprefix("What is ").removesuffix("?")
        assert str(eval(expression)) == question.answer, question.question


def test_story_numbers_stay_within_the_knobs():
    knobs = Settings(min_steps=1, max_steps=4, max_number=9)
    lengths = set()
    for family, least, most in (("stories", 0, 9), ("larger_numbers", 10, 18)):
        for question in miniworld.questions(family, "train", 80, knobs):
            values = list(
                itertools.accumulate([question.source["start"], *question.source["steps"]])
            )
            assert all(least <= value <= most for value in values)
            lengths.add(len(values) - 1)
    assert lengths == {1, 2, 3, 4}


def test_distractors_hold_a_number_that_the_solution_does_not_use():
    for question in miniworld.questions("distractors", "test", 30, KNOBS):
        numbers = [word for word in question.question.split() if word.isdigit()]
        assert len(numbers) == 2 + len(question.source["steps"])


def _enumerate(transitions, state=("start",)):
    """Yields (text, probability) of every solution."""
    if state is None:
        yield "", 1.0
        return
    for way in transitions(state):
        for text, probability in _enumerate(transitions, way.to):
            yield way.text + text, way.probability * probability


@pytest.mark.parametrize("family", ["stories", "other_wording", "reversal", "boolean"])
def test_distributions_equal_enumeration_over_whole_solutions(teacher, family):
    question = miniworld.questions(family, "train", 1, KNOBS)[0]
    transitions = miniworld.solutions(question.source, 0.2)
    solutions = [
        ([t for part in grammar.pretokens(text) for t in teacher.tokenize(part)], probability)
        for text, probability in _enumerate(transitions)
    ]
    assert math.fsum(p for _, p in solutions) == pytest.approx(1.0)
    sample = teacher.sample(question, sample_id=0, top_logprobs=5, seed=0)
    found = teacher.distributions(question, sample.tokens)
    assert found[-1] == {}
    for step, distribution in enumerate(found[:-1]):
        votes = collections.defaultdict(float)
        for tokens, probability in solutions:
            if tokens[:step] == list(sample.tokens[:step]) and len(tokens) > step:
                votes[tokens[step]] += probability
        total = math.fsum(votes.values())
        assert distribution == pytest.approx({token: p / total for token, p in votes.items()})


def test_tokens_never_cross_a_pretoken_and_are_canonical(teacher):
    question = miniworld.questions("stories", "train", 1, KNOBS)[0]
    sample = teacher.sample(question, sample_id=1, top_logprobs=5, seed=0)
    text = b"".join(sample.tokens).decode()
    canonical = [t for part in grammar.pretokens(text) for t in teacher.tokenize(part)]
    assert list(sample.tokens) == canonical
    # Its vocabulary is small enough for words in several tokens.
    words = " ".join(q.question for q in miniworld.questions("reversal", "train", 20, KNOBS))
    assert any(len(teacher.tokenize(part)) > 1 for part in grammar.pretokens(words))


@pytest.mark.parametrize("family", ["stories", "boolean"])
def test_a_text_has_one_sequence_of_tokens(teacher, family):
    """The canonical tokens of a text have its whole probability: none is left for others."""
    question = miniworld.questions(family, "train", 1, KNOBS)[0]
    texts = list(_enumerate(miniworld.solutions(question.source, 0.2)))
    for text, _ in texts[:: max(1, len(texts) // 12)]:
        tokens = [t for part in grammar.pretokens(text) for t in teacher.tokenize(part)]
        steps = teacher.distributions(question, tokens)
        logprob = math.fsum(
            math.log(step[token]) for step, token in zip(steps, tokens, strict=False)
        )
        same = math.fsum(p for other, p in texts if other == text)
        assert math.exp(logprob) == pytest.approx(same)


def test_collected_rows_fit_the_schema_and_the_teacher_makes_mistakes(teacher):
    questions = miniworld.train_questions(("stories", "reversal"), 60)
    rows = list(collect.rows(teacher, questions, num_samples=3, top_logprobs=5, seed=0))
    kept = [row for row in rows if not isinstance(row, str)]
    assert len(rows) == 360 and "duplicate" in rows
    for row in kept:
        schema.check_row(row)
        assert schema.target_text(row) == row["completion"].removesuffix("\n\n")
        assert all(len(step) <= 5 for step in row["topk_bytes"])
        assert row["terminal_bytes"] == [b"\n"]
    right = sum(row["is_correct"] for row in kept)
    assert 0.5 * len(kept) < right < 0.9 * len(kept)
    # The same arguments give the same rows, whatever was asked before.
    again = list(collect.rows(teacher, questions[5:6], num_samples=3, top_logprobs=5, seed=0))
    assert again == rows[15:18]


def test_recorded_logprobs_are_those_of_the_full_distribution(teacher):
    question = miniworld.questions("stories", "train", 3, KNOBS)[2]
    sample = teacher.sample(question, sample_id=0, top_logprobs=2, seed=4)
    exact = teacher.distributions(question, sample.tokens)
    for token, logprob, top, full in zip(
        sample.tokens, sample.logprobs, sample.topk, exact, strict=False
    ):
        assert logprob == pytest.approx(math.log(full[token]))
        assert [p for _, p in top] == pytest.approx(
            sorted((math.log(p) for p in full.values()), reverse=True)[:2]
        )
    assert any(len(full) > 2 for full in exact)


def test_a_teacher_that_is_nearly_always_wrong_still_writes_whole_solutions():
    teacher = miniworld.Teacher(error_rate=0.95)
    for question in miniworld.questions("stories", "train", 60, Settings(max_steps=7)):
        sample = teacher.sample(question, sample_id=0, top_logprobs=5, seed=0)
        lines = b"".join(sample.tokens).decode().rstrip("\n").split("\n")
        assert len(lines) == 2 + len(question.source["steps"])
        # It goes on from what it wrote.
        for line, following in itertools.pairwise(lines[1:-1]):
            result = line.split(" = ")[1].split()[0].rstrip(".")
            assert following.removeprefix("Then ").startswith(f"{result} ")


def test_mistakes_come_at_the_stated_rate(teacher):
    question = miniworld.questions("last_letters", "train", 1, KNOBS)[0]
    texts = [
        b"".join(teacher.sample(question, sample_id=i, top_logprobs=0, seed=0).tokens).decode()
        for i in range(600)
    ]
    wrong = sum(answers.extract(text, kind="text") != question.answer for text in texts)
    assert abs(wrong / 600 - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 600)


@pytest.mark.parametrize("family", miniworld.FAMILIES)
def test_every_family_is_an_evaluation_set_with_exemplars(family):
    name = f"miniworld_{family}"
    questions = readers.read(name, None)
    size = {"in_distribution": 500, "out_of_distribution": 200, "generic": 100}
    assert len(questions) == size[miniworld.FAMILIES[family].role]
    shown = formats.read_exemplars(readers.SETS[name].prompt(), name)
    assert len(shown) == formats.NUM_EXEMPLARS
    assert not {e.question for e in shown} & {q.question for q in questions}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Settings(max_number=1), "Settings.max_number: expected at least 5, got 1"),
        (lambda: Settings(max_number=20.5), "max_number: expected an integer, got 20.5"),
        (lambda: miniworld.Teacher(vocab_size=9000), "cannot learn 9000 pieces"),
        (lambda: Settings(min_steps=3), "max_steps: expected at least 3, got 2"),
        (lambda: miniworld.questions("sums", "test", 1), "no problems of family 'sums'"),
        (lambda: miniworld.questions("stories", "dev", 1), "splits: train, test"),
        (
            lambda: miniworld.questions("boolean", "test", 99, Settings(max_words=3)),
            "raise a knob",
        ),
        (lambda: miniworld.Teacher(error_rate=1.0), r"expected a value in \[0, 1\)"),
        (
            lambda: miniworld.Teacher().grammar(readers.Question("q/1", "Why?", "1")),
            "'q/1' is no question of the miniworld",
        ),
        (
            lambda: list(
                collect.rows(miniworld.Teacher(), [], num_samples=0, top_logprobs=5, seed=0)
            ),
            "NUM_SAMPLES: expected at least 1, got 0",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_drawing_does_not_touch_the_global_random_state():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    miniworld.questions("stories", "test", 10, KNOBS)
    assert random.random() == expected
