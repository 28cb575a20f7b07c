"""The choice of a checkpoint from arrays, against plain Python and worked cases."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax.evaluation import selection

ROLES = {
    "gsm8k": "in_distribution",
    "svamp": "out_of_distribution",
    "asdiv": "out_of_distribution",
    "bbh": "generic",
    "mine": None,
}


def _dull(values, shares, resamples, seed):
    """The same draws as lists of questions, and means of what was drawn."""
    rng = np.random.default_rng(seed)
    sums = [[0.0] * len(values[0]) for _ in range(resamples)]
    for graded, share in zip(values, shares, strict=True):
        n = len(graded[0])
        for r, counts in enumerate(rng.multinomial(n, [1 / n] * n, size=resamples)):
            drawn = [q for q in range(n) for _ in range(counts[q])]
            for c, answers in enumerate(graded):
                sums[r][c] += share * statistics.fmean(answers[q] for q in drawn)
    return sums


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_resampled_scores_are_those_of_plain_python(data):
    checkpoints = data.draw(st.integers(1, 4))
    answer = st.sampled_from([0.0, 0.5, 1.0])
    values = [
        [data.draw(st.lists(answer, min_size=n, max_size=n)) for _ in range(checkpoints)]
        for n in data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    ]
    shares = [1 / len(values)] * len(values)
    found = selection.resampled([np.array(v) for v in values], shares, resamples=7, seed=3)
    np.testing.assert_allclose(found, _dull(values, shares, 7, 3), atol=1e-12)


def test_resamples_spread_as_the_mean_of_independent_answers_does():
    answers = np.array([[1.0] * 30 + [0.0] * 70])
    drawn = selection.resampled([answers], [1.0], resamples=20_000, seed=0)
    assert drawn.mean() == pytest.approx(0.3, abs=0.002)
    assert drawn.std() == pytest.approx((0.3 * 0.7 / 100) ** 0.5, rel=0.02)


def _graded(*right, n=100):
    """Checkpoints whose answers to the first `right` of `n` questions are right."""
    return np.array([[1.0] * k + [0.0] * (n - k) for k in right])


def test_a_clear_winner_is_chosen_without_a_doubt():
    choice = selection.choose({"svamp": _graded(10, 60, 30)}, {"svamp": 1.0})
    assert (choice.index, choice.runner_up) == (1, 2)
    assert not choice.within_noise and choice.undecided == []
    assert choice.best == [0, 1, 0]
    assert choice.leads[1] is None and choice.leads[2].value == pytest.approx(0.3)
    assert 0.2 < choice.leads[2].low < 0.3 < choice.leads[2].high < 0.4
    assert [score.value for score in choice.scores] == pytest.approx([0.1, 0.6, 0.3])


def test_pairing_tells_apart_what_intervals_of_each_cannot():
    """30 and 36 of 100, where the better one is right wherever the other is."""
    choice = selection.choose({"s": _graded(30, 36)}, {"s": 1.0})
    assert choice.scores[0].high > choice.scores[1].value  # apart they overlap
    assert choice.index == 1 and not choice.within_noise


def test_a_lead_by_luck_is_within_noise_and_names_the_others():
    rng = np.random.default_rng(5)
    near = (rng.random((2, 200)) < 0.5).astype(float)
    graded = np.concatenate([near, np.zeros((1, 200))])
    choice = selection.choose({"s": graded}, {"s": 1.0})
    assert choice.within_noise and choice.undecided == [choice.runner_up]
    assert choice.leads[choice.runner_up].low <= 0
    assert sum(choice.best) == pytest.approx(1) and choice.best[2] == 0


def test_of_equals_the_earlier_is_chosen_however_its_mean_is_summed():
    one = np.array([[1, 0, 0], [0, 0, 1]], float)
    choice = selection.choose({"a": one, "b": one[::-1]}, {"a": 0.1 + 0.2, "b": 0.7})
    assert choice.index == 0 and choice.within_noise
    assert choice.undecided == [1]
    same = selection.choose({"s": _graded(5, 5, 5)}, {"s": 1.0})
    assert (same.index, same.runner_up, same.best) == (0, 1, [1, 0, 0])
    assert same.undecided == [1, 2] and same.within_noise


def test_scores_weigh_sets_and_not_questions():
    values = {"small": _graded(5, 0, n=10), "large": _graded(0, 400, n=1000)}
    equal = selection.choose(values, {"small": 0.5, "large": 0.5})
    assert [score.value for score in equal.scores] == pytest.approx([0.25, 0.2])
    small = selection.choose(values, {"small": 0.2, "large": 0.8})
    assert small.index == 1
    swapped = selection.choose(values, {"large": 0.8, "small": 0.2})
    assert swapped == small


def test_a_lone_checkpoint_has_nobody_to_lead():
    choice = selection.choose({"s": _graded(3)}, {"s": 1.0})
    assert (choice.index, choice.runner_up, choice.leads) == (0, None, [None])
    assert not choice.within_noise


@pytest.mark.parametrize(
    ("by", "weights", "expected"),
    [
        ("out_of_distribution", None, {"svamp": 0.5, "asdiv": 0.5}),
        ("in_distribution", None, {"gsm8k": 1.0}),
        ("weighted", {"mine": 3, "gsm8k": 1}, {"mine": 0.75, "gsm8k": 0.25}),
        (
            "weighted",
            {"out_of_distribution": 2, "in_distribution": 2},
            {"svamp": 0.25, "asdiv": 0.25, "gsm8k": 0.5},
        ),
        ("weighted", {"out_of_distribution": 1, "svamp": 3}, {"asdiv": 0.25, "svamp": 0.75}),
        ("weighted", {"gsm8k": 1, "bbh": 0}, {"gsm8k": 1.0}),
    ],
)
def test_rules_are_weights_of_sets(by, weights, expected):
    assert selection.weights(by, ROLES, weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("by", "weights", "words"),
    [
        ("best", None, "unknown rule 'best'; choices: out_of_distribution"),
        ("weighted", None, "needs weights"),
        ("in_distribution", {"svamp": 1}, "it alone, needs weights"),
        ("weighted", {"aime": 1}, r"or has the role 'aime'; there are: asdiv \(out_of"),
        ("weighted", {"svamp": -1}, "at least 0 for 'svamp', got -1"),
        ("weighted", {"svamp": float("nan")}, "at least 0"),
        ("weighted", {"svamp": 0}, "a weight above 0"),
        # all of the role's sets are named themselves
        ("weighted", {"generic": 1, "bbh": 1}, "role 'generic'"),
    ],
)
def test_rules_that_mean_nothing_are_refused(by, weights, words):
    with pytest.raises(ValueError, match=words):
        selection.weights(by, ROLES, weights)


def test_choose_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="got none of s"):
        selection.choose({"s": np.zeros((2, 0))}, {"s": 1.0})
    for options in ({"resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match="expected resamples"):
            selection.choose({"s": _graded(1)}, {"s": 1.0}, **options)
