"""Draws the charts with matplotlib: each as a PNG file and as an SVG that follows the page's theme.

Nothing global is touched: figures are made without pyplot, under a local style.
"""

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "reports need matplotlib: pip install 'specialize_jax[report]'", name=error.name
    ) from error

from specialize_jax.report import accuracy, palette

_INK, _MUTED, _LINE, _PAPER = (palette.PAGE[k][0] for k in ("ink", "muted", "line", "paper"))
_STYLE: Any = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # letters stay letters: they scale, and a reader can select them
    "svg.hashsalt": "specialize_jax",  # the same numbers give the same bytes
}
_WIDTH, _HEIGHT = 4.7, 2.9  # inches; narrower than a phone in points, so labels stay legible
_LABEL = 22  # letters
_FEW_TICKS = 6
_FEW_POINTS = 40  # up to here a curve shows its points


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


def draw(report: dict[str, Any]) -> list[Chart]:
    """Returns every chart for which the report has numbers.

    Args:
      report: of `tables.build`.
    """
    with matplotlib.rc_context(_STYLE):
        charts = []
        for run in report["training"]:
            charts += _training_charts(run)
        if any(aligned["total"]["outcomes"] for aligned in report["coverage"]):
            charts.append(_coverage_chart(report["coverage"]))
        for run in dict.fromkeys(row["run"] for row in report["accuracy"]):
            rows = [row for row in report["accuracy"] if row["run"] == run]
            charts.append(_accuracy_chart(run, rows))
    return _name_files(charts)


def _name_files(charts: list[Chart]) -> list[Chart]:
    """Gives the charts distinct file names and their SVGs distinct ids."""
    named: list[Chart] = []
    taken: set[str] = set()
    for chart in charts:
        words = f"{chart.title} {chart.label}".lower()
        stem = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:80]
        name, k = stem, 2
        while name in taken:
            name, k = f"{stem}-{k}", k + 1
        taken.add(name)
        svg = _own_ids(chart.svg, name)
        named.append(dataclasses.replace(chart, file=f"{name}.png", svg=svg))
    return named


