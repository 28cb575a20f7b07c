"""The numbers of the report against numbers worked out another way."""

import pytest

from specialize_jax import report
from specialize_jax.report import accuracy, means, samples, tables
from specialize_jax.report.collect import Evaluation, Info, Runs, Training
from tests.report import fixtures


def _evaluation(results, step=1, **samples_of):
    metrics = {task: (values, n, "file") for task, (values, n) in results.items()}
    return Evaluation("run", step, metrics, samples_of)


def _four(step=1, **changed):
    shares = {"gsm8k": 0.2, "multiarith": 0.5, "asdiv": 0.3, "svamp": 0.1} | changed
    tasks = {k: v for k, v in shares.items() if v is not None}
    return _evaluation({k: ({"acc,corrected": v}, 100) for k, v in tasks.items()}, step)


def _distribution(*evaluations):
    return means.distribution(means.by_role(accuracy.rows(evaluations, [])))


def test_out_of_distribution_is_the_mean_of_the_sets_that_are_named():
    (row,) = _distribution(_four())
    assert row["in_distribution"] == 0.2 and row["generic"] is None
    assert row["out_of_distribution"] == pytest.approx(0.3)
    assert row["sets"]["out_of_distribution"] == ["multiarith", "asdiv", "svamp"]
    (row,) = _distribution(_four(svamp=None))
    assert row["out_of_distribution"] == pytest.approx(0.4)
    assert row["sets"]["out_of_distribution"] == ["multiarith", "asdiv"]
    assert _distribution(_four(gsm8k=None)) == []


def test_splits_of_data_sets_are_not_mixed():
    shares = {"gsm8k_test": 0.5, "asdiv_test": 0.25, "svamp_validation": 1.0}
    (row,) = _distribution(_evaluation({k: ({"acc,corrected": v}, 9) for k, v in shares.items()}))
    assert row["split"] == "test" and row["out_of_distribution"] == 0.25


def test_modes_stand_side_by_side_and_the_newest_step_is_marked():
    both = {"exact_match,fu2023": 0.1, "exact_match,corrected": 0.2, "exact_match_stderr,x": 0.3}
    found = accuracy.rows([_evaluation({"a": (both, 9)}, step=s) for s in (2, 10)], [])
    wide = accuracy.by_mode(found)
    assert [(row["step"], row["newest"], list(row["modes"])) for row in wide] == [
        (2, False, ["corrected", "fu2023"]),
        (10, True, ["corrected", "fu2023"]),
    ]
    assert [row["mode"] for row in accuracy.last(found)] == ["corrected"]
    assert [row["step"] for row in accuracy.last(found)] == [10]


def test_n_falls_back_to_the_samples_of_that_mode():
    lines = fixtures.samples()
    evaluation = _evaluation({"a": ({"exact_match,corrected": 2 / 3}, None)}, a=lines)
    (row,) = accuracy.rows([evaluation], [])
    assert row["n"] == 3 and row["low"] is not None
    (row,) = accuracy.rows([_evaluation({"a": ({"acc,corrected": 0.5}, None)})], [])
    assert row["n"] is None and row["low"] is None


def test_a_task_without_accuracy_is_a_problem_that_names_its_metrics():
    problems: list[str] = []
    assert accuracy.rows([_evaluation({"a": ({"f1,none": 0.5}, 3)})], problems) == []
    assert "'a'" in problems[0] and "f1,none" in problems[0]


def test_verdicts_of_samples():
    merged = samples.merge(fixtures.samples())
    assert [sample["verdict"] for sample in merged] == ["right", "wrong", "mixed"]
    assert merged[2]["modes"] == [
        {"mode": "corrected", "extracted": "1000", "right": True},
        {"mode": "fu2023", "extracted": "1000", "right": False},
    ]
    assert merged[0]["prompt"] == "Q: Question 0?\nA:"
    assert merged[1]["gold"] == "13"


def test_samples_without_most_fields_and_in_the_newer_harness_form():
    newer = {"doc_id": 1, "arguments": {"gen_args_0": {"arg_0": "P", "arg_1": {}}}}
    bare, sample = samples.merge([{}, newer])
    assert bare["verdict"] == sample["verdict"] == "unknown"
    assert bare["output"] is None and bare["question"] is None
    assert sample["prompt"] == "P"


