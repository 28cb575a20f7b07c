"""Charts of comparisons: specialised against generic, accuracy over size, votes of samples."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from specialize_jax.report import accuracy, canvas, palette, roles, scaling, strokes

_SPECIAL = ("in_distribution", "out_of_distribution")
_MOST_SETS = len(palette.SERIES)  # on one chart: each has a colour of its own


def draw(report: dict[str, Any]) -> list[canvas.Chart]:
    """Returns every chart of a comparison for which the report has numbers.

    Args:
      report: of `tables.build`.
    """
    charts = []
    for run in dict.fromkeys(row["run"] for row in report["distribution"]):
        # A calculator or votes change one end of the path alone.
        plain = {r["format"] for r in roles.plain(_of(run, report["accuracy"]))}
        rows = [r for r in _of(run, report["distribution"]) if r["format"] in plain]
        charts.append(_trade_off(run, rows, report["reported"][run]))
    for name in dict.fromkeys(row["format"] for row in report["scaling"]):
        charts.append(_scaling(name, [r for r in report["scaling"] if r["format"] == name]))
    for run in dict.fromkeys(row["run"] for row in report["votes"]):
        charts += _votes(run, _of(run, report["votes"]))
    return [chart for chart in charts if chart is not None]


def _of(run: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["run"] == run]


def _trade_off(
    run: str, rows: Sequence[dict[str, Any]], shown: dict[str, Any]
) -> canvas.Chart | None:
    """Draws the means of what was trained for over that of generic abilities, step by step."""
    mode = min((row["mode"] for row in rows), key=accuracy.mode_order, default="none")
    rows = [row for row in rows if row["mode"] == mode and row["generic"] is not None]
    curves, told, marks = [], [], []
    for role in _SPECIAL:
        for name in dict.fromkeys(row["format"] for row in rows):
            path = [row for row in rows if row["format"] == name and row[role] is not None]
            if len(path) < 2:
                continue
            x, y = ([100 * row[key] for row in path] for key in ("generic", role))
            hue = canvas.hue(palette.ROLES[role])
            marker = strokes.MARKERS[roles.role_order(role)]
            words = roles.words(role)
            curves.append(strokes.Curve(words, name, hue, marker, x, y))
            marks.append((path, x, y))
            told.append(
                f"{words}{', ' + name if name else ''}: from {y[0]:.1f}% at generic {x[0]:.1f}% "
                f"to {y[-1]:.1f}% at {x[-1]:.1f}%"
            )
    if not curves:
        return None
    title = "Specialised against generic"
    figure, axes = canvas.axes(title, f"specialised accuracy (%), {mode}", height=3.2)
    strokes.draw(figure, axes, curves)
    for number, (path, x, y) in enumerate(marks):
        for index in {0, len(path) - 1} if number == 0 else ():  # one path tells the direction
            axes.annotate(
                f"step {path[index]['step'] or 0:,}", (x[index], y[index]), (5, 5),
                textcoords="offset points", fontsize=7.5, color=canvas.MUTED,
            )  # fmt: skip
        at = [i for i, row in enumerate(path) if shown["chosen"] and row["step"] == shown["step"]]
        axes.plot(
            [x[i] for i in at], [y[i] for i in at], linestyle="", marker="o", markersize=11,
            markerfacecolor="none", markeredgecolor=canvas.INK,
        )  # fmt: skip
    axes.set_xlabel("generic accuracy (%)" + _ringed(shown))
    axes.margins(0.09)
    return canvas.chart(figure, "comparisons", run, title, f"{title}; {'; '.join(told)}")


def _ringed(shown: dict[str, Any]) -> str:
    return "; the chosen step has a ring" if shown["chosen"] else ""


def _scaling(name: str | None, rows: Sequence[dict[str, Any]]) -> canvas.Chart:
    """Draws accuracies of a format over the size of the student, and the fitted lines."""
    title = "Accuracy over size" + (f", {name}" if name else "")
    figure, axes = canvas.axes(title, "mean accuracy (%)")
    handles, labels, told = [], [], []
    for row in rows:
        hue = canvas.hue(palette.ROLES[row["role"]])
        marker = strokes.MARKERS[roles.role_order(row["role"])]
        sizes = [point["parameters"] for point in row["points"]]
        reach = [100 * scaling.Z * (point["stderr"] or 0.0) for point in row["points"]]
        values = [100 * point["accuracy"] for point in row["points"]]
        axes.errorbar(
            sizes, values, yerr=reach, color=hue, linestyle="", marker=marker, markersize=5,
            capsize=3,
        )  # fmt: skip
        line = _line(row)
        axes.plot(*line, color=hue, linestyle="--", linewidth=1.2)
        handles.append(Line2D([], [], color=hue, marker=marker, linestyle="--", markersize=5))
        words = f"{roles.words(row['role'])} ({roles.counted(row['sets'])})"
        split = f", {row['split']}" if row["split"] else ""
        labels.append(f"{words}{split}: {scaling.slope_words(row)} points per tenfold")
        told.append(f"{labels[-1]}; {', '.join(f'{v:.1f}%' for v in values)}")
    axes.set_xscale("log")
    axes.set_xticks(sorted({p["parameters"] for row in rows for p in row["points"]}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: scaling.short_count(size)))
    axes.minorticks_off()
    axes.margins(x=0.12)
    axes.set_xlabel("parameters")
    canvas.legend(figure, handles, labels, columns=1)
    return canvas.chart(figure, "comparisons", "", title, f"{title}: {'; '.join(told)}")


def _line(row: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Returns the ends of a fitted line: sizes and percentages."""
    ends = [row["points"][0], row["points"][-1]]
    sizes = [float(point["parameters"]) for point in ends]
    heights = [row["intercept"] + row["slope"] * math.log10(size) for size in sizes]
    return sizes, [100 * height for height in heights]


def _votes(run: str, rows: Sequence[dict[str, Any]]) -> list[canvas.Chart]:
    """Draws accuracies over the number of samples that vote; a format a chart."""
    charts = []
    for name in dict.fromkeys(row["format"] for row in rows):
        mine = [row for row in rows if row["format"] == name][:_MOST_SETS]
        short = roles.short_names([row["data_set"] for row in mine])
        curves = [_voted(row, short[row["data_set"]], index) for index, row in enumerate(mine)]
        title = "Votes of several samples" + (f", {name}" if name else "")
        figure, axes = canvas.axes(title, f"accuracy (%), {mine[0]['mode']}")
        strokes.draw(figure, axes, curves)
        axes.set_xticks(sorted({step for curve in curves for step in curve.steps}))
        axes.set_xlabel("samples that vote")
        told = "; ".join(f"{c.words} {c.values[0]:.1f}% to {c.values[-1]:.1f}%" for c in curves)
        charts.append(canvas.chart(figure, "comparisons", run, title, f"{title}: {told}"))
    return charts


def _voted(row: dict[str, Any], words: str, index: int) -> strokes.Curve:
    points = [(vote["k"], 100 * vote["accuracy"]) for vote in row["votes"] if vote["k"] > 1]
    points = [(1, 100 * row["single"]), *points]
    marker = strokes.MARKERS[index % len(strokes.MARKERS)]
    steps, values = (list(part) for part in zip(*points, strict=True))
    return strokes.Curve(words, None, canvas.colour(index), marker, steps, values)
