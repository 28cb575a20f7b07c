"""The quickstart on a very small world: its stages, interruptions, and what it refuses."""

import fcntl
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from specialize_jax.apps import quickstart
from specialize_jax.schemas import folders
from specialize_jax.training import metrics
from tests.apps.line import run

# Everything is there, and nothing takes long. What it learns is of no matter here.
SMALL = [
    "--gin.miniworld.train_questions.count=24",
    "--gin.NUM_SAMPLES=2",
    "--gin.VALIDATION=2",
    "--gin.EXAMPLES_PER_EPOCH=60",
    "--gin.BATCH_SIZE=4",
    "--gin.MIN_COVERAGE=0.3",
    "--gin.TRAIN_STEPS_RELATIVE=6",
    "--gin.WARMUP_STEPS=2",
    "--gin.EVAL_PERIOD=3",
    "--gin.CHECKPOINT_PERIOD=3",
    "--gin.LOG_PERIOD=1",
    "--gin.EVAL_ACCURACY_QUESTIONS=0",
    "--gin.EVAL_BATCH_SIZE=8",
    "--gin.MAX_DECODE_LENGTH=8",
    "--gin.miniworld.Settings.test_questions=8",
    "--gin.miniworld.Settings.test_questions_ood=4",
    "--gin.miniworld.Settings.test_questions_generic=4",
]
# In the order of the stages: how the run is stopped, and when, by what is there by then.
KILLS = [
    (signal.SIGKILL, "records/teacher_info.json"),
    (signal.SIGINT, "generic/student/checkpoints/3"),
    (signal.SIGKILL, "student/eval/0/checkpoint.json"),
]


def numbers(out: pathlib.Path) -> dict:
    """What a run must give again: accuracies, losses, and the settings, without paths and times."""
    value = json.loads((out / "results.json").read_text())
    lines = [metrics.untimed(line) for line in metrics.read(out / "student" / "metrics.jsonl")]
    hashes = [
        entry["sha256"]
        for part, schema in (("records", "teacher_records"), ("aligned", "aligned_examples"))
        for entry in folders.read_info(out / part, schema)["shards"]
    ]
    return {"families": value["families"], "metrics": lines, "hashes": hashes}


