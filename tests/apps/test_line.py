"""The line from records to a report, each station by its own command, on made-up data."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from specialize_jax.apps import run_end
from specialize_jax.schemas import Format, folders
from specialize_jax.training import checkpoints, metrics
from tests.apps.line import FIXTURES, gin, run, write_data
from tests.fixtures import world

TINY = "--gin_file=testing/tiny.gin"


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """All stations once; tests look at what they wrote."""
    root = tmp_path_factory.mktemp("line")
    data = write_data(root / "data")
    aligned, packed = root / "aligned", root / "packed"
    assert run("import", "--source=gsm8k", f"--data_dir={data}", f"--out={root / 'records'}") == 0
    records = [f"--records={root / 'records' / 'gsm8k'}"]
    records += [f"--records={FIXTURES / 'teacher_records'}"]
    tokenizer = f"--student_tokenizer={world.TOKENIZER}"
    assert run("align", *records, tokenizer, "--k_out=4", f"--out={aligned}") == 0
    assert run("pack", TINY, gin("ALIGNED_DIRS", (str(aligned),)), f"--out={packed}") == 0
    train = [TINY, gin("MODEL_DIR", str(root / "model")), gin("PACKED_DIR", str(packed))]
    train += [gin("EVAL_ACCURACY_QUESTIONS", 2), f"--data_dir={data}"]
    assert run("train", *train) == 0
    evaluate = [TINY, gin("MODEL_DIR", str(root / "model")), f"--data_dir={data}"]
    assert run("evaluate", *evaluate, gin("EVAL_CHECKPOINTS", "all")) == 0
    shown = [root / "records" / "gsm8k", aligned, packed, root / "model"]
    assert run("report", *shown, f"--out={root / 'report'}") == 0
    return root


def test_every_folder_verifies(line, capsys):
    for name in ("records/gsm8k", "aligned", "packed", "model"):
        assert run("verify", line / name) == 0
        assert "ok:" in capsys.readouterr().out


def test_alignment_info_counts_every_position(line):
    info = json.loads((line / "aligned" / "alignment_info.json").read_text())
    human = info["by_source"][str(line / "records" / "gsm8k")]
    assert human["coverage"] == 0 and set(human["reasons"]) == {"no_logprobs"}
    assert 0 < info["coverage"] < 1 and 0.5 < info["retained_mass"] <= 1
    transferred = round(info["coverage"] * info["cot_tokens"])
    assert sum(info["reasons"].values()) + transferred == info["cot_tokens"]
    assert info["examples"][0]["coverage"] <= info["examples"][-1]["coverage"]


def test_packed_has_all_formats_and_no_validation_question_in_training(line):
    info = folders.read_info(line / "packed", "packed_rows")
    assert len(info["splits"]["train"]["formats"]) == 4
    assert len(info["validation_ids"]) == 2
    assert {entry["epoch"] for entry in info["shards"] if entry["split"] == "train"} == {0, 1}


def test_metrics_read_as_one_run_and_the_loss_falls(line):
    lines = [
        json.loads(text) for text in (line / "model" / "metrics.jsonl").read_text().splitlines()
    ]
    train = [entry for entry in lines if entry["split"] == "train"]
    held_out = [entry for entry in lines if entry["split"] == "validation"]
    assert [entry["step"] for entry in train] == [2, 4, 6, 8]
    assert [entry["step"] for entry in held_out] == [4, 8]
    assert train[-1]["loss"] < train[0]["loss"]
    assert train[-1]["kl_loss"] is not None and 0 < train[-1]["coverage"] < 1


def test_held_out_lines_have_accuracies_of_the_trained_formats(line):
    lines = map(json.loads, (line / "model" / "metrics.jsonl").read_text().splitlines())
    for entry in (entry for entry in lines if entry["split"] == "validation"):
        found = {name: value for name, value in entry.items() if name.startswith("accuracy/")}
        chains = {f"accuracy/{way}_chain_of_thought" for way in ("zero_shot", "in_context")}
        assert set(found) == chains and set(found.values()) <= {0, 0.5, 1}


def test_every_checkpoint_is_scored_on_every_set(line):
    for step in (4, 8):
        [path] = (line / "model" / "eval" / str(step)).glob("results_*.json")
        value = json.loads(path.read_text())
        tasks = {f"{name}_zero_shot_chain_of_thought" for name in ("gsm8k", "multiarith")}
        tasks |= {f"{name}_zero_shot_chain_of_thought" for name in ("asdiv", "svamp")}
        assert set(value["results"]) == tasks
        assert value["config"]["step"] == step
        assert {config["contaminated"] for config in value["configs"].values()} == {0}
        for row in value["results"].values():
            assert {"exact_match,corrected", "exact_match,fu2023"} <= set(row)


def test_a_finished_run_says_so(line):
    assert json.loads((line / "model" / "finished.json").read_text()) == {"step": 8}
    assert run_end.read(line / "model") == "the run is finished"


def test_the_report_shows_the_run(line):
    page = (line / "report" / "index.html").read_text()
    assert "fixture teacher" in page and "multiarith" in page
    assert json.loads((line / "report" / "report.json").read_text())["problems"] == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EVAL_FORMATS", ("few_shot",), "unknown format 'few_shot'; choices: zero_shot_answer"),
        ("EVAL_FORMATS", ("in_context_chain_of_thought",), "name a prompt file .EVAL_EXEMPLARS"),
        ("EVAL_SETS", ("mmlu",), "mmlu"),
        ("EVAL_CHECKPOINTS", (5,), r"no checkpoints \[5\] in .*; choices: \[4, 8\]"),
        (
            "EVAL_CHECKPOINTS",
            "best",
            "expected 'last', 'all', 'new' or a list of steps, got 'best'",
        ),
        ("EVAL_CHECKPOINTS", (), r"'new' or a list of steps, got \(\)"),
        ("EVAL_MAJ_K", (8,), "EVAL_MAJ_K: expected numbers from 1 to EVAL_SAMPLES=1, got .8,."),
        ("EVAL_BATCH_SIZE", 0, "a batch of at least 1 row, got 0"),
        ("EVAL_SELECT_BY", "luck", "EVAL_SELECT_BY: expected one of out_of_.*, got 'luck'"),
        ("EVAL_PROMPT_MODE", "faulty", "unknown mode 'faulty' of prompts; choices: corrected"),
        ("EVAL_INPUT_LENGTH", 16, "3 of 3 prompts are not asked.*; EVAL_INPUT_LENGTH allows 16"),
    ],
)
def test_bad_evaluation_settings_are_named(line, tmp_path, capsys, name, value, message):
    # On a copy: what was answered before is not asked again, and so would not be too long.
    shutil.copytree(line / "model", tmp_path / "model", ignore=shutil.ignore_patterns("eval"))
    model = gin("MODEL_DIR", str(tmp_path / "model"))
    assert run("evaluate", TINY, model, f"--data_dir={line / 'data'}", gin(name, value)) == 1
    assert re.search(message, capsys.readouterr().err)


def test_answers_of_another_checkpoint_are_not_reused(line, tmp_path, capsys):
    shutil.copytree(line / "model", tmp_path / "model")
    checkpoints_dir = tmp_path / "model" / "checkpoints"
    shutil.rmtree(checkpoints_dir / "8")
    shutil.copytree(checkpoints_dir / "4", checkpoints_dir / "8")
    model = gin("MODEL_DIR", str(tmp_path / "model"))
    assert run("evaluate", TINY, model, f"--data_dir={line / 'data'}") == 1
    assert "holds answers of another checkpoint" in capsys.readouterr().err


def test_a_missing_set_is_named(line, tmp_path, capsys):
    model = gin("MODEL_DIR", str(line / "model"))
    assert run("evaluate", TINY, model, f"--data_dir={tmp_path}") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "gsm8k" / "test.jsonl") in error and "--data_dir" in error


def test_in_context_prompts_from_a_file(line, tmp_path):
    exemplars = tmp_path / "prompt.txt"
    blocks = [f"Q: {q}\nLet's think step by step\n{c}" for q, c, _ in map(world.problem, range(2))]
    exemplars.write_text("\n\n".join(blocks))
    arguments = [gin("MODEL_DIR", str(line / "model")), f"--data_dir={line / 'data'}"]
    arguments += [gin("EVAL_FORMATS", ("in_context_chain_of_thought",))]
    arguments += [gin("EVAL_EXEMPLARS", str(exemplars)), gin("EVAL_SETS", ("gsm8k",))]
    assert run("evaluate", TINY, *arguments) == 0
    path = max((line / "model" / "eval" / "8").glob("results_*.json"))
    value = json.loads(path.read_text())
    assert value["n-shot"] == {"gsm8k_in_context_chain_of_thought": 2}
    path.unlink()


def test_a_finished_folder_is_left_alone(line, capsys):
    before = (line / "packed" / "packed_info.json").read_bytes()
    arguments = [gin("ALIGNED_DIRS", (str(line / "aligned"),)), f"--out={line / 'packed'}"]
    assert run("pack", TINY, *arguments) == 0
    assert "already packed" in capsys.readouterr().out
    assert (line / "packed" / "packed_info.json").read_bytes() == before


def test_alignment_resumes_by_part(line, tmp_path):
    shutil.copytree(line / "aligned", tmp_path / "aligned")
    (tmp_path / "aligned" / "alignment_info.json").unlink()
    (tmp_path / "aligned" / "part-00002.parquet").unlink()
    kept = (tmp_path / "aligned" / "part-00001.parquet").stat().st_mtime_ns
    records = [f"--records={line / 'records' / 'gsm8k'}"]
    records += [f"--records={FIXTURES / 'teacher_records'}"]
    tokenizer = f"--student_tokenizer={world.TOKENIZER}"
    out = f"--out={tmp_path / 'aligned'}"
    assert run("align", *records, tokenizer, "--k_out=4", out) == 0
    assert (tmp_path / "aligned" / "part-00001.parquet").stat().st_mtime_ns == kept
    for name in ("part-00002.parquet", "alignment_info.json"):
        again, first = (folder / "aligned" / name for folder in (tmp_path, line))
        assert again.read_bytes() == first.read_bytes()


def test_packing_again_gives_the_same_bytes(line, tmp_path):
    again = tmp_path / "packed"
    assert run("pack", TINY, gin("ALIGNED_DIRS", (str(line / "aligned"),)), f"--out={again}") == 0
    first, second = (folders.read_info(f, "packed_rows") for f in (line / "packed", again))
    assert first["shards"] == second["shards"]


def params_of(model_dir, step):
    folder = model_dir / "checkpoints" / str(step) / "params"
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder.absolute())


def test_kill_nine_and_the_same_command_again_give_the_same_parameters(line, tmp_path):
    """The uninterrupted run is the one of `line`; this one dies after its first checkpoint."""
    import jax

    model = tmp_path / "model"
    command = [sys.executable, "-m", "specialize_jax.apps.main", "train", TINY]
    command += [gin("MODEL_DIR", str(model)), gin("PACKED_DIR", str(line / "packed"))]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    # Long enough that the kill comes in the middle.
    process = subprocess.Popen([*command, gin("TRAIN_STEPS_RELATIVE", 4000)], env=environment)
    deadline = time.monotonic() + 240
    while checkpoints.latest_step(model / "checkpoints") is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Checkpoints behind the end of the uninterrupted run would make the next run do nothing.
    for step in checkpoints.all_steps(model / "checkpoints"):
        if step > 4:
            shutil.rmtree(model / "checkpoints" / str(step))
    assert subprocess.run(command, env=environment).returncode == 0
    expected, got = (jax.tree.leaves(params_of(m, 8)) for m in (line / "model", model))
    assert len(expected) == len(got) > 10
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one, other)

    def values(folder):
        lines = [metrics.untimed(line) for line in metrics.read(folder / "metrics.jsonl")]
        # `line` has asked held-out questions besides.
        return [{k: v for k, v in line.items() if not k.startswith("accuracy")} for line in lines]

    assert values(model) == values(line / "model")


def test_nan_leaves_the_state_before_it_and_names_the_examples(line, tmp_path, capsys):
    settings = [TINY, gin("MODEL_DIR", str(tmp_path)), gin("PACKED_DIR", str(line / "packed"))]
    assert run("train", *settings, gin("LEARNING_RATE", 1e30)) == 1
    error = capsys.readouterr().err
    found = re.search(r"is nan at step (\d+)(?: \(not finite: .*?\))?\. The update was not", error)
    assert found, error
    step = int(found[1])
    assert checkpoints.all_steps(tmp_path / "checkpoints")[-1] == step - 1
    left = json.loads((tmp_path / f"stopped_at_{step}.json").read_text())
    names = [name for row in left["rows"].values() for name in row]
    assert list(left["rows"]) == [str(2 * step - 2), str(2 * step - 1)]
    assert f"were its batch: {names[0]}" in error
    parts = (line / "aligned").glob("*.parquet")
    known = {name for part in parts for name in pq.read_table(part)["example_id"].to_pylist()}
    assert names and {name.split(" (")[0] for name in names} <= known
    assert {name.split(" (")[1][:-1] for name in names} <= {fmt.label for fmt in Format}
