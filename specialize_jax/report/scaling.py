"""Accuracy against the size of the student, with a straight line over the logarithm of the size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Z = 1.959963984540054
"""Standard errors that a 95% interval reaches to either side."""


class Line(NamedTuple):
    """A least-squares line.

    Attributes:
      slope: what is gained when the size grows tenfold.
      intercept: at size 1.
      stderr: of the slope, from the standard errors of the values; None where one is not known.
    """

    slope: float
    intercept: float
    stderr: float | None


def log_linear(
    sizes: Sequence[float], values: Sequence[float], errors: Sequence[float | None]
) -> Line | None:
    """Returns the line of values over log10 of sizes; None where all sizes are the same.

    Args:
      sizes: above 0.
      values: one for each size.
      errors: standard error of each value; None where it is not known.
    """
    x = [math.log10(size) for size in sizes]
    center = sum(x) / len(x) if x else 0.0
    spread = sum((one - center) ** 2 for one in x)
    if spread < 1e-12:
        return None
    pulls = [(one - center) / spread for one in x]
    slope = sum(pull * value for pull, value in zip(pulls, values, strict=True))
    known = [error for error in errors if error is not None]
    stderr = None
    if len(known) == len(values):
        stderr = math.sqrt(sum((p * e) ** 2 for p, e in zip(pulls, known, strict=True)))
    return Line(slope, sum(values) / len(values) - slope * center, stderr)


def curves(
    compared: Sequence[Mapping[str, Any]], sizes: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """Returns a curve for every role and format that was measured at two sizes or more.

    Args:
      compared: of `comparing.means`.
      sizes: run -> parameters; None where they are not known.

    Returns:
      Rows with `role`, `format`, `sets`, `points` (run, parameters, accuracy, stderr; by size),
      `slope` per tenfold size, its 95% interval `low` to `high` (None where unknown), `intercept`.
    """
    found = []
    for row in compared:
        points = [
            {"run": run, "parameters": size, **mean}
            for run, mean in row["runs"].items()
            if (size := sizes.get(run)) is not None
        ]
        points.sort(key=lambda point: point["parameters"])
        line = log_linear(
            [point["parameters"] for point in points],
            [point["accuracy"] for point in points],
            [point["stderr"] for point in points],
        )
        if line is not None:
            reach = None if line.stderr is None else Z * line.stderr
            found.append(
                {
                    **{key: row[key] for key in ("role", "format", "split", "sets")},
                    "points": points,
                    "slope": line.slope,
                    "low": None if reach is None else line.slope - reach,
                    "high": None if reach is None else line.slope + reach,
                    "intercept": line.intercept,
                }
            )
    return found


def slope_words(row: Mapping[str, Any]) -> str:
    """Returns the slope of a curve, in points per tenfold size, with its interval if known."""
    slope = f"{100 * row['slope']:+.1f}"
    if row["low"] is None:
        return slope
    return f"{slope} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def short_count(count: float) -> str:
    """Returns a number of parameters in three digits: 60.5M, 11.1B."""
    for unit, word in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{word}"
    return f"{count:.0f}"