def start(out: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "specialize_jax.apps.main", "quickstart", f"--out={out}"]
    return subprocess.Popen(
        [*command, *SMALL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "out"
    done = start(out)
    text = done.communicate()[0].decode()
    assert done.returncode == 0, text[-3000:]
    return out, text


def test_results_hold_every_family_before_and_after(finished):
    out, text = finished
    value = json.loads((out / "results.json").read_text())
    assert len(value["families"]) == 8
    for name, family in value["families"].items():
        for prompt in ("zero_shot", "in_context"):
            row = family[prompt]
            assert row["n"] == (8 if name == "stories" else 4)
            for when in ("before", "after"):
                low, high = row["interval"][when]
                assert 0 <= low <= row[when] <= high <= 1 and high - low > 0.2
    assert value["steps"] == {"before": 0, "after": 6}
    assert value["versions"]["jax"] and value["seconds"].keys() == {
        stage.name for stage in quickstart.stages("x")
    }
    assert "max_number = 20" in value["settings"]["collect.gin"]
    assert str(out / "report" / "index.html") in text and "stories " in text
    assert (out / "report" / "index.html").exists()


def test_every_stage_is_printed_as_a_command_that_runs(finished):
    out, text = finished
    shown = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert [shlex.split(line)[1:] for line in shown] == [
        stage.argv for stage in quickstart.stages(str(out), SMALL)
    ]
    # One by hand, from what was printed: it says that all is done.
    argv = next(shlex.split(line) for line in shown if line.startswith("specialize-jax collect"))
    assert run(*argv[1:]) == 0


def test_again_says_done_and_runs_nothing(finished, capfd):
    out, _ = finished
    before = numbers(out)
    assert run("quickstart", f"--out={out}", *SMALL) == 0
    text = capfd.readouterr().out
    assert text.count(": done before, ") == len(quickstart.stages("x")) and "$ " not in text
    assert "all of it was done before" in text
    assert numbers(out) == before


@pytest.mark.long
def test_stopped_at_three_stages_it_gives_the_same_numbers(finished, tmp_path):
    out = tmp_path / "out"
    for how, product in KILLS:
        process = start(out)
        deadline = time.monotonic() + 240
        while not (out / product).exists() and process.poll() is None:
            assert time.monotonic() < deadline, product
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[0].decode()[-3000:]
        # Ctrl-C reaches the whole group; a kill reaches the parent alone.
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
        text = process.communicate()[0].decode()
        assert process.returncode == (130 if how == signal.SIGINT else -how), text[-2000:]
    process = start(out)
    text = process.communicate()[0].decode()
    assert process.returncode == 0, text[-3000:]
    assert text.count("done before") >= 7
    assert numbers(out) == numbers(finished[0])


def test_other_settings_another_version_and_foreign_folders_are_refused(finished, tmp_path, capfd):
    out, _ = finished
    before = numbers(out)
    assert run("quickstart", f"--out={out}") == 1
    error = capfd.readouterr().err
    assert "--gin.NUM_SAMPLES=2" in error and "--fresh starts over" in error
    notes = json.loads((out / "quickstart.json").read_text())
    old = tmp_path / "old"
    old.mkdir()
    (old / "quickstart.json").write_text(json.dumps(notes | {"version": "0.0.1"}))
    assert run("quickstart", f"--out={old}", *SMALL) == 1
    assert "version: 0.0.1 there" in capfd.readouterr().err
    # A wrong flag is said before --fresh removes anything.
    assert run("quickstart", f"--out={out}", "--fresh", *SMALL, "--gin.MAXNUMBER=3") == 1
    error = capfd.readouterr().err
    assert "no gin file has these macros: MAXNUMBER" in error and "nothing was done" in error
    assert run("quickstart", "--out=") == 1
    assert "got an empty name" in capfd.readouterr().err
    assert numbers(out) == before
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("mine")
    for flags in ([], ["--fresh"]):
        assert run("quickstart", f"--out={foreign}", *flags) == 1
        assert "no quickstart wrote" in capfd.readouterr().err
    assert (foreign / "chapter.tex").read_text() == "mine"


def test_fresh_starts_over(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "quickstart.json").write_text("{")
    (out / "results.json").write_text("x")
    (out / "mine.txt").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (out / "records").symlink_to(tmp_path / "elsewhere")
    ran = []

    def stop(stage, inherited):
        ran.append(stage.name)
        raise ValueError("here")

    monkeypatch.setattr(quickstart, "run", stop)
    assert run("quickstart", f"--out={out}", "--fresh", *SMALL) == 1
    assert ran == ["collect_generic"]
    assert not (out / "results.json").exists() and not (out / "records").is_symlink()
    # What no quickstart writes stays.
    assert (out / "mine.txt").exists() and (tmp_path / "elsewhere").exists()


def test_damaged_notes_cost_nothing(finished, tmp_path):
    out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "quickstart.json").write_text('{"stages": {"collect": 3}}')
    process = start(copy)
    text = process.communicate()[0].decode()
    assert process.returncode == 0, text[-2000:]
    assert "already collected" in text and "already packed" in text
    assert numbers(copy) == numbers(out)


def test_a_terminated_training_does_not_count_as_done(finished, tmp_path):
    out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("student", "results.json"))
    notes = json.loads((copy / "quickstart.json").read_text())
    for name in ("pretrain", "specialize", "evaluate", "report"):
        del notes["stages"][name]
    (copy / "quickstart.json").write_text(json.dumps(notes))
    process = start(copy)
    # As soon as it can be stopped in an orderly way, and before it ends.
    for line in iter(process.stdout.readline, b""):
        if b"step 1/6" in line:
            process.terminate()
            break
    text = process.communicate()[0].decode()
    assert process.returncode == 130, text[-2000:]
    assert "pretrain" not in json.loads((copy / "quickstart.json").read_text())["stages"]


def test_other_questions_of_evaluation_keep_the_training(finished, tmp_path):
    out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    command = [sys.executable, "-m", "specialize_jax.apps.main", "quickstart", f"--out={copy}"]
    formats = "--gin.EVAL_FORMATS=('zero_shot_chain_of_thought',)"
    done = subprocess.run([*command, *SMALL, formats], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(": done before, ") == len(quickstart.stages("x")) - 1
    assert "in-context" not in done.stdout.partition("accuracy  ")[2]


def test_a_failing_stage_is_named_and_what_is_finished_stays(tmp_path, capfd):
    out = tmp_path / "out"
    assert run("quickstart", f"--out={out}", *SMALL, "--gin.NUM_SAMPLES=0") == 1
    error = capfd.readouterr().err
    assert "NUM_SAMPLES: expected at least 1, got 0" in error
    assert "stage 'collect_generic' ended with status 1" in error


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys):
    usage = quickstart.shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(quickstart.shutil, "disk_usage", lambda path: usage)
    assert run("quickstart", f"--out={tmp_path / 'deep' / 'out'}") == 1
    assert "has 1 MiB free" in capsys.readouterr().err
    assert not (tmp_path / "deep").exists()


def test_a_second_one_waits_for_the_first(tmp_path, capsys):
    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = start(tmp_path)
        assert b"waiting for another quickstart" in second.stdout.readline()
        assert not (tmp_path / "quickstart.json").exists()
        os.killpg(second.pid, signal.SIGKILL)
        second.communicate()
