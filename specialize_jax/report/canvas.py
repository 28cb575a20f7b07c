"""What every chart shares: its look, its axes and legend, and how it becomes PNG and SVG.

`plots` imports this after it has said which extra brings matplotlib.
"""

import dataclasses
import io
import re
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from specialize_jax.report import palette

INK, MUTED, _LINE, PAPER = (palette.PAGE[k][0] for k in ("ink", "muted", "line", "paper"))
STYLE: Any = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # dashes beside a marker are seen as dashes
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # letters stay letters: they scale, and a reader can select them
    "svg.hashsalt": "specialize_jax",  # the same numbers give the same bytes
}
_WIDTH, HEIGHT = 4.7, 2.9  # inches; narrower than a phone in points, so labels stay legible
_LEGEND_ROWS, _LEGEND_ROW = 2, 0.19  # rows that HEIGHT has room for; inches of each further one
_FEW_TICKS = 6
_TITLE = 54  # letters of a line that the figure has room for


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart: `file` is its PNG's name, `alt` says in words what it shows."""

    section: str
    label: str
    title: str
    alt: str
    file: str
    svg: str
    png: bytes


def chart(figure: Figure, section: str, label: str, title: str, alt: str) -> Chart:
    """Returns a figure as a chart, its file not yet named; see `Chart` for the arguments."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(section, label, title, alt, "", _themed(svg.getvalue()), png.getvalue())


def _themed(svg: str) -> str:
    """Cuts an SVG file to its element, and replaces colours by the page's CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    # The page scales it by its viewBox; a fixed size in points would not shrink on a phone.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for name, (light, _) in palette.colours().items():
        svg = svg.replace(light, f"var(--{name})")
    return svg


def axes(title: str, ylabel: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Returns a figure of the page's width with empty axes; `height` in inches."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor=PAPER)
    empty = figure.add_subplot(facecolor="none")
    empty.set_title(textwrap.fill(title, _TITLE))
    empty.set_ylabel(ylabel)
    return figure, empty


def label_steps(axes: Axes, steps: Collection[float]) -> None:
    """Labels the axis of steps: those that were recorded where they are few."""
    axes.set_xlabel("step")
    if len(steps) <= _FEW_TICKS:
        axes.set_xticks(sorted(steps))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """Puts the legend under the axes, where it covers no curve, never wider than the figure.

    Args:
      figure: grows by what a legend of many rows takes, so that the axes keep their height.
      handles: what is drawn beside the labels.
      labels: words of the entries.
      columns: at most so many.
    """
    count = max(1, min(columns, len(labels)))
    while True:
        drawn = figure.legend(handles, labels, loc="outside lower center", ncols=count)
        # The page sets the letters in its own font, which may be a little wider.
        if count == 1 or drawn.get_window_extent().width <= 0.95 * figure.bbox.width:
            break
        drawn.remove()
        count -= 1
    more = max(0, -(-len(labels) // count) - _LEGEND_ROWS)
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * more)


def colour(index: int) -> str:
    """Returns the colour of the curve of this index; they begin again after `palette.SERIES`."""
    return hue(palette.SERIES[index % len(palette.SERIES)])


def hue(mark: str) -> str:
    """Returns the colour of a mark, as on a light page."""
    return palette.MARKS[mark].light
