"""What a folder is, and what happens to damaged files."""

import json
import pathlib

import pytest

from specialize_jax import report, schemas
from tests.report import fixtures
from tests.report import runs as small_runs


def test_every_stage_is_recognised_by_its_files(tmp_path):
    stages = fixtures.write_run(tmp_path)
    runs = report.read(list(stages.values()))
    assert [found for _, found in runs.sources] == [
        ["teacher records"],
        ["aligned examples"],
        ["packed rows"],
        ["training metrics", "3 evaluations"],
    ]
    assert [e.step for e in runs.evaluations] == list(fixtures.STEPS)
    assert runs.training[0].settings["operative.gin"] == "BATCH_SIZE = 64\n"
    assert runs.problems == [] and runs.notes == []


def test_an_evaluation_folder_alone_knows_run_and_step(tmp_path):
    stages = fixtures.write_run(tmp_path)
    for given in (stages["model"] / "eval" / "400", stages["model"] / "eval"):
        runs = report.read([given])
        assert {e.label for e in runs.evaluations} == {"model"}
        assert 400 in {e.step for e in runs.evaluations}
        assert runs.training == []


def test_a_folder_given_twice_counts_once(tmp_path):
    model = fixtures.write_run(tmp_path)["model"]
    runs = report.read([model, model / "eval" / "400", model])
    assert [e.step for e in runs.evaluations] == list(fixtures.STEPS)
    assert len(runs.training) == 1


def test_folders_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "aligned", tmp_path / "b" / "aligned"]
    for path in paths:
        fixtures.write_json(path / "alignment_info.json", fixtures.alignment_info())
    assert [info.label for info in report.read(paths).aligned] == [str(path) for path in paths]


def test_a_folder_with_nothing_known_names_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(schemas.SchemaError) as error:
        report.read([tmp_path])
    for name in ("teacher_info.json", "metrics.jsonl", "results_*.json", "notes.txt"):
        assert name in str(error.value)


def test_a_path_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(schemas.SchemaError, match="absent"):
        report.read([tmp_path / "absent"])


def _metrics(folder: pathlib.Path, text: str) -> report.Runs:
    (folder / "metrics.jsonl").write_text(text)
    return report.read([folder])


def test_a_broken_line_is_named_and_the_rest_is_read(tmp_path):
    good = '{"step": 1, "split": "train", "loss": 2.0}\n'
    runs = _metrics(tmp_path, good + '{"step": 2, "spl\n' + "[3]\n" + good.replace("1", "4"))
    assert [row["step"] for row in runs.training[0].rows["train"]] == [1, 4]
    assert [p.partition("metrics.jsonl")[2].partition(":")[0] for p in runs.problems] == [
        ", line 2",
        ", line 3",
    ]
    assert runs.notes == []


def test_a_half_written_last_line_is_a_note(tmp_path):
    runs = _metrics(tmp_path, '{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert [row["step"] for row in runs.training[0].rows["train"]] == [1]
    assert runs.problems == []
    assert "line 2" in runs.notes[0] and "half-written" in runs.notes[0]


def test_a_whole_last_line_without_a_newline_counts(tmp_path):
    runs = _metrics(tmp_path, '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}')
    assert [row["step"] for row in runs.training[0].rows["train"]] == [1, 2]


def test_steps_repeated_after_a_resume_count_as_logged_last(tmp_path):
    losses = [(1, 5.0), (2, 4.0), (3, 9.0), (2, 3.0), (3, 2.0)]
    lines = [json.dumps({"step": s, "split": "train", "loss": v}) + "\n" for s, v in losses]
    rows = _metrics(tmp_path, "".join(lines)).training[0].rows["train"]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 5.0), (2, 3.0), (3, 2.0)]


def test_a_row_without_a_step_is_named(tmp_path):
    runs = _metrics(tmp_path, '{"loss": 2.0}\n{"step": true, "loss": 1.0}\n')
    assert runs.training[0].rows == {}
    assert len(runs.problems) == 2 and "line 1" in runs.problems[0]


def test_nan_is_read_as_absent_and_half_a_surrogate_pair_as_text(tmp_path):
    runs = _metrics(tmp_path, '{"step": 1, "loss": NaN, "text": "a\\ud83d"}\n')
    row = runs.training[0].rows["train"][0]
    assert row["loss"] is None
    assert row["text"].encode() == b"a?"


def test_a_broken_info_file_is_named_with_its_line(tmp_path):
    (tmp_path / "alignment_info.json").write_text('{"rows": 3,\n "coverage": }')
    runs = report.read([tmp_path])
    assert runs.aligned == []
    assert "alignment_info.json, line 2" in runs.problems[0]


def test_a_task_name_is_cut_from_the_name_of_its_samples_file(tmp_path):
    for name in ("samples_bbh_snarks_2024-05-01T12-00-00.5.jsonl", "samples_gsm8k.jsonl"):
        fixtures.write_lines(tmp_path / name, fixtures.samples())
    (evaluation,) = report.read([tmp_path]).evaluations
    assert set(evaluation.samples) == {"bbh_snarks", "gsm8k"}


def test_the_later_results_file_counts(tmp_path):
    for time, share in (("2024-05-01T10", 0.1), ("2024-05-02T10", 0.2)):
        results = {"gsm8k": {"exact_match,corrected": share}}
        fixtures.write_json(tmp_path / f"results_{time}.json", {"results": results})
    (row,) = report.build(report.read([tmp_path]))["accuracy"]
    assert row["accuracy"] == 0.2


def test_results_without_results_are_named(tmp_path):
    fixtures.write_json(tmp_path / "results_1.json", {"groups": {}})
    assert "'results'" in report.read([tmp_path]).problems[0]


def test_answers_are_read_of_the_last_and_the_chosen_step_alone(tmp_path):
    for step in (1, 2, 3, 4):
        small_runs.write_step(tmp_path, step, 0.5)
    fixtures.write_json(tmp_path / "selected.json", {"step": 2})
    for path in (tmp_path / "eval" / "4").glob("samples_sorting*"):
        path.unlink()
    read = report.read([tmp_path]).evaluations
    assert [one.step for one in read] == [1, 2, 3, 4]
    sets = [{task.partition("_")[0] for task in one.samples} for one in read]
    assert sets == [set(), {"gsm8k", "svamp", "sorting"}, {"sorting"}, {"gsm8k", "svamp"}]
