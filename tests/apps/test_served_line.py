"""The whole way of a student that teaches another: served, asked over HTTP, killed, and learned.

By hand: `python -m pytest -m long -s tests/apps/test_served_line.py` (a few minutes).
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from specialize_jax.schemas import folders, records
from specialize_jax.teacher.journal import Journal
from specialize_jax.training import metrics
from tests.apps.line import gin, run

COMMAND = [sys.executable, "-m", "specialize_jax.apps.main"]
QUICK = "--gin_file=experiments/quickstart.gin"
STEPS, SAMPLES = 240, 4
# A smaller quickstart, without its first training.
SMALL = [
    QUICK,
    "--gin.miniworld.train_questions.count=240",
    gin("NUM_SAMPLES", 2),
    gin("VALIDATION", 20),
    gin("EXAMPLES_PER_EPOCH", 1500),
    gin("EVAL_ACCURACY_QUESTIONS", 0),
    gin("CHECKPOINT_FIRST", False),
]


def settings(folder, **macros):
    """Flags of `pack` and `train` in a folder that holds `aligned`."""
    paths = {"ALIGNED_DIRS": (str(folder / "aligned"),), "PACKED_DIR": str(folder / "packed")}
    paths |= {"MODEL_DIR": str(folder / "student"), **macros}
    return [*SMALL, *(gin(name, value) for name, value in paths.items())]


def learn(folder, records_folder, tokenizer, steps):
    """Records to a trained student: align, pack, train; returns what alignment says."""
    aligned = [f"--records={records_folder}", f"--student_tokenizer={tokenizer}"]
    assert run("align", *aligned, "--mode=marginal", f"--out={folder / 'aligned'}") == 0
    assert run("pack", *settings(folder), f"--out={folder / 'packed'}") == 0
    periods = {"EVAL_PERIOD": steps, "CHECKPOINT_PERIOD": steps, "LOG_PERIOD": 10}
    assert run("train", *settings(folder, TRAIN_STEPS_RELATIVE=steps, **periods)) == 0
    return json.loads((folder / "aligned" / "alignment_info.json").read_text())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A student of the exact teacher of the miniworld, with its questions and its prompt."""
    root = tmp_path_factory.mktemp("teacher")
    assert run("collect", *SMALL, f"--out={root / 'records'}") == 0
    tokenizer = root / "student.model"
    made = [f"--records={root / 'records'}", "--model_type=bpe", "--vocab_size=256"]
    assert run("tokenizer", *made, f"--out={tokenizer}") == 0
    learn(root, root / "records", tokenizer, STEPS)
    info = folders.read_info(root / "records", records.NAME)
    tables = folders.read_parts(root / "records", info, records.ARROW_SCHEMA)
    asked = {row["example_id"]: row for _, table in tables for row in table.to_pylist()}
    with (root / "questions.jsonl").open("w") as file:
        for id_, row in asked.items():
            line = {"id": id_, "question": row["question"], "answer": row["gold_answer"]}
            file.write(json.dumps(line) + "\n")
    (root / "prompt.txt").write_text("Q: {question}\nLet's think step by step")
    return root


@pytest.fixture(scope="module")
def served(teacher):
    """The address of the student, which another process serves."""
    argv = ["serve", f"--checkpoint={teacher / 'student'}", "--port=0", "--max_length=64"]
    process = subprocess.Popen(
        [*COMMAND, *argv, "--input_length=192"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = process.stdout.readline()
    yield re.search(r"http://\S+", said)[0]
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")  # of the client that was killed it says nothing


def collect(teacher, url, out):
    flags = {"base_url": url, "model": "t5_1_1_tiny", "questions": teacher / "questions.jsonl"}
    flags |= {"prompt": teacher / "prompt.txt", "samples": SAMPLES, "temperature": 0.7}
    flags |= {"max_tokens": 64, "samples_per_request": 2, "concurrency": 8, "out": out}
    return [*COMMAND, "collect", *(f"--{name}={value}" for name, value in flags.items())]


def kept(out):
    with Journal(out / "requests" / "journal.jsonl") as journal:
        return len(journal)


@pytest.mark.long
def test_a_student_teaches_another_over_http(teacher, served, tmp_path):
    out = tmp_path / "records"
    count = len((teacher / "questions.jsonl").read_text().splitlines()) * SAMPLES
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    command, journal = collect(teacher, served, out), out / "requests" / "journal.jsonl"
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 300
    while not journal.exists() or journal.read_bytes().count(b"\n") < count // 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = kept(out)
    assert 0 < before < count
    assert subprocess.run(command, env=environment).returncode == 0
    # Every (question, sample) once, and none that was there asked again.
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    pairs = [(line["question"], n) for line in lines for n in line.get("samples", ())]
    assert len(pairs) == len({*pairs}) == count == kept(out)
    info = folders.read_info(out, records.NAME)
    assert info["answers"] == {"wanted": count, "there": count}
    assert info["rows"] + sum(info["dropped"].values()) == count
    assert info["logprobs_temperature"] == 1.0 and info["k"] == 5
    assert run("verify", out) == 0
    found = learn(tmp_path, out, teacher / "student.model", 100)
    assert found["coverage"] > 0.99, found["reasons"]
    lines = metrics.read(tmp_path / "student" / "metrics.jsonl")
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0]
    sets = [gin("EVAL_SETS", ("miniworld_stories",)), gin("EVAL_CHECKPOINTS", "last")]
    sets += ["--gin.miniworld.Settings.test_questions=50"]
    assert run("evaluate", *settings(tmp_path), *sets) == 0
    (path,) = (tmp_path / "student" / "eval").glob("*/results_*.json")
    rows = json.loads(path.read_text())["results"]
    scores = {name: row["exact_match,corrected"] for name, row in rows.items()}
    print(f"{info['rows']} of {count} kept, {before} there at the kill; {losses[0]:.3f} to")
    print(f"{losses[-1]:.3f}; coverage {found['coverage']:.4f}; {scores}")
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores.values())
