"""No question is both trained on and scored with, unless that is allowed."""

import json

import numpy as np
import pytest

from specialize_jax.apps import earlier_run, evaluation_sets, questions
from specialize_jax.data import corpus, formats
from specialize_jax.evaluation import contamination
from tests.apps.line import FIXTURES, gin, run, write_data
from tests.fixtures import world

PACKED = FIXTURES / "packed_rows"
INFO = json.loads((PACKED / "packed_info.json").read_text())
TINY = ["--gin_file=testing/tiny.gin"]
TINY += [f"--gin.models.build.num_{part}coder_layers=1" for part in ("en", "de")]
TINY += [gin("EVAL_SETS", ("gsm8k", "multiarith")), gin("TRAIN_STEPS_RELATIVE", 1)]
ALLOWED = gin("ALLOW_CONTAMINATION", True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Public data whose GSM8K test set has a question that the fixtures train on, set anew."""
    folder = write_data(tmp_path_factory.mktemp("data"))
    hashes = questions.read_training(PACKED, INFO)
    asked = (world.problem(index)[0] for index in range(12))
    text = next(text for text in asked if contamination.fingerprint(text) in hashes)
    path = folder / "gsm8k" / "test.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"question": f" {text.upper()}", "answer": "#### 1"}) + "\n")
    return folder


def train_flags(model_dir):
    return [*TINY, gin("PACKED_DIR", str(PACKED)), gin("MODEL_DIR", str(model_dir))]


def test_training_and_evaluation_refuse_it_and_say_what_it_is(data, tmp_path, capsys):
    flags, where = train_flags(tmp_path / "model"), f"--data_dir={data}"
    line = "1 evaluation question is in the training mixture: 1 of 4 of gsm8k (gsm8k/test/3 '"
    for more in ([], ["--dry_run"]):
        assert run("train", *flags, where, *more) == 1
        assert line in capsys.readouterr().err
    assert not (tmp_path / "model" / "checkpoints").exists()

    assert run("train", *flags, where, ALLOWED) == 0
    assert f"WARNING (ALLOW_CONTAMINATION): {line}" in capsys.readouterr().out
    assert run("evaluate", *flags, where) == 1
    assert line in capsys.readouterr().err
    assert run("evaluate", *flags, where, ALLOWED) == 0
    [path] = (tmp_path / "model" / "eval" / "1").glob("results_*.json")
    configs = json.loads(path.read_text())["configs"].values()
    assert {one["dataset"]: one["contaminated"] for one in configs} == {"gsm8k": 1, "multiarith": 0}

    # A student knows what the one that it was started from was trained on.
    (tmp_path / "model" / "training_questions.json").unlink()
    evaluation_sets.keep_record(tmp_path / "model", frozenset({"earlier"}))
    found = earlier_run.trained_questions(PACKED, INFO, str(tmp_path / "model"))
    assert found == {"earlier"} | questions.read_training(PACKED, INFO)


def test_what_cannot_be_checked_is_said_and_no_error(data, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SPECIALIZE_JAX_DATA", raising=False)
    sets = evaluation_sets.Sets(("gsm8k", "mmlu", "coin_flip"), None, None)
    hashes, held_out = (
        questions.read_training(PACKED, INFO),
        questions.read_validation(PACKED, INFO),
    )
    evaluation_sets.check_training(hashes, held_out, sets, PACKED, allowed=False)
    printed = capsys.readouterr().out
    assert "not checked whether they were trained on: gsm8k (no data folder given" in printed
    assert "not checked whether they were trained on: mmlu (unknown data set" in printed
    assert "no evaluation question is in the training mixture (coin_flip_2 500, " in printed
    assert "coin_flip_4 500, validation 2)" in printed  # a group is all of its sets
    evaluation_sets.check_training(None, held_out, sets, PACKED, allowed=False)
    printed = capsys.readouterr().out
    assert f"'{PACKED}' has no 'training_questions.json'" in printed and printed.count("\n") == 1
    assert evaluation_sets.record_of(tmp_path) is None


def test_a_held_out_question_that_is_trained_on_is_refused(capsys):
    hashes = questions.read_training(PACKED, INFO)
    held_out = questions.read_validation(PACKED, INFO)
    more = hashes | {contamination.fingerprint(held_out[1].question.question)}
    with pytest.raises(contamination.ContaminationError, match="1 of 2 of validation"):
        evaluation_sets.check_training(
            more, held_out, evaluation_sets.NO_SETS, PACKED, allowed=False
        )


def test_questions_that_only_a_task_asks_are_recorded():
    """Those of the corpus, those in the inputs of training examples, and exemplars in them."""
    aligned = corpus.read_corpus((str(FIXTURES / "aligned_examples"),), 2, None)
    texts = {0: "Q: Is 7 prime?\nLet's think step by step\n7.\nThe answer is yes\n\nQ: And 9? A:"}
    texts[1] = "Add 3 and 4."
    recorder = questions.Recorder(aligned, lambda ids: texts[ids[0]])
    for split, index in (("train", 0), ("train", 1), ("validation", 1)):
        recorder.see(split, np.array([index]))
    own = {contamination.fingerprint(row["question"]) for row in aligned.rows["train"]}
    asked = map(contamination.fingerprint, ("Is 7 prime?", "And 9?", "Add 3 and 4."))
    assert recorder.hashes() == own | {*asked}
    assert len(own) == len(aligned.pool)


def test_the_packed_fixture_records_its_own_questions():
    aligned = corpus.read_corpus((str(FIXTURES / "aligned_examples"),), 2, None)
    expected = {contamination.fingerprint(row["question"]) for row in aligned.rows["train"]}
    assert questions.read_training(PACKED, INFO) == expected
    held_out = questions.read_validation(PACKED, INFO)
    assert sorted(one.question.id for one in held_out) == INFO["validation_ids"]
    for one in held_out:
        assert one.question.kind == "number" and one.question.has_gold
        assert len(one.exemplars) == formats.NUM_EXEMPLARS
        texts = {exemplar.question for exemplar in one.exemplars}
        assert {contamination.fingerprint(text) for text in texts} <= expected
