"""The offline job as a whole: bad rows, several processes, several devices, work done before."""

import functools
import json
import math

import pytest

from specialize_jax.data.aligning import job
from specialize_jax.schemas import SchemaError, folders, records
from tests import simulated_devices
from tests.apps.line import FIXTURES, run
from tests.fixtures import world

TOKENIZER = f"--student_tokenizer={world.TOKENIZER}"


def folder_of(path, rows, *, sha256=None, rows_per_part=3):
    """Writes records as they come, bad ones too."""
    folder = folders.make_folder(path)
    shards = []
    for start in range(0, len(rows), rows_per_part):
        part = folder / folders.part_name(len(shards))
        some = rows[start : start + rows_per_part]
        folders.write_table(part, records.pa.Table.from_pylist(some, schema=records.ARROW_SCHEMA))
        shards.append(folders.part_entry(part, len(some)))
    info = {"schema": records.NAME, "version": folders.VERSION, **world.INFO}
    info |= {"rows": len(rows), "shards": shards, "tokenizer": {"name": "mine", "sha256": sha256}}
    folders.write_json(folder / "teacher_info.json", info)
    return folder


def bad_rows():
    rows = [world.record(index) for index in range(7)]
    rows[1]["topk_logprobs"][2][1] = 0.5
    rows[4]["topk_logprobs"][0] = [math.log(0.9), math.log(0.8), -9.0]
    return rows


def align(source, out, *more):
    return ("align", f"--records={source}", TOKENIZER, f"--out={out}", "--processes=1", *more)


def error_of(capsys, *arguments):
    assert run(*arguments) == 1
    return capsys.readouterr().err


def test_a_bad_row_stops_the_job_and_is_named(tmp_path, capsys):
    source = folder_of(tmp_path / "records", bad_rows())
    line = error_of(capsys, *align(source, tmp_path / "out"))
    place = f"'{source / 'part-00000.parquet'}' row 1 (world/0/1/0): step 2: "
    assert place + "log-probabilities must be above -9999 and 0 at most, got 0.5 for b" in line
    assert not (tmp_path / "out" / "alignment_info.json").exists()


@pytest.mark.parametrize("mode", ["one_to_one", "marginal"])
def test_bad_rows_are_skipped_when_told_to_and_listed(tmp_path, capsys, mode):
    source = folder_of(tmp_path / "records", bad_rows())
    out = tmp_path / "out"
    assert run(*align(source, out, "--on_error=skip", f"--mode={mode}")) == 0
    printed = capsys.readouterr().out
    info = json.loads((out / "alignment_info.json").read_text())
    assert info["rows"] == 5
    assert [(row["row"], row["example_id"]) for row in info["skipped"]] == [
        (1, "world/0/1"),
        (1, "world/0/4"),
    ]
    assert "candidate mass 1.700123 is above 1" in info["skipped"][1]["error"]
    assert info["skipped"][1]["file"].endswith("part-00001.parquet")
    assert all(f"skipped: {row['error']}" in printed for row in info["skipped"])
    assert run("verify", out) == 0
    # The good rows are what they would be alone.
    alone = tmp_path / "alone"
    good = [row for index, row in enumerate(bad_rows()) if index not in (1, 4)]
    assert run(*align(folder_of(tmp_path / "good", good), alone, f"--mode={mode}")) == 0
    assert json.loads((alone / "alignment_info.json").read_text())["coverage"] == info["coverage"]


def test_a_folder_of_bad_rows_is_an_error_even_then(tmp_path, capsys):
    rows = [world.record(index, question=" ") for index in range(4)]
    source = folder_of(tmp_path / "records", rows)
    line = error_of(capsys, *align(source, tmp_path / "out", "--on_error=skip"))
    assert "every record is bad; the first: " in line and "'question' is blank" in line


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--k_out=0", "--k_out: expected at least 1, got 0"),
        ("--processes=0", "--processes: expected at least 1, got 0"),
        ("--on_error=ignore", "--on_error: expected one of fail, skip, got 'ignore'"),
        ("--mode=nearest", "mode must be one of one_to_one, "),
    ],
)
def test_settings_out_of_range_are_named_before_any_work(tmp_path, capsys, flag, message):
    out = tmp_path / "out"
    assert message in error_of(capsys, *align(FIXTURES / "teacher_records", out, flag))
    assert not out.exists()


def test_records_of_another_teacher_tokenizer(tmp_path, capsys):
    source = folder_of(tmp_path / "records", [world.record(0)], sha256="0" * 64)
    teacher = f"--teacher_tokenizer={world.TOKENIZER}"
    line = error_of(capsys, *align(source, tmp_path / "out", teacher))
    assert f"'{source}': the records' tokens are those of 'mine' with SHA-256 {'0' * 64}" in line
    assert "student_tokenizer.model' has" in line


