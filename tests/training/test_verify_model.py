"""`verify` of what training and evaluation leave: checkpoints, metrics, results."""

import pytest

from specialize_jax.apps import main
from specialize_jax.training import checkpoints, manifest
from tests.fixtures import world
from tests.training import damage, toy


@pytest.fixture
def model_dir(tmp_path):
    with checkpoints.Checkpoints(tmp_path / "checkpoints", config={"model": "toy"}) as saved:
        for step in range(4):
            state = toy.start("adafactor")
            saved.save(state._replace(step=state.step + step), data_state={})
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    return tmp_path


def fails(folder, capsys):
    assert main.main(["verify", str(folder)]) != 0
    return capsys.readouterr().err


def test_a_model_dir_without_evaluation(model_dir, capsys):
    assert main.main(["verify", str(model_dir)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 lines of metrics checked",
        *(f"checkpoint {step}: ok" for step in range(4)),
        "4 checkpoints checked",
        f"ok: {model_dir}",
    ]


@damage.noisy
def test_a_damaged_checkpoint_is_named(model_dir, capsys):
    damage.cut_data_short(model_dir / "checkpoints" / "2")
    assert f"{model_dir}/checkpoints/2 is damaged" in fails(model_dir, capsys)
    # Without a manifest, by reading it.
    (model_dir / "checkpoints" / "2" / manifest.NAME).unlink()
    assert f"{model_dir}/checkpoints/2 cannot be read" in fails(model_dir, capsys)
    damage.wait_for_noise()


def test_a_flipped_byte_is_named_with_its_file(model_dir, capsys):
    damage.flip_optimizer(model_dir / "checkpoints" / "2")
    assert "checkpoints/2/optimizer/" in (said := fails(model_dir, capsys))
    assert "SHA-256 mismatch" in said


def test_a_checkpoint_without_a_manifest_is_said_to_be(model_dir, capsys):
    (model_dir / "checkpoints" / "2" / manifest.NAME).unlink()
    assert main.main(["verify", str(model_dir)]) == 0
    out = capsys.readouterr().out
    assert "checkpoint 2: ok (parameters alone: no manifest)" in out
    assert "checkpoint 3: ok\n" in out


def test_a_broken_line_of_metrics_is_named(model_dir, capsys):
    (model_dir / "metrics.jsonl").write_text('{"step": 1}\n{"st\n')
    assert "metrics.jsonl' line 2: expected JSON" in fails(model_dir, capsys)


def test_results_beside_checkpoints_are_checked_too(model_dir, capsys):
    [path, *_] = sorted((world.HERE / "results").rglob("results_*.json"))
    folder = model_dir / "eval" / "2"
    folder.mkdir(parents=True)
    (folder / path.name).write_bytes(path.read_bytes())
    assert main.main(["verify", str(model_dir)]) == 0
    out = capsys.readouterr().out
    assert "4 checkpoints checked" in out and "1 results files checked" in out
    (folder / path.name).write_text("{")
    assert f"{path.name}': expected JSON" in fails(model_dir, capsys)


def test_a_report_holds_nothing_to_verify(tmp_path, capsys):
    for name in ("report.json", "index.html"):
        (tmp_path / name).write_text("{}")
    assert "is a report and holds nothing to verify" in fails(tmp_path, capsys)


def test_packed_rows_without_a_tokenizer_are_named(tmp_path, capsys):
    content = '{"schema": "packed_rows", "version": 1, "shards": [], "k": 1, "vocab_size": 9,'
    content += ' "lengths": {"inputs": 4, "targets": 4}, "splits": {}}'
    (tmp_path / "packed_info.json").write_text(content)
    assert "missing 'student_tokenizer.file'" in fails(tmp_path, capsys)
