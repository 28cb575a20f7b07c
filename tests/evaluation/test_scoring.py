import math
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


def test_stderr_is_sample_deviation_over_root_n():
    values = [True] * 13 + [False] * 29
    p, n = 13 / 42, 42
    assert scoring.mean_stderr(values) == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)))
    assert scoring.mean_stderr([True]) == 0
    assert scoring.mean_stderr([True, True]) == 0
    with pytest.raises(ValueError, match="got none"):
        scoring.mean_stderr([])


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (5, 50), (838, 1319)])
def test_wilson_ends_solve_the_score_equation(successes, n):
    """Against its definition: |share - end| = z sqrt(end (1 - end) / n) at either end."""
    z, share = 1.959963984540054, successes / n
    low, high = scoring.wilson(successes, n)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        spread = z * math.sqrt(end * (1 - end) / n)
        assert abs(share - end) == pytest.approx(spread, abs=1e-9)


def test_wilson_published_value_and_errors():
    assert scoring.wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    narrow, wide = scoring.wilson(10, 20, confidence=0.5), scoring.wilson(10, 20, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    for arguments in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected"):
            scoring.wilson(*arguments)
    with pytest.raises(ValueError, match="confidence=1"):
        scoring.wilson(1, 2, confidence=1)