def test_the_worst_of_what_is_covered_alike_keep_the_least_mass(tmp_path):
    rows = [world.record(index) for index in range(6)]
    for step in rows[4]["topk_logprobs"]:
        del step[1:]
    for row in rows:
        row["topk_bytes"] = [
            names[: len(p)]
            for names, p in zip(row["topk_bytes"], row["topk_logprobs"], strict=True)
        ]
    out = tmp_path / "out"
    assert run(*align(folder_of(tmp_path / "records", rows), out, "--mode=marginal")) == 0
    examples = json.loads((out / "alignment_info.json").read_text())["examples"]
    order = [(example["coverage"], example["retained_mass"]) for example in examples]
    assert order == sorted(order)
    assert {coverage for coverage, _ in order} == {1.0}
    assert examples[0]["example_id"] == "world/0/4"


def test_a_sampled_token_without_a_probability_is_shown_without_one(tmp_path):
    row = world.record(0)
    row["token_logprobs"][0] = -math.inf
    row["token_logprobs"][1] = -9999.0
    out = tmp_path / "out"
    assert run(*align(folder_of(tmp_path / "records", [row]), out)) == 0
    (example,) = json.loads((out / "alignment_info.json").read_text())["examples"]
    shown = [token["logprob"] for token in example["teacher"]]
    assert shown[:2] == [None, None]
    assert shown[2] == pytest.approx(row["token_logprobs"][2])


@pytest.mark.parametrize("mode", ["one_to_one", "marginal"])
def test_processes_change_no_byte(tmp_path, mode):
    source = folder_of(tmp_path / "records", [world.record(index) for index in range(8)])
    for processes in (1, 2):
        flags = (f"--mode={mode}", f"--processes={processes}")
        assert run(*align(source, tmp_path / str(processes), *flags)) == 0
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet"):
        one, two = ((tmp_path / str(n) / name).read_bytes() for n in (1, 2))
        assert one == two


def test_a_finished_part_is_not_made_again(tmp_path):
    source = folder_of(tmp_path / "records", [world.record(0), world.record(1)])
    part, target = source / "part-00000.parquet", tmp_path / "part.parquet"
    settings = job.Settings.load(mode="marginal", k_out=4, student_tokenizer=str(world.TOKENIZER))
    first = job.align_part(part, target, settings)
    changed = target.stat().st_mtime_ns
    assert job.align_part(part, target, settings) == first
    assert target.stat().st_mtime_ns == changed
    with pytest.raises(SchemaError, match="SHA-256 mismatch"):
        job.align_part(part, target, settings, source_sha256="0" * 64)
    other = job.Settings.load(mode="marginal", k_out=5, student_tokenizer=str(world.TOKENIZER))
    with pytest.raises(SchemaError, match="made with other settings"):
        job.align_part(part, target, other)


def test_a_part_whose_tokens_were_not_checked_is_not_one_that_was(tmp_path):
    source = folder_of(tmp_path / "records", [world.record(0)]) / "part-00000.parquet"
    target = tmp_path / "part.parquet"
    load = functools.partial(
        job.Settings.load, mode="one_to_one", k_out=4, student_tokenizer=str(world.TOKENIZER)
    )
    job.align_part(source, target, load())
    with pytest.raises(
        SchemaError, match=r"other settings \(teacher: None there, [0-9a-f]{64} here"
    ):
        job.align_part(source, target, load(teacher_tokenizer=str(world.TOKENIZER)))


def test_a_part_of_something_else_is_not_taken_for_a_finished_one(tmp_path):
    part = folder_of(tmp_path / "records", [world.record(0)]) / "part-00000.parquet"
    settings = job.Settings.load(mode="marginal", k_out=4, student_tokenizer=str(world.TOKENIZER))
    with pytest.raises(SchemaError, match="is no part that `align` made"):
        job.align_part(part, part, settings)


def test_parts_of_more_records_do_not_stay_beside_those_of_fewer(tmp_path, capsys):
    one = folder_of(tmp_path / "one", [world.record(0)])
    two = folder_of(tmp_path / "two", [world.record(1)])
    out = tmp_path / "out"
    assert run(*align(one, out, f"--records={two}")) == 0
    line = error_of(capsys, *align(one, out))
    assert f"'{out / 'part-00001.parquet'}' is of another run: these records have 1 parts" in line


def test_eight_devices_give_the_same_targets():
    assert simulated_devices.run("tests.data.multi_device") == ["one_to_one", "marginal"]
