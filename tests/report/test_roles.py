"""What a task is said to measure, the means of roles, and how little of it fills a page."""

import re

import pytest

from specialize_jax import report
from specialize_jax.report import accuracy, means, roles
from specialize_jax.report.collect import Evaluation, Runs
from tests.report import fixtures

ZERO_SHOT, IN_CONTEXT = "zero_shot_chain_of_thought", "in_context_chain_of_thought"
WORLD = {
    "miniworld_stories": "in_distribution",
    "miniworld_other_wording": "out_of_distribution",
    "miniworld_larger_numbers": "out_of_distribution",
    "miniworld_reversal": "generic",
}


def _config(data_set, label, role):
    return {"dataset": data_set, "format": label, "role": role, "exemplars": None}


def _evaluation(step, shares, formats=(ZERO_SHOT, IN_CONTEXT), world=WORLD, run="student"):
    """Returns an evaluation of the sets in `shares`, with the same accuracy in all formats."""
    asked = {f"{name}_{label}": (name, label) for label in formats for name in shares}
    results = {t: ({"exact_match,corrected": shares[n]}, 50, "f") for t, (n, _) in asked.items()}
    configs = {task: _config(name, label, world[name]) for task, (name, label) in asked.items()}
    return Evaluation(run, step, results, {}, configs)


def _all(share):
    return dict.fromkeys(WORLD, share)


def test_a_config_tells_data_set_format_and_role(tmp_path):
    task = f"miniworld_stories_{IN_CONTEXT}"
    results = {task: {"exact_match,corrected": 0.5}}
    configs = {task: _config("miniworld_stories", IN_CONTEXT, "in_distribution")}
    fixtures.write_json(tmp_path / "results_1.json", {"results": results, "configs": configs})
    (row,) = report.build(report.read([tmp_path]))["accuracy"]
    assert (row["data_set"], row["format"]) == ("miniworld_stories", "in-context CoT")
    assert row["role"] == "in_distribution" and row["task"] == task


@pytest.mark.parametrize("configs", [None, [], {"gsm8k": 3}, {"gsm8k": {"dataset": 1, "role": []}}])
def test_odd_configs_leave_the_name_to_tell(tmp_path, configs):
    results = {"gsm8k": {"exact_match,corrected": 0.5}}
    fixtures.write_json(tmp_path / "results_1.json", {"results": results, "configs": configs})
    (row,) = report.build(report.read([tmp_path]))["accuracy"]
    assert (row["data_set"], row["format"], row["role"]) == ("gsm8k", None, "in_distribution")


@pytest.mark.parametrize(
    "task, config, role",
    [
        ("gsm8k_test", {}, "in_distribution"),
        ("MultiArith", {}, "out_of_distribution"),
        ("asdiv", {"role": "moonlight"}, "out_of_distribution"),
        (f"svamp_{ZERO_SHOT}", {"dataset": "svamp", "format": ZERO_SHOT}, "out_of_distribution"),
        ("gsm8k", {"role": "generic"}, "generic"),
        ("miniworld_stories", {}, None),
    ],
)
def test_without_a_known_role_the_name_decides(task, config, role):
    assert roles.place(task, config)["role"] == role


def test_rows_are_ordered_by_role_then_data_set_then_format():
    found = accuracy.rows([_evaluation(1, _all(0.5)), _evaluation(0, _all(0.1))], [])
    assert [(row["data_set"], row["format"], row["step"]) for row in found[:4]] == [
        ("miniworld_stories", "zero-shot CoT", 0),
        ("miniworld_stories", "zero-shot CoT", 1),
        ("miniworld_stories", "in-context CoT", 0),
        ("miniworld_stories", "in-context CoT", 1),
    ]
    assert [row["role"] for row in found[::4]] == list(WORLD.values())


def test_a_mean_is_over_the_sets_of_all_its_steps():
    early = {"miniworld_other_wording": 0.2, "miniworld_larger_numbers": 0.8}
    late = {"miniworld_other_wording": 0.4}
    (series,) = means.by_role(
        accuracy.rows([_evaluation(0, early, [ZERO_SHOT]), _evaluation(9, late, [ZERO_SHOT])], [])
    )
    assert series["sets"] == ["miniworld_other_wording"]
    assert series["left_out"] == ["miniworld_larger_numbers"]
    assert [(p["step"], p["accuracy"]) for p in series["points"]] == [(0, 0.2), (9, 0.4)]


def test_no_shared_set_gives_no_mean():
    steps = [
        _evaluation(0, {"miniworld_other_wording": 0.2}),
        _evaluation(9, {"miniworld_larger_numbers": 0.4}),
    ]
    built = report.build(Runs(evaluations=steps))
    assert all(series["points"] == [] and len(series["left_out"]) == 2 for series in built["means"])
    assert built["distribution"] == []


def test_formats_have_means_of_their_own():
    zero, context = (
        _evaluation(0, _all(0.25), [ZERO_SHOT]),
        _evaluation(0, _all(0.75), [IN_CONTEXT]),
    )
    rows = means.distribution(means.by_role(accuracy.rows([zero, context], [])))
    assert {(row["format"], row["generic"]) for row in rows} == {
        ("zero-shot CoT", 0.25),
        ("in-context CoT", 0.75),
    }


