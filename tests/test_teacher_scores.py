"""benchmarks/teacher_scores.py: its functions on made-up rows, its claims on the real ones."""

import importlib.util
import json
import pathlib

import pytest

from tests.real_data import data_dir

_PATH = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "teacher_scores.py"
_SPEC = importlib.util.spec_from_file_location("teacher_scores", _PATH)
teacher_scores = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(teacher_scores)

ROWS = [
    ("2 + 2 = 5. The answer is 5.", "4"),
    ("The answer is $1,200.", "1200"),
    ("The answer is -5.", "5"),
    ("The answer is 18", "18"),
]


def made_up():
    outputs = teacher_scores.Outputs("toy", "number", "gsm8k_cot", ROWS, 50.0, None, (0, 1, 0, 0))
    return outputs, teacher_scores.scores(outputs)


def test_shares_by_mode():
    _, found = made_up()
    shares = {mode: teacher_scores.share(found, mode) for mode in found[0]}
    assert shares == {
        "corrected": 50.0,
        "fu2023": 50.0,
        "gsm8k_cot:strict-match": 0.0,
        "gsm8k_cot:flexible-extract": 50.0,
    }


def test_the_table_has_a_row_for_each_and_a_dash_for_what_is_not_known():
    lines = teacher_scores.table([made_up()])
    assert lines[2:] == ["| toy | 4 | 50.0 | 50.0 | 75.0 | - | 50.0 | 0.0 | 50.0 |"]
    assert {line.count("|") for line in lines} == {10}


def test_flags_are_compared_row_by_row():
    assert teacher_scores.against_flags([made_up()]) == (4, 1)


def test_disagreements_name_who_is_right_and_where():
    _, found = made_up()
    assert teacher_scores.disagreements(found, "fu2023") == {
        ("corrected", "it cuts the start off"): [1],
        ("fu2023", "sign"): [2],
    }
    assert teacher_scores.disagreements(found, "gsm8k_cot:strict-match") == {
        ("corrected", "it reads nothing"): [1],
        ("corrected", "it cuts the end off"): [3],
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (None, "5", "it reads something"),
        ("5", "5", "it reads the gold answer otherwise"),
        ("75", "$75.00.", "the same, written otherwise"),
        ("27000", "000", "it cuts the start off"),
        ("8", "5", "it reads another place, or more"),
    ],
)
def test_categories(ours, theirs, expected):
    assert teacher_scores.category(ours, theirs) == expected


@pytest.mark.parametrize(
    ("gold", "text"), [(True, "yes"), (False, "no"), ([5, 10], "5; 10"), ("#### 4", "#### 4")]
)
def test_gold_answers_as_text(gold, text):
    assert teacher_scores.gold_text(gold) == text


def test_openai_rows_are_read_with_their_flags(tmp_path):
    solved = {"solution": "1 + 1 = 2\nA: 2", "is_correct": True}
    row = {"ground_truth": "1 + 1 = 2\nA: 2"} | dict.fromkeys(teacher_scores._OPENAI, solved)
    folder = tmp_path / "teacher_gsm8k_openai"
    folder.mkdir()
    (folder / "example_model_solutions.jsonl").write_text(json.dumps(row) + "\n")
    outputs = list(teacher_scores.openai(tmp_path))
    assert [o.published for o in outputs] == [100.0] * 4
    assert outputs[0].rows == [(solved["solution"], "2")]


def test_ten_published_accuracies_of_big_bench_hard_are_met():
    for outputs in teacher_scores.bbh(data_dir()):
        share = teacher_scores.share(teacher_scores.scores(outputs), "corrected")
        assert share == pytest.approx(outputs.published, abs=0.006), outputs.name


def test_every_flag_of_openai_is_met():
    everything = [(o, teacher_scores.scores(o)) for o in teacher_scores.openai(data_dir())]
    assert teacher_scores.against_flags(everything) == (5276, 0)
