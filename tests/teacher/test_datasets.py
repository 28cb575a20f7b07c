"""Hugging Face's `datasets`, where it is installed, reads what we write, and we what it writes."""

import json

import pytest

from specialize_jax.schemas import folders, records
from specialize_jax.teacher.importers import files
from tests.fixtures import world

datasets = pytest.importorskip("datasets", reason="`datasets` is not installed")
FOLDER = world.HERE / "teacher_records"


def load(tmp_path):
    """The line of docs/teachers.md."""
    return datasets.load_dataset(
        "parquet", data_files=f"{FOLDER}/part-*.parquet", split="train", cache_dir=str(tmp_path)
    )


def test_records_load_with_bytes_and_lists_of_lists(tmp_path):
    info = folders.read_info(FOLDER, records.NAME)
    parts = folders.read_parts(FOLDER, info, records.ARROW_SCHEMA)
    expected = [row for _, table in parts for row in table.to_pylist()]
    assert list(load(tmp_path)) == expected


def test_what_it_saves_is_read(tmp_path):
    rows = [{"question": f"{i}?", "messages": [{"role": "user", "content": "é"}]} for i in range(5)]
    made = datasets.Dataset.from_list(rows)
    made.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    made.to_parquet(str(tmp_path / "a.parquet"))
    made.to_json(str(tmp_path / "a.jsonl"), force_ascii=False)
    for name in ("saved", "a.parquet", "a.jsonl"):
        assert [json.loads(json.dumps(row)) for _, row in files.read(tmp_path / name)] == rows