def test_the_first_step_stands_beside_the_last():
    found = accuracy.rows([_evaluation(s, _all(v)) for s, v in ((0, 0.1), (5, 0.3), (9, 0.9))], [])
    newest = [row for row in accuracy.by_mode(found) if row["newest"]]
    assert [row["step"] for row in newest] == [9] * 8
    assert {row["first"]["modes"]["corrected"]["accuracy"] for row in newest} == {0.1}
    (row, *_) = accuracy.by_mode(accuracy.rows([_evaluation(3, _all(0.1))], []))
    assert row["first"] is None


def test_tiles_are_one_per_role_and_format():
    steps = [_evaluation(step, _all(share)) for step, share in ((0, 0.1), (700, 0.5))]
    tiles = [t for t in report.build(Runs(evaluations=steps))["tiles"] if "Accuracy" in t["title"]]
    assert [tile["title"] for tile in tiles] == [
        f"Accuracy, {role}, {label} CoT"
        for role in ("in-distribution", "out-of-distribution", "generic")
        for label in ("zero-shot", "in-context")
    ]
    (entry,) = tiles[2]["values"]
    assert entry["value"] == 0.5
    assert entry["label"] == "mean of 2 sets, corrected, step 700"


@pytest.mark.parametrize("count, tiles", [(6, 6), (7, 1)])
def test_sets_of_one_role_have_tiles_while_they_are_few(count, tiles):
    world = {f"bbh_{k}": "generic" for k in range(count)}
    evaluation = _evaluation(1, dict.fromkeys(world, 0.5), [ZERO_SHOT], world)
    built = report.build(Runs(evaluations=[evaluation]))
    assert sum("Accuracy" in tile["title"] for tile in built["tiles"]) == tiles


def test_the_paper_is_mentioned_only_beside_its_own_sets():
    assert roles.missing_of_paper(list(WORLD)) == []
    assert roles.missing_of_paper(["gsm8k_test", "asdiv_test"]) == ["multiarith", "svamp"]
    assert roles.missing_of_paper(list(fixtures.DATA_SETS)) == []


@pytest.mark.parametrize(
    "names, among, short",
    [
        (["miniworld_larger_numbers", "miniworld_reversal"], [], ["larger numbers", "reversal"]),
        (["miniworld_stories"], list(WORLD), ["stories"]),
        (["gsm8k_test"], [], ["gsm8k test"]),
        (["a_b", "a_b_c"], [], ["b", "b c"]),
        (["svamp", "asdiv"], ["gsm8k"], ["svamp", "asdiv"]),
        (["bbh_" + "x" * 60, "bbh_y"], [], ["x" * 25 + "…", "y"]),
    ],
)
def test_short_names(names, among, short):
    assert list(roles.short_names(names, among).values()) == short


def _charts(evaluations):
    plots = pytest.importorskip("specialize_jax.report.plots")
    return plots.draw(report.build(Runs(evaluations=evaluations)))


def _words(chart):
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)


def test_charts_are_a_summary_and_one_per_role():
    charts = _charts([_evaluation(step, _all(0.5)) for step in (0, 9)])
    assert [chart.title for chart in charts] == [
        "In-, out-of-distribution and generic accuracy",
        "In-distribution accuracy, corrected",
        "Out-of-distribution accuracy, corrected",
        "Generic accuracy, corrected",
        "Specialised against generic",
    ]
    words = _words(charts[2])
    assert {"other wording", "larger numbers", "zero-shot CoT", "in-context CoT"} <= set(words)
    assert not any("miniworld" in word for word in words)
    assert "Out-of-distribution, 2 sets" in _words(charts[0])


def test_one_role_or_one_step_has_no_summary():
    generic = {"miniworld_reversal": 0.5}
    (chart,) = _charts([_evaluation(step, generic) for step in (0, 9)])
    assert chart.title == "Generic accuracy, corrected"
    (chart,) = _charts([_evaluation(9, _all(0.5))])
    assert chart.title == "Accuracy, corrected"
    assert "larger numbers, in-context CoT 50.0%" in chart.alt


def test_many_long_names_take_more_charts_and_stay_inside():
    world = {f"bbh_{k}_of_a_name_as_long_as_the_harness_has": "generic" for k in range(23)}
    shares = dict.fromkeys(world, 0.5)
    charts = _charts([_evaluation(step, shares, world=world) for step in (0, 9)])
    assert [chart.title[-8:] for chart in charts] == [f"({k} of 4)" for k in (1, 2, 3, 4)]
    for chart in charts:
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', chart.svg)[1])
        starts = re.findall(r"<text[^>]*(?:translate\(| x=\")([-\d.]+)", chart.svg)
        assert starts and all(0 <= float(start) < width for start in starts)
        assert max(map(len, _words(chart))) < 40


def test_the_page_shows_roles_and_the_first_step(tmp_path):
    for step, share in ((0, 0.125), (700, 0.875)):
        evaluation = _evaluation(step, _all(share))
        results = {task: metrics for task, (metrics, *_) in evaluation.results.items()}
        content = {"results": results, "configs": evaluation.configs}
        fixtures.write_json(tmp_path / "student/eval" / str(step) / "results_1.json", content)
    report.write([tmp_path / "student"], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    words = " ".join(re.sub("<[^>]*>", " ", page.replace("<wbr>", "")).split())
    assert "12.5% → 87.5%" in words
    role = "out-of-distribution"  # in its column, and under the name where a page is narrow
    assert f"{role} miniworld_larger_numbers {role} zero-shot CoT 700" in words
    assert "The paper" not in words
