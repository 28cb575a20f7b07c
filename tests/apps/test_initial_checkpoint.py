"""Training starts from a Hugging Face folder; one of another shape is refused by name."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from specialize_jax import convert, models
from tests.apps.line import FIXTURES, gin, run

SIZE = {"d_model": 32, "d_kv": 8, "d_ff": 64, "vocab_size": 128}
TINY = ("train", "--gin_file=testing/tiny.gin", gin("PACKED_DIR", str(FIXTURES / "packed_rows")))


@pytest.fixture
def folder(tmp_path):
    model = models.build("t5_1_1_tiny", **SIZE)
    params = model.init(jax.random.key(5))
    convert.save_hf(model.config, params, tmp_path / "hf")
    return tmp_path / "hf", params


def test_parameters_come_from_the_folder(folder, tmp_path):
    path, params = folder
    # A learning rate of 0 leaves what was loaded.
    arguments = [gin("TRAIN_STEPS_RELATIVE", 1), gin("LEARNING_RATE", 0.0)]
    model_dir = tmp_path / "model"
    start = gin("INITIAL_CHECKPOINT_PATH", str(path))
    assert run(*TINY, *arguments, start, gin("MODEL_DIR", str(model_dir))) == 0
    with ocp.StandardCheckpointer() as reader:
        saved = reader.restore(model_dir / "checkpoints" / "1" / "params")
    jax.tree.map(np.testing.assert_array_equal, saved, params)


def test_another_shape_is_refused(folder, tmp_path, capsys):
    path, _ = folder
    arguments = [gin("MODEL_DIR", str(tmp_path / "m")), gin("INITIAL_CHECKPOINT_PATH", str(path))]
    assert run(*TINY, *arguments, "--gin.models.build.d_ff=96") == 1
    assert "is not a 't5_1_1_tiny': d_ff: 64 there, 96 here" in capsys.readouterr().err


def test_a_missing_folder_is_named(tmp_path, capsys):
    absent = str(tmp_path / "absent")
    arguments = [gin("MODEL_DIR", str(tmp_path / "m")), gin("INITIAL_CHECKPOINT_PATH", absent)]
    assert run(*TINY, *arguments) == 1
    assert absent in capsys.readouterr().err


def test_training_starts_from_an_earlier_run_and_keeps_that_start(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert run(*TINY, gin("MODEL_DIR", str(first)), gin("TRAIN_STEPS_RELATIVE", 2)) == 0
    for path, model_dir in ((first, second), (first / "checkpoints" / "2", third)):
        arguments = [gin("MODEL_DIR", str(model_dir)), gin("TRAIN_STEPS_RELATIVE", 1)]
        start = gin("INITIAL_CHECKPOINT_PATH", str(path))
        assert run(*TINY, *arguments, start, gin("CHECKPOINT_FIRST", True)) == 0
    with ocp.StandardCheckpointer() as reader:
        before = reader.restore(first / "checkpoints" / "2" / "params")
        for model_dir in (second, third):
            start = reader.restore(model_dir / "checkpoints" / "0" / "params")
            jax.tree.map(np.testing.assert_array_equal, start, before)
            after = reader.restore(model_dir / "checkpoints" / "1" / "params")
            assert not np.array_equal(
                *(tree["token_embedder"]["embedding"] for tree in (after, before))
            )


def test_an_earlier_run_with_another_tokenizer_is_refused(tmp_path, capsys):
    first = tmp_path / "first"
    assert run(*TINY, gin("MODEL_DIR", str(first)), gin("TRAIN_STEPS_RELATIVE", 1)) == 0
    config = json.loads((first / "checkpoints" / "config.json").read_text())
    config["student_tokenizer"]["sha256"] = "0" * 64
    (first / "checkpoints" / "config.json").write_text(json.dumps(config))
    start = gin("INITIAL_CHECKPOINT_PATH", str(first))
    assert run(*TINY, gin("MODEL_DIR", str(tmp_path / "second")), start) == 1
    assert "student_tokenizer: 000000000000 there" in capsys.readouterr().err
