"""Turns the folders of a run into a page a person can read, from files alone.

| module             | what it does                                                            |
|--------------------|-------------------------------------------------------------------------|
| `collect`          | reads folders, tells what each is (`evaluations`, `reading`: parts)     |
| `tables`           | all numbers of the report (`accuracy`, `means`, `samples`: parts)       |
| `roles`            | what a task measures: data set, format, role                            |
| `choices`          | the checkpoint that was chosen, and why                                 |
| `comparing`        | runs side by side (`sizes`, `scaling`, `gains`: what they differ in)    |
| `errors`           | wrong answers, and where each first goes wrong                          |
| `alignment_view`   | lays an alignment out in blocks                                         |
| `plots`            | charts with matplotlib, as PNG and as SVG that follows the theme        |
| `accuracy_plots`   | those of accuracies, `comparison_plots` of comparisons                  |
| `canvas`           | what all charts share, `strokes` what their curves share                |
| `page`             | one self-contained HTML page with jinja2                                |
| `model_card`       | what a student that is handed on says of itself                         |

matplotlib and jinja2 (the extra `report`) are imported when a report is written, not before.
"""

from collections.abc import Sequence
from typing import Any

from etils import epath

from specialize_jax.report.collect import Runs, read
from specialize_jax.report.model_card import model_card
from specialize_jax.report.tables import build
from specialize_jax.schemas import folders

__all__ = ["Runs", "build", "model_card", "read", "write"]


def write(paths: Sequence[epath.PathLike], out: epath.PathLike) -> dict[str, Any]:
    """Writes `index.html`, `report.json` and the charts as PNG; the same files, the same bytes.

    Args:
      paths: folders to report on, local or remote: teacher records, aligned examples, packed rows,
        a MODEL_DIR, an evaluation folder.
      out: folder to write to; made if absent.

    Returns:
      The report, as in `report.json`.

    Raises:
      schemas.SchemaError: a folder holds nothing known, or `out` cannot be written.
      ModuleNotFoundError: matplotlib or jinja2 is absent.
    """
    from specialize_jax.report import page, plots

    report = build(read(paths))
    charts = plots.draw(report)
    report["charts"] = [{"file": c.file, "title": c.title, "shows": c.alt} for c in charts]
    folder = folders.make_folder(out)
    for chart in charts:
        folders.write_bytes(folder / chart.file, chart.png)
    folders.write_json(folder / "report.json", report)
    folders.write_bytes(folder / "index.html", page.render(report, charts).encode())
    return report
