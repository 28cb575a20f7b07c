"""Curves of a chart that tells formats by line style and marker, and all else by colour."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specialize_jax.report import canvas

MARKERS = "osD^vP"
# Zero-shot stands out as the solid line with full markers, whatever is written after it.
_LINES: dict[str | None, str] = {
    "zero-shot CoT": "-",
    "in-context CoT": "--",
    "zero-shot answer": "-.",
    "in-context answer": ":",
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a chart: accuracies in percent, with the reach of their intervals or None.

    Attributes:
      words: in the legend; curves of the same words have one entry.
      format: decides line style and marker's face.
      colour: as on a light page.
      marker: of matplotlib.
      steps: or other numbers on the horizontal axis.
      values: in percent.
      interval: how far it reaches below and above each value.
    """

    words: str
    format: str | None
    colour: str
    marker: str
    steps: Sequence[float]
    values: list[float]
    interval: list[list[float]] | None = None


def styles(curves: Sequence[Curve]) -> dict[str | None, Any]:
    """Returns format -> line style; formats that are not ours take what is left, in turn."""
    formats = list(dict.fromkeys(curve.format for curve in curves))
    free = [line for name, line in _LINES.items() if name not in formats]
    unknown = [name for name in formats if name not in _LINES]
    return {name: _LINES[name] for name in formats if name in _LINES} | {
        name: (free or ["-"])[k % max(1, len(free))] for k, name in enumerate(unknown)
    }


def face(name: str | None, colour: str) -> str:
    """Returns the inside of a marker: empty for in-context formats."""
    return canvas.PAPER if name is not None and name.startswith("in-context") else colour


def draw(figure: Figure, axes: Axes, curves: Sequence[Curve]) -> None:
    """Draws curves with their legend: colours for what, line styles for formats."""
    lines = styles(curves)
    for curve in curves:
        axes.errorbar(
            curve.steps,
            curve.values,
            yerr=curve.interval,
            color=curve.colour,
            linestyle=lines[curve.format],
            marker=curve.marker,
            markersize=4,
            markerfacecolor=face(curve.format, curve.colour),
            capsize=2,
            elinewidth=0.8,
        )
    _legend(figure, curves, lines)


def _legend(figure: Figure, curves: Sequence[Curve], lines: dict[str | None, Any]) -> None:
    hues = {curve.words: curve for curve in curves}
    handles = [Line2D([], [], color=c.colour, marker=c.marker, markersize=4) for c in hues.values()]
    labels = list(hues)
    for name in (name for name in lines if name is not None):
        handles.append(
            Line2D(
                [], [], color=canvas.MUTED, linestyle=lines[name], marker="o", markersize=4,
                markerfacecolor=face(name, canvas.MUTED),
            )
        )  # fmt: skip
        labels.append(name)
    canvas.legend(figure, handles, labels, columns=3)
