"""Draws the charts with matplotlib: each as a PNG file and as an SVG that follows the page's theme.

Nothing global is touched: figures are made without pyplot, under a local style.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

try:
    import matplotlib
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "reports need matplotlib: pip install 'specialize_jax[report]'", name=error.name
    ) from error

from specialize_jax.report import accuracy_plots, canvas, comparison_plots, palette, roles
from specialize_jax.report.canvas import Chart

_LABEL = 22  # letters
_FEW_POINTS = 40  # up to here a curve shows its points


def draw(report: dict[str, Any]) -> list[Chart]:
    """Returns every chart for which the report has numbers.

    Args:
      report: of `tables.build`.
    """
    with matplotlib.rc_context(canvas.STYLE):
        charts = []
        for run in report["training"]:
            charts += _training_charts(run)
        if any(aligned["total"]["outcomes"] for aligned in report["coverage"]):
            charts.append(_coverage_chart(report["coverage"]))
        for run in dict.fromkeys(row["run"] for row in report["accuracy"]):
            rows = [row for row in report["accuracy"] if row["run"] == run]
            # Calculators and votes have comparisons of their own; here they would double curves.
            rows = roles.plain(rows)
            asked = {row["format"] for row in rows}
            means = [s for s in report["means"] if s["run"] == run and s["format"] in asked]
            shown = report["reported"][run]
            chosen = shown["step"] if shown["chosen"] else None
            charts += accuracy_plots.draw(run, rows, means, chosen)
        charts += comparison_plots.draw(report)
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


def _training_charts(run: dict[str, Any]) -> list[Chart]:
    """Draws loss, its two terms, loss and accuracy per format, and learning rate, if recorded."""
    splits, label = run["splits"], run["label"]
    held_out = [split for split in splits if split != "train"]
    keys = sorted({key for rows in splits.values() for row in rows for key in row})
    formats = [key for key in keys if key.startswith("loss/")]
    asked = [key for key in keys if key.startswith("accuracy/")]
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
        (
            "shares",
            "Held-out accuracy while training",
            "share of the questions",
            [(split, key, _format(key)) for split in held_out for key in asked],
        ),
        ("rate", "Learning rate", "learning rate", [("train", "learning_rate", "learning rate")]),
    ]
    charts = (_curves(label, splits, *chart) for chart in wanted)
    return [chart for chart in charts if chart is not None]


def _format(key: str) -> str:
    """Returns `loss/zero_shot_chain_of_thought` as `zero shot CoT`: the legend has little room."""
    return key.partition("/")[2].replace("_", " ").replace("chain of thought", "CoT")


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
    figure, axes = canvas.axes(title, ylabel)
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
            color=canvas.colour(hues.index(hue)),
            linestyle="-" if split == "train" or kind in ("formats", "shares") else "--",
            marker="o" if len(points) <= _FEW_POINTS else "",
            markersize=3,
            label=words,
        )
        drawn.append(words)
        steps |= {step for step, _ in points}
    if not drawn:
        return None
    canvas.label_steps(axes, steps)
    if kind == "shares":
        axes.set_ylim(-0.02, 1.02)  # markers at 0 and 1 are seen whole
    if len(drawn) > 1:
        canvas.legend(figure, *axes.get_legend_handles_labels(), columns=2)
    return canvas.chart(figure, "loss", label, title, f"{title} over steps: {'; '.join(drawn)}")


def _coverage_chart(coverage: Sequence[dict[str, Any]]) -> Chart:
    """Draws a stacked bar per aligned folder, and one per source where there are several."""
    bars: list[tuple[str, dict[str, float]]] = []
    for aligned in coverage:
        parts = [(aligned["label"], aligned["total"])]
        if len(aligned["by_source"]) > 1:
            parts += [(part["source"], part) for part in aligned["by_source"]]
        bars += [(name, {o["name"]: o["share"] or 0.0 for o in p["outcomes"]}) for name, p in parts]
    names = [n for n in palette.MARKS if any(shares.get(n) for _, shares in bars)]
    figure, axes = canvas.axes(
        "Share of chain-of-thought tokens", "", height=1.35 + 0.42 * len(bars)
    )
    left = [0.0] * len(bars)
    for name in names:
        mark, widths = palette.MARKS[name], [100 * shares.get(name, 0.0) for _, shares in bars]
        rows = range(len(bars))
        axes.barh(
            rows, widths, left=left, color=mark.light, hatch=mark.hatch,
            edgecolor=canvas.PAPER, linewidth=0.8, height=0.62, label=mark.words,
        )  # fmt: skip
        for row, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= 7:
                axes.text(
                    start + width / 2, row, f"{width:.0f}%", ha="center", va="center", fontsize=8,
                    bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.2},
                )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [_short(name) for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of tokens")
    axes.grid(axis="y", visible=False)
    canvas.legend(figure, *axes.get_legend_handles_labels(), columns=2)
    alt = "; ".join(
        f"{bar}: " + ", ".join(f"{palette.MARKS[n].words} {100 * s.get(n, 0):.1f}%" for n in names)
        for bar, s in bars
    )
    return canvas.chart(figure, "coverage", "", "Coverage", alt)


def _short(name: str) -> str:
    """Returns the last part of a path, cut to what fits beside a bar."""
    last = name.rstrip("/").rpartition("/")[2]
    return last if len(last) <= _LABEL else f"…{last[1 - _LABEL :]}"