def _own_ids(svg: str, prefix: str) -> str:
    """Puts `prefix` before every id of an SVG, where it is given and where it is used."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)


def _chart(figure: Figure, section: str, label: str, title: str, alt: str) -> Chart:
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


def _axes(title: str, ylabel: str, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor=_PAPER)
    axes = figure.add_subplot(facecolor="none")
    axes.set_title(title)
    axes.set_ylabel(ylabel)
    return figure, axes


def _steps(axes: Axes, steps: set[int]) -> None:
    """Labels the axis of steps: those that were recorded where they are few."""
    axes.set_xlabel("step")
    if len(steps) <= _FEW_TICKS:
        axes.set_xticks(sorted(steps))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Puts the legend under the axes, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _colour(index: int) -> str:
    return palette.MARKS[palette.SERIES[index % len(palette.SERIES)]].light


def _training_charts(run: dict[str, Any]) -> list[Chart]:
    """Draws loss, its two terms, the loss per format, and the learning rate, where recorded."""
    splits, label = run["splits"], run["label"]
    held_out = [split for split in splits if split != "train"]
    formats = sorted(
        {k for rows in splits.values() for row in rows for k in row if k[:5] == "loss/"}
    )
    by_format = next(
        (s for s in held_out if any(f in r for r in splits[s] for f in formats)), "train"
    )
    terms = [("kl_loss", "KL"), ("ce_loss", "CE")]
    every = [split for split in ("train", *held_out) if split in splits]
    wanted = [
        ("loss", "Loss", "nats per token", [(s, "loss", _split(s)) for s in every]),
        (
            "terms",
            "Loss terms",
            "nats per token",
            [(s, key, f"{words}, {_split(s)}") for key, words in terms for s in every],
        ),
        (
            "formats",
            f"Loss per format, {_split(by_format)}",
            "nats per token",
            [(by_format, key, _format(key)) for key in formats],
        ),
        ("rate", "Learning rate", "learning rate", [("train", "learning_rate", "learning rate")]),
    ]
    charts = (_curves(label, splits, *chart) for chart in wanted)
    return [chart for chart in charts if chart is not None]


def _format(key: str) -> str:
    """Returns `loss/zero_shot_chain_of_thought` as `zero shot CoT`: the legend has little room."""
    return key.removeprefix("loss/").replace("_", " ").replace("chain of thought", "CoT")


def _split(split: str) -> str:
    return "held-out" if split == "validation" else split


def _curves(
    label: str,
    splits: dict[str, list[dict[str, Any]]],
    kind: str,
    title: str,
    ylabel: str,
    wanted: list[tuple[str, str, str]],
) -> Chart | None:
    """Draws (split, key, words) curves over steps; None where no row has any of the keys."""
    figure, axes = _axes(title, ylabel)
    drawn: list[str] = []
    hues: list[str] = []
    steps: set[int] = set()
    for split, key, words in wanted:
        points = [(r["step"], r[key]) for r in splits.get(split, []) if key in r]
        if not points:
            continue
        # Terms: a hue per term, dashes for held-out. Elsewhere every curve has its own hue.
        hue = key if kind == "terms" else words
        hues += [hue] if hue not in hues else []
        axes.plot(
            *zip(*points, strict=True),
            color=_colour(hues.index(hue)),
            linestyle="-" if split == "train" or kind == "formats" else "--",
            marker="o" if len(points) <= _FEW_POINTS else "",
            markersize=3,
            label=words,
        )
        drawn.append(words)
        steps |= {step for step, _ in points}
    if not drawn:
        return None
    _steps(axes, steps)
    if len(drawn) > 1:
        _legend(figure, axes, columns=2)
    return _chart(figure, "loss", label, title, f"{title} over steps: {'; '.join(drawn)}")


def _coverage_chart(coverage: Sequence[dict[str, Any]]) -> Chart:
    """Draws a stacked bar per aligned folder, and one per source where there are several."""
    bars: list[tuple[str, dict[str, float]]] = []
    for aligned in coverage:
        parts = [(aligned["label"], aligned["total"])]
        if len(aligned["by_source"]) > 1:
            parts += [(part["source"], part) for part in aligned["by_source"]]
        bars += [(name, {o["name"]: o["share"] or 0.0 for o in p["outcomes"]}) for name, p in parts]
    names = [n for n in palette.MARKS if any(shares.get(n) for _, shares in bars)]
    figure, axes = _axes("Share of chain-of-thought tokens", "", height=1.35 + 0.42 * len(bars))
    left = [0.0] * len(bars)
    for name in names:
        mark, widths = palette.MARKS[name], [100 * shares.get(name, 0.0) for _, shares in bars]
        rows = range(len(bars))
        axes.barh(
            rows, widths, left=left, color=mark.light, hatch=mark.hatch,
            edgecolor=_PAPER, linewidth=0.8, height=0.62, label=mark.words,
        )  # fmt: skip
        for row, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= 7:
                axes.text(
                    start + width / 2, row, f"{width:.0f}%", ha="center", va="center", fontsize=8,
                    bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 1.2},
                )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [_short(name) for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of tokens")
    axes.grid(axis="y", visible=False)
    _legend(figure, axes, columns=2)
    alt = "; ".join(
        f"{bar}: " + ", ".join(f"{palette.MARKS[n].words} {100 * s.get(n, 0):.1f}%" for n in names)
        for bar, s in bars
    )
    return _chart(figure, "coverage", "", "Coverage", alt)


def _short(name: str) -> str:
    """Returns the last part of a path, cut to what fits beside a bar."""
    last = name.rstrip("/").rpartition("/")[2]
    return last if len(last) <= _LABEL else f"…{last[1 - _LABEL :]}"


def _accuracy_chart(run: str, rows: Sequence[dict[str, Any]]) -> Chart:
    """Draws accuracy with 95% intervals: curves over steps, or one point per data set."""
    mode = min((row["mode"] for row in rows), key=accuracy.mode_order)
    rows = [row for row in rows if row["mode"] == mode]
    sets = list(dict.fromkeys(row["data_set"] for row in rows))
    steps = {row["step"] for row in rows}
    title = f"Accuracy, {mode}"
    if len(steps - {None}) < 2:
        return _accuracy_points(run, title, rows)
    figure, axes = _axes(title, "accuracy (%)")
    for index, name in enumerate(sets):
        mine = [row for row in rows if row["data_set"] == name and row["step"] is not None]
        axes.errorbar(
            [row["step"] for row in mine],
            [100 * row["accuracy"] for row in mine],
            yerr=_interval(mine),
            color=_colour(index),
            marker="osD^vP"[index % 6],
            markersize=4,
            capsize=2,
            elinewidth=0.8,
            label=name,
        )
    _steps(axes, steps - {None})
    axes.set_ylim(bottom=0)
    _legend(figure, axes, columns=3)
    alt = f"{title}, in percent with 95% intervals, over steps: {', '.join(sets)}"
    return _chart(figure, "accuracy", run, title, alt)


def _accuracy_points(run: str, title: str, rows: Sequence[dict[str, Any]]) -> Chart:
    figure, axes = _axes(title, "", height=1.1 + 0.34 * len(rows))
    places = list(range(len(rows)))
    values = [100 * row["accuracy"] for row in rows]
    axes.errorbar(
        values, places, xerr=_interval(rows), fmt="o", color=_colour(0), markersize=5, capsize=3
    )
    axes.set_yticks(places, [row["data_set"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy (%), with 95% interval where n is known")
    alt = ", ".join(f"{r['data_set']} {v:.1f}%" for r, v in zip(rows, values, strict=True))
    return _chart(figure, "accuracy", run, title, f"{title}: {alt}")


def _interval(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Returns how far the interval reaches below and above each accuracy, in percent points."""
    below = [100 * (r["accuracy"] - r["low"]) if r["low"] is not None else 0.0 for r in rows]
    above = [100 * (r["high"] - r["accuracy"]) if r["high"] is not None else 0.0 for r in rows]
    return [[max(0.0, b) for b in below], [max(0.0, a) for a in above]]
