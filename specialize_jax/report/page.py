"""Renders the report as one self-contained page: every style, script and chart is inside it."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

try:
    import jinja2
    import markupsafe
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "reports need jinja2: pip install 'specialize_jax[report]'", name=error.name
    ) from error

from specialize_jax.report import accuracy, errors, means, palette, plots, roles, scaling

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
ABSENT = "not recorded"


def render(report: dict[str, Any], charts: list[plots.Chart]) -> str:
    """Returns the page.

    Args:
      report: of `tables.build`; all its text is escaped.
      charts: of `plots.draw`; their SVGs are put into the page as they are.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": share,
        "count": count,
        "nats": nats,
        "probability": probability,
        "form": form,
        "words": lambda name: palette.MARKS[name].words if name in palette.MARKS else name,
        "role": roles.words,
        "counted": roles.counted,
        "grouped": grouped,
        "only": only,
        "points": points,
        "slope": scaling.slope_words,
        "raw": markupsafe.Markup,
    }
    modes, other_modes = accuracy.shown_modes(report["accuracy"])
    return environment.get_template("index.html.j2").render(
        report=report,
        charts=charts,
        marks=palette.MARKS,
        colours=palette.colours(),
        absent=ABSENT,
        wide_accuracy=accuracy.by_mode(report["accuracy"]),
        wide_distribution=means.with_first(report["distribution"]),
        error_places=errors.PLACES,
        shown_places={place for row in report["errors"] for place in row["places"]},
        modes=modes,
        other_modes=other_modes,
    )


def grouped(rows: Sequence[dict[str, Any]], *keys: str) -> list[list[dict[str, Any]]]:
    """Returns runs of neighbouring rows that have the same values under `keys`."""
    groups = itertools.groupby(rows, key=lambda row: [row[key] for key in keys])
    return [list(group) for _, group in groups]


def only(rows: Sequence[dict[str, Any]], key: str) -> Any:
    """Returns what all rows have under a key; None where they differ or there are none."""
    values = {row[key] for row in rows}
    return values.pop() if len(values) == 1 else None


def share(value: float | None) -> str:
    """Returns a share as a percentage."""
    return ABSENT if value is None else f"{100 * value:.1f}%"


def points(value: float) -> str:
    """Returns a difference of shares in percent points, with its sign."""
    return f"{100 * value:+.1f}"


def count(value: float | None) -> str:
    """Returns a count with its thousands apart."""
    return ABSENT if value is None else f"{value:,.0f}"


def nats(value: float | None) -> str:
    """Returns a loss with four significant digits."""
    return ABSENT if value is None else f"{value:#.4g}"


def plain(value: float | None) -> str:
    """Returns a setting such as a learning rate in its shortest form."""
    return ABSENT if value is None else f"{value:.4g}"


def probability(value: float | None) -> str:
    """Returns a probability to three digits; what rounds to 0 without being 0 says so."""
    if value is None:
        return ABSENT
    return "<0.001" if 0 < value < 5e-4 else f"{value:.3f}"


def form(value: Any, kind: str) -> str:
    """Returns a tile's value in its form: "text", "count", "share", "nats" or "plain"."""
    forms = {"count": count, "share": share, "nats": nats, "plain": plain}
    return forms[kind](value) if kind in forms else str(value)
