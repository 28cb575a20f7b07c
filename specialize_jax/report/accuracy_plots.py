"""Charts of accuracies: the means of each role, and the data sets of a role, over the steps."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specialize_jax.report import accuracy, canvas, palette, roles, strokes

_MOST_SETS = len(palette.SERIES)  # on one chart: each has a colour of its own
_LOWEST_TOP = 10  # percent; below it noise near 0 would fill a chart


def draw(
    run: str,
    rows: Sequence[dict[str, Any]],
    means: Sequence[dict[str, Any]],
    chosen: int | None = None,
) -> list[canvas.Chart]:
    """Returns a run's charts of accuracy, in the extraction mode that is shown first.

    Args:
      run: its label.
      rows: of `accuracy.rows`, of this run.
      means: of `means.by_role`, of this run.
      chosen: step that was chosen, which is marked; None for none.
    """
    mode = min((row["mode"] for row in rows), key=accuracy.mode_order)
    rows = [row for row in rows if row["mode"] == mode]
    if len({row["step"] for row in rows} - {None}) < 2:
        return [_points(run, mode, rows)]
    charts = [
        _means_chart(run, mode, [series for series in means if series["mode"] == mode], chosen)
    ]
    for role in sorted({row["role"] for row in rows}, key=roles.role_order):
        charts += _role_charts(run, mode, role, rows, chosen)
    return [chart for chart in charts if chart is not None]


def _means_chart(
    run: str, mode: str, means: Sequence[dict[str, Any]], chosen: int | None
) -> canvas.Chart | None:
    """Draws the mean of each role; None unless two roles have a mean at two steps."""
    curves, there = [], []
    for series in means:
        points = [p for p in series["points"] if p["step"] is not None]
        if series["role"] is None or len(points) < 2:
            continue
        there.append(series["role"])
        curves.append(
            strokes.Curve(
                _capital(f"{roles.words(series['role'])}, {roles.counted(series['sets'])}"),
                _format(series),
                canvas.hue(palette.ROLES[series["role"]]),
                strokes.MARKERS[roles.role_order(series["role"])],
                [p["step"] for p in points],
                [100 * p["accuracy"] for p in points],
            )
        )
    if len(set(there)) < 2:
        return None
    title = f"{_listed(list(dict.fromkeys(there)))} accuracy"
    figure, axes = canvas.axes(title, f"mean accuracy (%), {mode}")
    _over_steps(figure, axes, curves, chosen)
    alt = f"{title}, mean over data sets in percent, over steps; {_ends(curves)}{_marked(chosen)}"
    return canvas.chart(figure, "accuracy", run, title, alt)


def _listed(names: Sequence[str]) -> str:
    """Returns roles as a title has them: "In-, out-of-distribution and generic"."""
    if list(names[:2]) == ["in_distribution", "out_of_distribution"]:
        rest = [roles.words(name) for name in names[2:]]
        return f"In-, out-of-distribution and {rest[0]}" if rest else "In- and out-of-distribution"
    return _capital(" and ".join(roles.words(name) for name in names))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _role_charts(
    run: str,
    mode: str,
    role: str | None,
    rows: Sequence[dict[str, Any]],
    chosen: int | None,
) -> list[canvas.Chart]:
    """Draws the data sets of a role, over as many charts as there are colours for."""
    known = list(dict.fromkeys(row["data_set"] for row in rows))
    sets = list(dict.fromkeys(row["data_set"] for row in rows if row["role"] == role))
    alone = len({row["role"] for row in rows}) == 1 and role is None
    kind = "Accuracy" if alone else f"{_capital(roles.words(role))} accuracy"
    short = roles.short_names(sets, known)
    parts = -(-len(sets) // _MOST_SETS)
    charts = []
    for part in range(parts):
        mine = sets[part * len(sets) // parts : (part + 1) * len(sets) // parts]
        title = f"{kind}, {mode}" + (f" ({part + 1} of {parts})" if parts > 1 else "")
        curves = [
            curve
            for index, name in enumerate(mine)
            for curve in _set_curves(
                short[name], index, [r for r in rows if (r["role"], r["data_set"]) == (role, name)]
            )
        ]
        if not curves:  # of sets that were evaluated without a step
            continue
        figure, axes = canvas.axes(title, "accuracy (%)")
        _over_steps(figure, axes, curves, chosen)
        alt = (
            f"{title}, in percent with 95% intervals, over steps; {_ends(curves)}{_marked(chosen)}"
        )
        charts.append(canvas.chart(figure, "accuracy", run, title, alt))
    return charts


def _set_curves(words: str, index: int, rows: Sequence[dict[str, Any]]) -> list[strokes.Curve]:
    """Returns a data set's curves, one for each format it was asked in."""
    curves = []
    for name in dict.fromkeys(row["format"] for row in rows):
        mine = [row for row in rows if row["format"] == name and row["step"] is not None]
        curves.append(
            strokes.Curve(
                words,
                name,
                canvas.colour(index),
                strokes.MARKERS[index % len(strokes.MARKERS)],
                [row["step"] for row in mine],
                [100 * row["accuracy"] for row in mine],
                _interval(mine),
            )
        )
    return [curve for curve in curves if curve.steps]


