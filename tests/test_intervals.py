"""Intervals against their definitions, and the bootstrap against enumeration in fractions."""

import itertools
import math
from fractions import Fraction

import pytest

from specialize_jax import intervals


def test_stderr_is_sample_deviation_over_root_n():
    values = [True] * 13 + [False] * 29
    p, n = 13 / 42, 42
    assert intervals.mean_stderr(values) == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)))
    assert intervals.mean_stderr([True]) == 0
    assert intervals.mean_stderr([True, True]) == 0
    with pytest.raises(ValueError, match="got none"):
        intervals.mean_stderr([])


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (5, 50), (838, 1319)])
def test_wilson_ends_solve_the_score_equation(successes, n):
    """Against its definition: |share - end| = z sqrt(end (1 - end) / n) at either end."""
    z, share = 1.959963984540054, successes / n
    low, high = intervals.wilson(successes, n)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        spread = z * math.sqrt(end * (1 - end) / n)
        assert abs(share - end) == pytest.approx(spread, abs=1e-9)


def test_wilson_published_value_and_errors():
    assert intervals.wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    narrow, wide = (
        intervals.wilson(10, 20, confidence=0.5),
        intervals.wilson(10, 20, confidence=0.99),
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    for arguments in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected"):
            intervals.wilson(*arguments)
    with pytest.raises(ValueError, match="confidence=1"):
        intervals.wilson(1, 2, confidence=1)


def _exact_quantile(values, tail):
    """The smallest mean that `tail` of all n**n resamples do not exceed, by enumeration."""
    means = sorted(
        sum(r) / len(r) for r in itertools.product(map(Fraction, values), repeat=len(values))
    )
    return means[math.ceil(tail * len(means)) - 1]


@pytest.mark.parametrize("right", range(6))
def test_bootstrap_of_zeros_and_ones_is_what_all_resamples_give(right):
    values = [True] * right + [False] * (5 - right)
    for confidence in (Fraction(9, 10), Fraction(1, 2)):
        ends = [_exact_quantile(values, (1 + s * confidence) / 2) for s in (-1, 1)]
        assert intervals.bootstrap(values, confidence=float(confidence)) == pytest.approx(
            [float(end) for end in ends], abs=1e-12
        )


def test_bootstrap_of_a_published_size_has_the_quantiles_of_the_binomial():
    n, right = 1319, 838
    low, high = intervals.bootstrap([1] * right + [0] * (n - right))
    for end, tail in ((low, Fraction(25, 1000)), (high, Fraction(975, 1000))):
        k, share = round(end * n), Fraction(right, n)
        terms = [math.comb(n, i) * right**i * (n - right) ** (n - i) for i in range(k + 1)]
        assert sum(terms[:-1]) < tail * n**n <= sum(terms)
        assert abs(end - share) < Fraction(3, 100)


def test_bootstrap_of_other_values_nears_what_all_resamples_give():
    values = [0.0, 0.25, 0.25, 0.75, 1.0]
    means = sorted(sum(r) / 5 for r in itertools.product(values, repeat=5))
    for end, tail in zip(
        intervals.bootstrap(values, resamples=40_000), (0.025, 0.975), strict=True
    ):
        below = sum(m < end - 1e-9 for m in means) / len(means)
        upto = sum(m < end + 1e-9 for m in means) / len(means)
        assert below - 0.005 < tail < upto + 0.005
    assert intervals.bootstrap(values, seed=1) == intervals.bootstrap(values, seed=1)


def test_bootstrap_of_one_value_has_no_width():
    assert intervals.bootstrap([1, 1, 1]) == (1, 1)
    assert intervals.bootstrap([0]) == (0, 0)
    assert intervals.bootstrap([0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "options"),
    [([], {}), ([math.nan], {}), ([[1.0]], {}), ([1], {"resamples": 0}), ([1], {"confidence": 1})],
)
def test_bootstrap_refuses(values, options):
    with pytest.raises(ValueError, match="expected"):
        intervals.bootstrap(values, **options)