def test_samples_are_the_first_of_each_verdict_at_the_last_step():
    def lines(name):
        rights = [True] * 20 + [False] * 3
        return [{"doc_id": i, "resps": [[name]], "acc": int(r)} for i, r in enumerate(rights)]

    steps = [Evaluation("r", s, {}, {"t": lines(f"step {s}")}) for s in (30, 4)]
    (group,) = samples.choose(steps)
    assert group["step"] == 30
    assert {item["output"] for item in group["items"]} == {"step 30"}
    assert [item["id"] for item in group["items"]] == [*map(str, range(8)), "20", "21", "22"]
    assert group["verdicts"] == {"right": 20, "wrong": 3} and group["of"] == 23


def _coverage(**info):
    notes: list[str] = []
    return tables._coverage(Info("a", info), notes), notes


def test_outcomes_add_up_and_transferred_tokens_are_the_rest():
    found, notes = _coverage(
        cot_tokens=200, coverage=0.8, reasons={"DIFFERENT_STRING": 30, "end_of_sequence": 10}
    )
    outcomes = {o["name"]: (o["tokens"], o["share"]) for o in found["total"]["outcomes"]}
    assert outcomes == {
        "transferred": (160, 0.8),
        "different_string": (30, 0.15),
        "end_of_sequence": (10, 0.05),
    }
    assert notes == []


def test_shares_that_do_not_add_up_are_noted():
    _, notes = _coverage(cot_tokens=200, coverage=0.8, reasons={"different_string": 10})
    assert "0.850" in notes[0]


def test_absent_coverage_stays_absent():
    found, notes = _coverage(mode="one_to_one")
    assert found["total"]["outcomes"] == [] and found["total"]["coverage"] is None
    assert notes == []


def test_an_unknown_reason_is_shown_by_its_name():
    found, _ = _coverage(cot_tokens=10, coverage=0.5, reasons={"moonlight": 5})
    assert found["total"]["outcomes"][-1] == {"name": "moonlight", "tokens": 5, "share": 0.5}


def test_a_flat_packed_info_is_one_split():
    packed = tables._packed(Info("p", {"encoder_fill": 0.9, "dropped": {"inputs": 2}}))
    assert [(s["name"], s["encoder_fill"]) for s in packed["splits"]] == [("all", 0.9)]
    assert packed["dropped"] == {"inputs": 2}


def test_long_curves_are_thinned_and_keep_their_ends():
    rows = [{"step": s, "loss": 1.0} for s in range(7_001)]
    built = report.build(Runs(training=[Training("r", {"train": rows}, {})]))
    kept = [row["step"] for row in built["training"][0]["splits"]["train"]]
    assert len(kept) <= 2_001 and kept[0] == 0 and kept[-1] == 7_000
    assert "7,001" in built["notes"][0]


@pytest.mark.parametrize(
    "file, text, student",
    [
        ("config.json", '{"model": {"name": "a"}}', "a"),
        ("config.json", '{"student": "b"}', "b"),
        ("config.json", '{"rate": 1}', None),
        ("train.gin", "MODEL_NAME = 'c'\n", "c"),
        ("train.gin", "BATCH = 3\nmodels.build.name = 'flan_t5_xl'\n", "flan_t5_xl"),
        ("train.gin", "# MODEL = 'x'\nRATE = 3\n", None),
    ],
)
def test_the_student_is_named_by_the_settings(file, text, student):
    built = report.build(Runs(training=[Training("r", {}, {file: text})]))
    assert built["training"][0]["student"] == student


def test_tiles(tmp_path):
    stages = fixtures.write_run(tmp_path)
    built = report.build(report.read(list(stages.values())))
    tiles = {t["title"]: [v["value"] for v in t["values"]] for t in built["tiles"]}
    last_row = fixtures.metrics()[-1]
    assert tiles["Teacher"] == ["code-davinci-002"]
    assert tiles["Student"] == ["t5_1_1_small"]
    assert tiles["Steps"] == [600]
    assert tiles["Last held-out loss"] == [last_row["loss"]]
    assert tiles["Coverage"] == [0.8] and tiles["Retained mass"] == [0.976]
    assert tiles["Accuracy, in-distribution"] == [pytest.approx(0.1 + 600 / 5000)]
    assert tiles["Accuracy, out-of-distribution"] == [pytest.approx(0.1 + 0.1 + 600 / 5000)]


def test_modes_of_the_harness_are_shown_apart_where_ours_are_there():
    def rows(*modes):
        return accuracy.rows([_evaluation({"t": ({f"acc,{m}": 0.5 for m in modes}, 9)})], [])

    harness = ["gsm8k_cot:flexible-extract", "gsm8k_cot:strict-match"]
    assert accuracy.shown_modes(rows("fu2023", "corrected", *harness)) == (
        ["corrected", "fu2023"],
        harness,
    )
    assert accuracy.shown_modes(rows(*harness)) == (harness, [])
    assert accuracy.shown_modes([]) == ([], [])
