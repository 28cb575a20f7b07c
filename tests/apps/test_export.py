"""`specialize-jax export` writes one file, whole or not at all."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from specialize_jax.data import exporters
from specialize_jax.schemas import aligned, folders
from tests.apps.line import FIXTURES, run

FOLDER = FIXTURES / "aligned_examples"


def export(out, *more, folder=FOLDER):
    return run("export", "--to=axolotl", folder, f"--out={out}", *more)


def test_parquet_and_json_lines_hold_every_example(tmp_path, capsys):
    assert export(tmp_path / "new" / "a.parquet") == 0
    said = capsys.readouterr().out
    assert export(tmp_path / "a.jsonl") == 0
    table = pq.read_table(tmp_path / "new" / "a.parquet")
    assert table.schema == exporters.AXOLOTL_SCHEMA
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == table.to_pylist()
    info = folders.read_info(FOLDER, aligned.NAME)
    schema = aligned.arrow_schema(info["k_out"], info["student_tokenizer"]["vocab_size"])
    parts = folders.read_parts(FOLDER, info, schema)
    examples = [row for _, part in parts for row in aligned.to_rows(part)]
    got = table.to_pylist()
    assert len(got) == len(examples) == 12
    for row, one in zip(got, examples, strict=True):
        assert [i for i in row["labels"] if i != -100] == one["targets"].tolist()
        assert sum(map(any, row["target_mask"])) == len(one["targets"])
        assert {len(entries) for entries in row["target_logprobs"]} == {4}
    transferred = round(info["coverage"] * info["cot_tokens"])
    assert f"12 examples in {tmp_path}" in said and "474 target tokens" in said
    assert f"{transferred} with the teacher's distribution" in said
    assert f"{1 - info['retained_mass']:.3f} in the tail, divided away" in said


def test_tail_and_bos_reach_the_rows(tmp_path, capsys):
    assert export(tmp_path / "a.jsonl", "--tail=drop", "--bos_id=3") == 0
    assert "in the tail, left out" in capsys.readouterr().out
    assert export(tmp_path / "b.jsonl") == 0
    first, other = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("a.jsonl", "b.jsonl")
    )
    assert [row["input_ids"] for row in first] == [[3, *row["input_ids"]] for row in other]
    assert [row["target_logprobs"][1:] for row in first] != [
        row["target_logprobs"] for row in other
    ]


@pytest.fixture
def fails(capsys):
    def call(*args, **kwargs):
        assert export(*args, **kwargs) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        return line

    return call


def test_bad_input_says_what_was_expected(fails, tmp_path):
    out = tmp_path / "a.parquet"
    assert "which is no folder" in fails(out, folder=tmp_path / "absent")
    records = FIXTURES / "teacher_records"
    assert "expected aligned_examples with 'alignment_info.json'" in fails(out, folder=records)
    assert "expected a file in .parquet or .jsonl" in fails(tmp_path / "a.csv")
    assert "bos_id must be in [0, 128), got -1" in fails(out, "--bos_id=-1")
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine")
    assert f"'{out}' exists" in fails(out)
    assert out.read_text() == "mine"


def test_an_unknown_trainer_names_the_choices(capsys, tmp_path):
    with pytest.raises(SystemExit):
        run("export", "--to=nope", FOLDER, f"--out={tmp_path / 'a.parquet'}")
    assert "'nope' (choose from" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_damaged_part_leaves_no_file(fails, tmp_path, suffix):
    folder = shutil.copytree(FOLDER, tmp_path / "aligned")
    part = folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    out = tmp_path / "out" / f"a.{suffix}"
    assert "part-00001.parquet': SHA-256 mismatch" in fails(out, folder=folder)
    assert list(out.parent.iterdir()) == []


def test_another_tokenizer_in_the_folder_is_refused(fails, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "aligned")
    (folder / "student_tokenizer.model").write_bytes(b"other")
    assert "SHA-256 mismatch" in fails(tmp_path / "a.parquet", folder=folder)
