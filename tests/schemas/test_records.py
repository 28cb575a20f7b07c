"""Every rule of the teacher-record contract is enforced with a precise error."""

import math

import pyarrow as pa
import pytest

from specialize_jax.schemas import SchemaError, folders, records
from tests.fixtures import world


def test_a_sound_record_passes_and_round_trips(tmp_path):
    rows = [world.record(0), world.record(1, logprobs=False)]
    entry = records.write_part(tmp_path / "part-00000.parquet", rows)
    table = folders.read_table(tmp_path / "part-00000.parquet", records.ARROW_SCHEMA)
    assert entry["rows"] == 2
    for row, back in zip(rows, table.to_pylist(), strict=True):
        records.check_row(back)
        assert records.target_text(back) == records.target_text(row)
        assert back["topk_bytes"] == row["topk_bytes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion": "something else"}, "the token bytes .* are not the completion"),
        ({"target_token_end": 10_000}, r"target range \[0, 10000\) outside"),
        ({"target_token_end": 0}, "empty target range"),
        ({"token_logprobs": []}, "0 'token_logprobs' for"),
        ({"question": None}, "'question' must not be null"),
        ({"question": " \n"}, "'question' is blank"),
        ({"terminal_logprobs": None}, "terminal_bytes without logprobs"),
        ({"token_ids": [1]}, "1 ids"),
    ],
)
def test_broken_rows_are_named(change, message):
    with pytest.raises(SchemaError, match=rf"part row 7 \(world/0/0/0\): .*{message}"):
        records.check_row(world.record(0, **change), "part row 7")


@pytest.mark.parametrize(
    ("logprobs", "message"),
    [
        ([math.log(0.8), math.log(0.3), -9], "candidate mass 1.1001"),
        ([-9999.0, -1.0, -2.0], "log-probabilities"),
        ([float("nan"), -1.0, -2.0], "log-probabilities"),
        ([0.5, -1.0, -2.0], "log-probabilities"),
        ([-1.0], "3 names, 1 p"),
    ],
)
def test_broken_candidates_are_named(logprobs, message):
    row = world.record(0)
    row["topk_logprobs"][2] = logprobs
    with pytest.raises(SchemaError, match=f"step 2: {message}"):
        records.check_row(row)


def test_a_repeated_candidate_is_named():
    row = world.record(0)
    row["topk_bytes"][0] = [b"a", b"a", b"b"]
    with pytest.raises(SchemaError, match="step 0: a candidate stands twice"):
        records.check_row(row)


def test_a_target_that_cuts_a_character_is_named():
    row = world.cut_record()
    with pytest.raises(SchemaError, match=r"target tokens \[0:1\) cut a character"):
        records.check_row(row)


def folder_of(tmp_path, rows=4):
    from specialize_jax.teacher import records as record_files

    record_files.write((world.record(i) for i in range(rows)), tmp_path / "r", world.INFO)
    return tmp_path / "r"


def read_all(folder):
    info = folders.read_info(folder, records.NAME)
    return list(folders.read_parts(folder, info, records.ARROW_SCHEMA))


def test_damaged_folders_are_named(tmp_path):
    folder = folder_of(tmp_path)
    part = folder / "part-00000.parquet"
    whole = part.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1] + b"?"):
        part.write_bytes(content)
        with pytest.raises(SchemaError, match=rf"SHA-256 mismatch.*\({len(content)} bytes\)"):
            read_all(folder)
    part.unlink()
    with pytest.raises(SchemaError, match="part 'part-00000.parquet' is missing"):
        read_all(folder)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_a_cut_parquet_file_is_named_also_without_its_hash(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=f"not a complete Parquet file .{len(content)} bytes"):
        folders.read_table(path, records.ARROW_SCHEMA)


def test_wrong_columns_are_all_named(tmp_path):
    path = tmp_path / "x.parquet"
    folders.write_table(path, pa.table({"question": [1], "extra": ["a"]}))
    with pytest.raises(SchemaError) as error:
        folders.read_table(path, records.ARROW_SCHEMA)
    for words in ("missing 'example_id'", "unknown 'extra'", "'question' should be string, is int"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "reads version 1 .* got version 99"),
        ({"schema": "other"}, "expected schema 'teacher_records', got 'other'"),
        ({"shards": None}, "expected a list 'shards'"),
    ],
)
def test_wrong_info_files_are_named(tmp_path, change, message):
    folder = folder_of(tmp_path)
    info = folders.read_info(folder, records.NAME)
    folders.write_json(folder / "teacher_info.json", info | change)
    with pytest.raises(SchemaError, match=message):
        folders.read_info(folder, records.NAME)


def test_unfinished_and_absent_folders_are_told_apart(tmp_path):
    with pytest.raises(SchemaError, match="which is unfinished or holds something else"):
        folders.read_info(tmp_path, records.NAME)
    with pytest.raises(SchemaError, match="which is no folder"):
        folders.read_info(tmp_path / "absent", records.NAME)


def test_unwritable_output_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SchemaError, match="cannot write to output folder"):
        folders.make_folder(tmp_path / "file" / "below")


def test_finished_records_are_not_overwritten(tmp_path):
    folder = folder_of(tmp_path)
    with pytest.raises(SchemaError, match="already holds teacher records"):
        folder_of(tmp_path)
    assert read_all(folder)


@pytest.mark.parametrize(
    ("schema", "content", "message"),
    [
        ("teacher_records", {}, "missing 'rows'; got keys"),
        (
            "teacher_records",
            {"rows": 1, "shards": [{"file": "x"}]},
            "entry 0 of 'shards': missing 'rows', 'sha256'; got keys",
        ),
        ("teacher_records", {"rows": 1, "shards": ["x"]}, "entry 0 of 'shards': missing 'file'"),
        (
            "aligned_examples",
            {"student_tokenizer": {"file": "x"}},
            "missing 'k_out', 'student_tokenizer.sha256', 'student_tokenizer.vocab_size'",
        ),
        ("packed_rows", {"lengths": {"inputs": 4}, "k": 1}, "missing 'lengths.targets', 'vocab_s"),
        (
            "packed_rows",
            {
                "lengths": {"inputs": 4, "targets": 4},
                "k": 1,
                "vocab_size": 9,
                "shards": [{"file": "x", "rows": 1, "sha256": ""}],
            },
            "entry 0 of 'shards': missing 'split'",
        ),
    ],
)
def test_an_info_file_without_a_key_is_named(tmp_path, schema, content, message):
    path = tmp_path / folders.INFO_FILES[schema]
    folders.write_json(path, {"schema": schema, "version": 1, "shards": [], **content})
    with pytest.raises(SchemaError, match=f"{path}'.*{message}"):
        folders.read_info(tmp_path, schema)
