"""Comparisons of runs: sizes, fitted lines, formats, calculator and votes, and how they look."""

import json
import math
import random
import re
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import report
from specialize_jax.report import accuracy, comparing, scaling, sizes
from specialize_jax.report.collect import Evaluation
from tests.report import fixtures, runs


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return runs.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def out(paths, tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def built(paths, out):
    return report.write(paths, out)


@pytest.mark.parametrize("size", ["t5_1_1_small", "flan_t5_xl", "t5_base", "gpt2_medium"])
def test_parameters_are_those_of_the_model(size):
    jax, models = pytest.importorskip("jax"), pytest.importorskip("specialize_jax.models")
    model = models.build(size)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    shape = vars(model.config)
    config = {"family": size.split("_")[0].replace("flan", "t5"), "model": shape}
    expected = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert sizes.parameters(config) == expected


@pytest.mark.parametrize("config", [{}, {"family": "rnn", "model": {}}, {"family": "t5"}])
def test_parameters_of_others_are_not_known(config):
    assert sizes.parameters(config) is None


@given(
    st.lists(st.tuples(st.integers(10, 10**12), st.floats(0, 1)), min_size=2, max_size=6).filter(
        lambda points: len({size for size, _ in points}) > 1
    )
)
def test_the_line_is_that_of_numpy(points):
    x, y = zip(*points, strict=True)
    if max(x) < 1.01 * min(x):
        return
    line = scaling.log_linear(x, y, [None] * len(x))
    slope, intercept = np.polyfit(np.log10(x), y, 1)
    assert line.slope == pytest.approx(slope, abs=1e-6, rel=1e-6)
    assert line.intercept == pytest.approx(intercept, abs=1e-5, rel=1e-6)
    assert line.stderr is None


def test_the_error_of_the_slope_is_how_it_spreads():
    x, errors, rng = [1e7, 1e8, 3e9], [0.02, 0.03, 0.01], random.Random(0)
    slopes = [
        scaling.log_linear(x, [rng.gauss(0.3, error) for error in errors], errors).slope
        for _ in range(4000)
    ]
    found = scaling.log_linear(x, [0.3] * 3, errors)
    assert found.slope == pytest.approx(0) and found.stderr == pytest.approx(
        statistics.stdev(slopes), rel=0.05
    )


def test_one_size_has_no_line():
    assert scaling.log_linear([100, 100], [0.1, 0.2], [0.01, 0.01]) is None
    assert scaling.log_linear([], [], []) is None


def test_short_counts():
    shown = [scaling.short_count(n) for n in (999, 60_506_624, 11_135_332_352)]
    assert shown == ["999", "60.5M", "11.1B"]


def _rows(run, **shares):
    results = {name: ({"acc,corrected": share}, 50, "f") for name, share in shares.items()}
    return accuracy.rows([Evaluation(run, 1, results, {})], [])


def test_runs_are_compared_on_the_sets_that_all_had():
    rows = _rows("a", svamp=0.2, asdiv=0.4) + _rows("b", svamp=0.5)
    (row,) = comparing.means(rows)
    assert (row["sets"], row["left_out"]) == (["svamp"], ["asdiv"])
    assert {run: mean["accuracy"] for run, mean in row["runs"].items()} == {"a": 0.2, "b": 0.5}
    (alone,) = comparing.means(_rows("a", svamp=0.2, asdiv=0.4))
    stderr = math.sqrt(0.2 * 0.8 / 49 + 0.4 * 0.6 / 49) / 2
    assert alone["runs"]["a"] == pytest.approx({"accuracy": 0.3, "stderr": stderr})


def test_the_chosen_step_is_reported_else_the_last():
    rows = [{"run": "r", "step": step} for step in (0, 7, 9)]
    shown = comparing.reported(rows, {"r": {"step": 7}})
    assert shown == {"r": {"step": 7, "chosen": True}}
    for other in ({}, {"r": {"step": 8}}, {"r": {"step": "7"}}):
        assert comparing.reported(rows, other) == {"r": {"step": 9, "chosen": False}}


def test_accuracy_over_size(built):
    curves = {(row["role"], row["format"]): row for row in built["scaling"]}
    row = curves["in_distribution", "zero-shot CoT"]
    assert [point["run"] for point in row["points"]] == ["small", "large", "narrow"]
    small, large = (built["parameters"][run] for run in ("small", "large"))
    assert [point["parameters"] for point in row["points"]] == [small, large, large]
    decades = math.log10(large / small)
    assert row["slope"] == pytest.approx(((0.5 + 0.45) / 2 - 0.25) / decades)
    assert row["low"] < row["slope"] < row["high"]
    assert curves["generic", "zero-shot CoT"]["slope"] < 0
    assert not any("calculator" in row["format"] for row in built["scaling"])


def test_formats_trained_on_and_asked_in(built):
    roles = [matrix["role"] for matrix in built["ablation"]]
    assert roles == ["in_distribution", "out_of_distribution", "generic"]
    (narrow,) = [row for row in built["ablation"][0]["runs"] if row["run"] == "narrow"]
    assert narrow["trained"] == ["zero-shot CoT"]
    assert narrow["accuracy"] == pytest.approx({"zero-shot CoT": 0.45, "in-context CoT": 0.45})


def test_gains_of_calculator_and_votes(built):
    first = built["calculators"][0]
    assert (first["run"], first["data_set"], first["asked"]) == ("small", "gsm8k", "zero-shot CoT")
    assert [first[key] for key in ("without", "with", "gain")] == [0.25, 0.5, 0.25]
    votes = [row for row in built["votes"] if row["data_set"] == "svamp"][0]
    assert votes["single"] == 0.25 and [vote["k"] for vote in votes["votes"]] == [1, 4]
    four = votes["votes"][1]
    assert four["accuracy"] == pytest.approx(20 / 60) and four["gain"] == pytest.approx(5 / 60)
    assert four["low"] < four["accuracy"] < four["high"]


def test_samples_that_vote_stand_beside_the_greedy_answers(tmp_path):
    folder = runs.write_run(tmp_path / "run", d_model=16, right=0.5)
    drawn = {"generation": {"do_sample": True, "temperature": 0.7}}
    runs.write_step(folder, 200, 0.25, votes=True, date=5.0, **drawn)
    runs.write_step(folder, 200, 0.6, calculator="equations", date=6.0)
    runs.write_step(folder, 200, 0.35, calculator="equations", date=7.0, **drawn)
    found = report.write([folder], tmp_path / "out")
    rows = [row for row in found["accuracy"] if row["data_set"] == "gsm8k" and row["step"] == 200]
    first = {row["format"]: row["accuracy"] for row in rows if row["asked"] == "zero-shot CoT"}
    assert first == {
        "zero-shot CoT": 0.5,
        "zero-shot CoT + sampling at 0.7": 0.25,
        "zero-shot CoT + calculator (equations)": 0.6,
        "zero-shot CoT + calculator (equations) + sampling at 0.7": 0.35,
    }
    # Like is compared with like, and the curves over training are of greedy answers alone.
    gains = [row for row in found["calculators"] if row["data_set"] == "gsm8k"][:2]
    assert [(row["without"], row["with"]) for row in gains] == [(0.5, 0.6), (0.25, 0.35)]
    assert {row["single"] for row in found["votes"] if row["data_set"] == "gsm8k"} == {0.25}
    told = [chart["shows"] for chart in found["charts"] if "accuracy" in chart["file"]]
    assert told and not any("sampling" in words or "calculator" in words for words in told)


def test_the_choice_is_on_the_page_and_marked_in_the_charts(built, out):
    (one,) = built["selections"]
    assert (one["run"], one["step"], one["by"]) == ("small", 200, "out_of_distribution")
    assert built["reported"]["small"] == {"step": 200, "chosen": True}
    marked = [
        chart["shows"] for chart in built["charts"] if "step 200 was chosen" in chart["shows"]
    ]
    assert len(marked) == 4  # the means, and the sets of each role
    page = (out / "index.html").read_text()
    assert "small: step 200 was chosen" in page and "1,200" not in page
    titles = [chart["title"] for chart in built["charts"]]
    assert titles.count("Specialised against generic") == 3
    assert titles.count("Accuracy over size, zero-shot CoT") == 1
    assert titles.count("Votes of several samples, zero-shot CoT") == 1
    assert built["incomparable"] == [] and "Not shown:" not in page


def test_a_damaged_choice_is_a_problem_and_the_page_goes_on(tmp_path):
    folder = runs.write_run(tmp_path / "run", d_model=16, right=0.5)
    fixtures.write_json(folder / "selected.json", {"step": 100, "rule": {}})
    written = report.write([folder], tmp_path / "out")
    assert written["problems"] == ["run: selected.json is left out: no 'chosen'"]
    assert written["selections"] == []


def test_what_cannot_be_compared_is_one_line(tmp_path):
    results = {"svamp": {"acc,corrected": 0.5}}
    fixtures.write_json(tmp_path / "eval" / "5" / "results_1.json", {"results": results})
    written = report.write([tmp_path], tmp_path / "out")
    assert len(written["incomparable"]) == 5
    page = (tmp_path / "out" / "index.html").read_text()
    (line,) = re.findall(r"Not shown: (.*?)</p>", page)
    assert line.startswith("specialised against generic (needs generic sets")
    assert "accuracy over size (needs runs of two sizes" in line
    assert "No <code>selected.json</code> was given" in page


def test_the_new_parts_are_escaped_and_in_json(built, out):
    source = (out / "index.html").read_text()
    assert fixtures.HOSTILE not in source and "&lt;script&gt;" in source
    found = json.loads((out / "report.json").read_text())
    assert found["scaling"] == built["scaling"] and found["errors"]