def _format(series: dict[str, Any]) -> str | None:
    """Returns the format of a mean, with its split where the set's name tells one."""
    return ", ".join(word for word in (series["format"], series["split"]) if word) or None


def _over_steps(
    figure: Figure, axes: Axes, curves: Sequence[strokes.Curve], chosen: int | None
) -> None:
    """Draws curves over steps with their legend, and a line at the chosen step."""
    strokes.draw(figure, axes, curves)
    canvas.label_steps(axes, {step for curve in curves for step in curve.steps})
    top = max(axes.get_ylim()[1], _LOWEST_TOP)
    axes.set_ylim(-0.02 * top, top)  # a marker at 0 is seen whole
    if chosen is not None:
        axes.axvline(chosen, color=canvas.MUTED, linestyle=(0, (1, 2)), linewidth=1.4, zorder=0)
        axes.annotate(
            "chosen", (chosen, 1), (-3, -2), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", va="top", color=canvas.MUTED, fontsize=8,
        )  # fmt: skip


def _ends(curves: Sequence[strokes.Curve]) -> str:
    """Returns in words where each curve ends."""
    return "; ".join(f"{_named(c.words, c.format)} {c.values[-1]:.1f}%" for c in curves)


def _marked(chosen: int | None) -> str:
    return "" if chosen is None else f"; step {chosen:,} was chosen"


def _named(words: str, name: str | None) -> str:
    return words if name is None else f"{words}, {name}"


def _points(run: str, mode: str, rows: Sequence[dict[str, Any]]) -> canvas.Chart:
    """Draws the accuracies of a single step: a line per data set, a point per format."""
    sets = list(dict.fromkeys(row["data_set"] for row in rows))
    formats = list(dict.fromkeys(row["format"] for row in rows))
    short = roles.short_names(sets)
    title = f"Accuracy, {mode}"
    figure, axes = canvas.axes(title, "", height=1.1 + 0.34 * len(sets))
    for row in rows:
        colour = canvas.hue(palette.ROLES[row["role"]])
        shift = 0.3 * ((formats.index(row["format"]) + 0.5) / len(formats) - 0.5)
        axes.errorbar(
            [100 * row["accuracy"]],
            [sets.index(row["data_set"]) + shift],
            xerr=_interval([row]),
            color=colour,
            fmt=strokes.MARKERS[roles.role_order(row["role"])],
            markersize=5,
            markerfacecolor=strokes.face(row["format"], colour),
            capsize=3,
        )
    axes.set_yticks(range(len(sets)), [short[name] for name in sets])
    axes.set_ylim(len(sets) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy (%), with 95% interval where n is known")
    handles, labels = _point_entries(rows, formats)
    if len(labels) > 1:
        canvas.legend(figure, handles, labels, columns=3)
    values = [
        f"{_named(short[r['data_set']], r['format'])} {100 * r['accuracy']:.1f}%" for r in rows
    ]
    return canvas.chart(figure, "accuracy", run, title, f"{title}: {', '.join(values)}")


def _point_entries(
    rows: Sequence[dict[str, Any]], formats: Sequence[str | None]
) -> tuple[list[Line2D], list[str]]:
    """Returns handles and labels of the legend of `_points`: roles by colour, formats by face."""

    def handle(marker: str, colour: str, face: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, color=colour, markersize=5, markerfacecolor=face
        )

    there = list(dict.fromkeys(row["role"] for row in rows))
    hues = [canvas.hue(palette.ROLES[role]) for role in there]
    handles = [
        handle(strokes.MARKERS[roles.role_order(role)], hue, hue)
        for role, hue in zip(there, hues, strict=True)
    ]
    asked = [name for name in formats if name is not None]
    handles += [handle("o", canvas.MUTED, strokes.face(name, canvas.MUTED)) for name in asked]
    return handles, [_capital(roles.words(role)) for role in there] + asked


def _interval(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Returns how far the interval reaches below and above each accuracy, in percent points."""
    below = [100 * (r["accuracy"] - r["low"]) if r["low"] is not None else 0.0 for r in rows]
    above = [100 * (r["high"] - r["accuracy"]) if r["high"] is not None else 0.0 for r in rows]
    return [[max(0.0, b) for b in below], [max(0.0, a) for a in above]]
