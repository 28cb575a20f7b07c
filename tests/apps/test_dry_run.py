"""A dry run says what a run will do, and leaves nothing behind."""

import re

from specialize_jax.data.packed import PackedRows
from tests.apps.line import FIXTURES, gin, run

PACKED = FIXTURES / "packed_rows"


def test_a_dry_run_counts_measures_and_writes_nothing(tmp_path, capsys):
    arguments = [gin("PACKED_DIR", str(PACKED)), gin("MODEL_DIR", str(tmp_path / "model"))]
    arguments += [gin("BATCH_SIZE", 4), gin("TRAIN_STEPS_RELATIVE", 50)]
    assert run("train", "--dry_run", "--gin_file=testing/tiny.gin", *arguments) == 0
    assert not list(tmp_path.iterdir())
    printed = capsys.readouterr().out
    rows = PackedRows(PACKED, "train", batch_rows=4)
    passes = 50 * 4 / len(rows)
    assert f"50 steps of 4 rows: {passes:.2f} passes over {len(rows)} rows" in printed
    tokens = rows.info["splits"]["train"]["encoder_tokens"] * passes
    assert f"{tokens:,.0f} encoder" in printed
    assert re.search(r"memory of each of 1 device\(s\): 0\.\d+ GiB state", printed)
    each, total = re.search(r"took ([\d.]+) s .* all steps: 0:(\d\d:\d\d)", printed).groups()
    minutes, seconds = map(int, total.split(":"))
    assert abs(minutes * 60 + seconds - 50 * float(each)) <= 1


def test_without_packed_rows_nothing_is_packed(tmp_path, capsys):
    arguments = [gin("PACKED_DIR", None), gin("MODEL_DIR", str(tmp_path / "model"))]
    assert run("train", "--dry_run", "--gin_file=testing/tiny.gin", *arguments) == 1
    assert "packed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
