"""How sure a mean or a share is: standard error, Wilson's interval, the bootstrap's."""

import math
import statistics
from collections.abc import Sequence

import numpy as np


def mean_stderr(values: Sequence[float | bool]) -> float:
    """Returns the standard error of a mean: sample standard deviation / sqrt(n).

    As lm-evaluation-harness computes it, with n - 1 in the deviation; 0 for a single value, which
    says nothing of its spread.

    Args:
      values: at least one number.

    Raises:
      ValueError: there are none.
    """
    if not len(values):
        raise ValueError("expected at least one score, got none")
    if len(values) == 1:
        return 0.0
    return float(np.std(np.asarray(values, np.float64), ddof=1) / math.sqrt(len(values)))


def wilson(n_correct: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, which holds near 0 and 1 too.

    Args:
      n_correct: successes, in [0, n]; a share times n, where only the share is known.
      n: trials, at least 1.
      confidence: in (0, 1).

    Returns:
      (low, high), each in [0, 1].

    Raises:
      ValueError: an argument is out of its range.

    Reference: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
      JASA 22 (1927), https://doi.org/10.1080/01621459.1927.10502953.
    """
    if n < 1:
        raise ValueError(f"expected at least one score, got n={n}")
    if not 0 <= n_correct <= n or not 0 < confidence < 1:
        raise ValueError(
            f"expected 0 <= n_correct <= n and 0 < confidence < 1, got n_correct={n_correct}, "
            f"n={n}, confidence={confidence}"
        )
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    share, scale = n_correct / n, 1 + z * z / n
    center = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The ends are exact where rounding would leave 1e-17.
    low = 0.0 if n_correct == 0 else center - half
    high = 1.0 if n_correct == n else center + half
    return low, high


def bootstrap(
    values: Sequence[float | bool] | np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean.

    Of values that are all 0 or 1 the sum of a resample is binomial, so the ends are its exact
    quantiles: what infinitely many resamples would give, and no draw is made. Where all values are
    equal a resample is always the same, and the interval has no width; `wilson` says more there.

    Args:
      values: at least one number.
      resamples: how many are drawn where values are other than 0 and 1; at least 1.
      seed: of these draws.
      confidence: in (0, 1).

    Returns:
      (low, high): the smallest means that (1 - confidence) / 2 and (1 + confidence) / 2 of the
      resamples do not exceed.

    Raises:
      ValueError: an argument is out of its range, or a value is no finite number.

    Reference: B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7
      (1979).
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"expected at least one score, all finite numbers, got {values!r:.80}")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected resamples >= 1 and 0 < confidence < 1, got resamples={resamples}, "
            f"confidence={confidence}"
        )
    tails = (0.5 - confidence / 2, 0.5 + confidence / 2)
    n = array.size
    if np.isin(array, (0, 1)).all():
        cumulative = _binomial_cumulative(n, array.mean())
        low, high = (int(np.searchsorted(cumulative, tail)) / n for tail in tails)
        return low, high
    # Equal values need no telling apart: how often each distinct one comes is multinomial.
    distinct, counts = np.unique(array, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.quantile(draws @ distinct / n, tails, method="inverted_cdf")
    return float(low), float(high)


def _binomial_cumulative(n: int, share: float) -> np.ndarray:
    """Returns P(X <= k) for k = 0..n, where X is binomial; the last is 1."""
    if share in (0.0, 1.0):
        return np.full(n + 1, 1.0) if share == 0 else np.eye(n + 1)[n]
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # their logs
    k = np.arange(n + 1)
    choices = factorials[n] - factorials - factorials[::-1]
    cumulative = np.cumsum(np.exp(choices + k * math.log(share) + (n - k) * math.log1p(-share)))
    cumulative[-1] = 1.0
    return cumulative
