import statistics

import pytest

from specialize_jax.evaluation import scoring
from specialize_jax.evaluation.readers import Question

MODES = ("corrected", "fu2023")


@pytest.mark.parametrize(
    ("response", "gold", "corrected", "fu2023"),
    [
        ("The answer is 18.", "18", True, True),
        ("The answer is 1200", "1,200", True, False),
        ("The answer is 2,200", "1,200", False, True),
        ("The answer is 5", "-5", False, True),
        ("The answer is 9", "9 (apples)", True, True),
        ("The answer is 9 and 11", "9; 11", True, True),
        ("no idea", "18", False, False),
        ("The answer is 18", "Bryan", False, False),
        ("Bryan", "Bryan", False, False),
    ],
)
def test_each_mode_reads_both_sides(response, gold, corrected, fu2023):
    scores = scoring.score(response, Question("x/0", "q", gold), MODES)
    assert list(scores) == list(MODES)
    assert (scores["corrected"].correct, scores["fu2023"].correct) == (corrected, fu2023)


def test_score_keeps_what_was_read():
    score = scoring.score("It is $1,200.", Question("x/0", "q", "Bryan"), MODES)
    assert score["corrected"] == scoring.Score("1200", None, False)
    assert score["fu2023"] == scoring.Score("200", None, False)


def test_score_follows_the_kind_of_the_question():
    question = Question("x/0", "q", "(B)", kind="option")
    assert scoring.score("The answer is b.", question, ["corrected"])["corrected"].correct
    with pytest.raises(ValueError, match="'fu2023' reads only kind 'number', got 'option'"):
        scoring.score("The answer is b.", question, MODES)


def test_summary_counts_missing_gold_in_the_denominator():
    right, wrong = scoring.Score("1", "1", True), scoring.Score("1", None, False)
    summary = scoring.summarize([right, right, right, wrong])
    assert (summary.n, summary.n_correct, summary.n_without_gold) == (4, 3, 1)
    assert summary.accuracy == 0.75
    assert summary.stderr == pytest.approx(statistics.stdev([1, 1, 1, 0]) / 2)
    assert 0 < summary.low < 0.75 < summary.high < 1
    with pytest.raises(ValueError, match="at least one score"):
        scoring.summarize([])
