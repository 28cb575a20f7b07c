"""The job on Apache Beam's DirectRunner leaves the same files as without Beam."""

import importlib
import shutil
import sys

import pytest

from specialize_jax import data
from specialize_jax.data.aligning import job
from specialize_jax.schemas import folders, records
from tests.apps.line import FIXTURES, run
from tests.fixtures import world

RECORDS = FIXTURES / "teacher_records"


def align(out, *more, source=RECORDS):
    return run(
        "align",
        f"--records={source}",
        f"--student_tokenizer={world.TOKENIZER}",
        f"--out={out}",
        *more,
    )


def contents(folder):
    """Returns the files of a folder but the one that holds command and date."""
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    there.pop("align_provenance.json", None)
    return there


@pytest.fixture
def beam_pipeline():
    pytest.importorskip(
        "apache_beam", reason="Beam wants an older pyarrow than constraints.txt: make test-beam"
    )
    return importlib.import_module("specialize_jax.data.beam_pipeline")


def test_without_beam_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "specialize_jax.data.beam_pipeline", raising=False)
    monkeypatch.delattr(data, "beam_pipeline", raising=False)
    assert align(tmp_path / "out", "--runner=beam") == 1
    assert "pip install 'specialize_jax[beam]'" in capsys.readouterr().err


def test_options_without_beam_are_refused(tmp_path, capsys):
    assert align(tmp_path / "out", "--pipeline_options=--runner=DirectRunner") == 1
    assert "--pipeline_options: is for --runner beam" in capsys.readouterr().err


# Processes of their own get the work pickled, and load everything anew.
@pytest.mark.parametrize(
    "more",
    [
        "",
        pytest.param(
            "--direct_num_workers=2 --direct_running_mode=multi_processing", marks=pytest.mark.slow
        ),
    ],
    ids=["one process", "processes"],
)
def test_the_files_are_the_same(beam_pipeline, tmp_path, more):
    options = f"--runner=DirectRunner {more}"
    assert align(tmp_path / "beam", "--runner=beam", f"--pipeline_options={options}") == 0
    assert align(tmp_path / "local") == 0
    assert len(contents(tmp_path / "beam")) == 4
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_beam_itself_makes_the_parts_and_leaves_bad_ones_out(beam_pipeline, tmp_path, caplog):
    source = shutil.copytree(RECORDS, tmp_path / "records")
    damaged = source / "part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    settings = job.Settings.load(mode="one_to_one", k_out=8, student_tokenizer=str(world.TOKENIZER))
    info = folders.read_info(source, records.NAME)
    (tmp_path / "out").mkdir()
    parts = [
        beam_pipeline.Part(
            str(source / entry["file"]), str(tmp_path / "out" / entry["file"]), entry["sha256"]
        )
        for entry in info["shards"]
    ]
    beam_pipeline.align_parts(parts, settings, ["--runner=DirectRunner"])
    assert "left out: '" in caplog.text and "SHA-256 mismatch" in caplog.text
    assert align(tmp_path / "local") == 0
    expected = contents(tmp_path / "local")["part-00001.parquet"]
    assert contents(tmp_path / "out") == {"part-00001.parquet": expected}


def test_a_bad_part_fails_in_one_line(beam_pipeline, tmp_path, capsys):
    source = shutil.copytree(RECORDS, tmp_path / "records")
    damaged = source / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert align(tmp_path / "out", "--runner=beam", source=source) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and "SHA-256 mismatch" in lines[0]
    assert "part-00000.parquet" in contents(tmp_path / "out")
    assert not (tmp_path / "out" / "alignment_info.json").exists()
