"""The subcommand: where it writes, what it prints, and its exit status."""

import argparse
import sys

import pytest

from specialize_jax import schemas
from specialize_jax.apps import report as app
from tests.report import fixtures


def _main(*words: object) -> int:
    parser = argparse.ArgumentParser()
    app.add_arguments(parser)
    return app.main(parser.parse_args([str(word) for word in words]))


def test_writes_the_page_and_prints_where(tmp_path, capsys):
    stages = fixtures.write_run(tmp_path)
    assert _main(*stages.values(), "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert (tmp_path / "out" / "report.json").exists()


def test_damage_is_told_on_stderr_and_does_not_fail(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1,\n{"step": 2, "loss": 1.0}\n')
    assert _main(tmp_path, "--out", tmp_path / "out") == 0
    assert "metrics.jsonl, line 1" in capsys.readouterr().err
    page = (tmp_path / "out" / "index.html").read_text()
    assert "metrics.jsonl, line 1" in page


def test_an_unknown_folder_is_an_error_of_ours(tmp_path):
    with pytest.raises(schemas.SchemaError, match="looked for"):
        _main(tmp_path, "--out", tmp_path / "out")


def test_a_missing_library_is_one_line(tmp_path, capsys, monkeypatch):
    fixtures.write_json(tmp_path / "teacher_info.json", fixtures.teacher_info())
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "specialize_jax.report.page", raising=False)
    monkeypatch.delattr("specialize_jax.report.page", raising=False)
    assert _main(tmp_path, "--out", tmp_path / "out") == 1
    assert "specialize_jax[report]" in capsys.readouterr().err


def test_out_is_required(capsys):
    with pytest.raises(SystemExit):
        _main("folder")
    assert "--out" in capsys.readouterr().err
