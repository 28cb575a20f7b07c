"""`convert`: from Hugging Face to ours, trained, and back; bad input in one line."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file

from specialize_jax import convert, models
from specialize_jax.apps import carry
from specialize_jax.training import checkpoints
from specialize_jax.training.train_state import TrainState
from tests.apps.line import FIXTURES, gin, run, write_data
from tests.convert import t5x_folders, tiny
from tests.fixtures import world

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
SIZE = {"d_model": 32, "d_kv": 8, "d_ff": 64, "vocab_size": 128}
TINY = ("--gin_file=testing/tiny.gin", gin("PACKED_DIR", str(FIXTURES / "packed_rows")))
SMALL = dataclasses.replace(tiny.CONFIG, vocab_size=64)
EXTRA = {
    "_name_or_path": "google/flan-t5-small",
    "task_specific_params": {"a": 1},
    "dtype": "float32",
}
GENERATION = {"decoder_start_token_id": 0, "max_length": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user downloads: shards, spiece.model, tokenizer_config, generation_config."""
    path = tmp_path_factory.mktemp("hub") / "flan-t5-small"
    config = models.build("t5_1_1_tiny", **SIZE).config
    convert.save_hf(config, tiny.params(config), path, max_shard_bytes=100_000)
    shutil.copy(world.TOKENIZER, path / "spiece.model")
    (path / "tokenizer_config.json").write_text("{}")
    (path / "generation_config.json").write_text(json.dumps(GENERATION))
    raw = json.loads((path / "config.json").read_text()) | EXTRA
    (path / "config.json").write_text(json.dumps(raw))
    return path


@pytest.fixture(scope="module")
def own(folder, tmp_path_factory):
    """The folder as a MODEL_DIR."""
    path = tmp_path_factory.mktemp("own") / "student"
    assert run("convert", "--from=hf", "--to=orbax", folder, path) == 0
    return path


def _tensors(folder):
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def _assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def _saved(model_dir, step):
    model = models.build("t5_1_1_tiny", **SIZE)
    like = jax.eval_shape(model.init, jax.random.key(0))
    return checkpoints.restore_params(model_dir / "checkpoints", step, like)


def test_there_and_back_is_the_same_folder(folder, own, tmp_path, capsys):
    back = tmp_path / "back"
    assert run("convert", "--from=orbax", "--to=hf", own, back) == 0
    shown = capsys.readouterr().out
    count = sum(tensor.size for tensor in _tensors(folder).values())
    assert f"flan-t5-small: {count:,} parameters, {4 * count:,} bytes, float32" in shown
    _assert_same_tensors(_tensors(back), _tensors(folder))
    carried = ("config.json", "spiece.model", "tokenizer_config.json", "generation_config.json")
    for name in carried:
        assert _content(back / name) == _content(folder / name), name
    assert 'base_model: "google/flan-t5-small"' in (back / "README.md").read_text()
    assert run("verify", own) == 0


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*_hf")))
def test_every_kind_of_model_goes_there_and_back(name, tmp_path):
    """Names, dtypes and bytes, as the library reads them; buffers and repeated tensors are left."""
    own, back = tmp_path / "own", tmp_path / "back"
    assert run("convert", "--from=hf", "--to=orbax", GOLDEN / name, own) == 0
    assert run("convert", "--from=orbax", "--to=hf", own, back) == 0
    _assert_same_tensors(_tensors(back), _tensors(GOLDEN / name))
    assert _content(back / "config.json") == _content(GOLDEN / name / "config.json")


def test_t5x_goes_where_the_others_go(tmp_path, capsys):
    params = tiny.params()
    source = t5x_folders.legacy(tmp_path / "checkpoint_40", t5x_folders.unscanned(params))
    own, back = tmp_path / "own", tmp_path / "back"
    arguments = ["--from=t5x", "--to=orbax", f"--tokenizer={world.TOKENIZER}"]
    assert run("convert", *arguments, source, own) == 0
    assert checkpoints.all_steps(own / "checkpoints") == [40]
    assert run("convert", "--from=orbax", "--to=hf", own, back) == 0
    tiny.assert_same(convert.load_hf(back)[1], params)
    assert (back / "spiece.model").read_bytes() == world.TOKENIZER.read_bytes()
    error = _line(capsys, "--from=t5x", "--to=hf", "--size=huge", source, tmp_path / "x")
    assert "Expected size to be one of" in error


def test_names_without_a_prefix_stay_so(tmp_path):
    bare = pathlib.Path(shutil.copytree(GOLDEN / "gpt2_tiny_hf", tmp_path / "bare"))
    tensors = {k.removeprefix("transformer."): v for k, v in _tensors(bare).items()}
    save_file(tensors, bare / "model.safetensors", metadata={"format": "pt"})
    for form, source, target in (("orbax", bare, "own"), ("hf", tmp_path / "own", "back")):
        other = "hf" if form == "orbax" else "orbax"
        assert run("convert", f"--from={other}", f"--to={form}", source, tmp_path / target) == 0
    _assert_same_tensors(_tensors(tmp_path / "back"), tensors)


def _content(path: pathlib.Path):
    """What a file says."""
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()


def test_straight_to_another_dtype(folder, tmp_path, capsys):
    half = tmp_path / "half"
    assert run("convert", "--from=hf", "--to=hf", "--dtype=bfloat16", folder, half) == 0
    assert "bfloat16" in capsys.readouterr().out
    _assert_same_tensors(
        _tensors(half), {k: v.astype("bfloat16") for k, v in _tensors(folder).items()}
    )
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    assert (half / "spiece.model").exists()
    assert not (half / "README.md").exists()  # nothing was trained here


def test_training_and_evaluation_take_what_was_converted(folder, own, tmp_path):
    model_dir = tmp_path / "model"
    arguments = [gin("INITIAL_CHECKPOINT_PATH", str(own)), gin("MODEL_DIR", str(model_dir))]
    arguments += [gin("TRAIN_STEPS_RELATIVE", 1), gin("LEARNING_RATE", 0.0)]
    assert run("train", *TINY, *arguments) == 0
    jax.tree.map(np.testing.assert_array_equal, _saved(model_dir, 1), _saved(own, 0))
    evaluate = [gin("MODEL_DIR", str(own)), f"--data_dir={write_data(tmp_path / 'data')}"]
    sets = [gin("EVAL_SETS", ("gsm8k",)), gin("EVAL_FORMATS", ("zero_shot_chain_of_thought",))]
    assert run("evaluate", *TINY, *evaluate, *sets) == 0
    # A student that was trained from it goes out with the files that its start came with.
    out = tmp_path / "out"
    assert run("convert", "--from=orbax", "--to=hf", "--checkpoint_step=1", model_dir, out) == 0
    _assert_same_tensors(_tensors(out), _tensors(folder))
    assert _content(out / "generation_config.json") == GENERATION
    assert _content(out / "config.json")["task_specific_params"] == {"a": 1}
    card = (out / "README.md").read_text()
    assert "step 1" in card and "| LEARNING_RATE | 0.0 |" in card
    assert convert.load_hf(out)[0] == convert.load_hf(folder)[0]


def test_steps_are_chosen(own, tmp_path, capsys):
    model_dir = pathlib.Path(shutil.copytree(own, tmp_path / "model"))
    params = _saved(own, 0)
    with checkpoints.Checkpoints(model_dir / "checkpoints") as writer:
        for step in (1, 2):
            scaled = jax.tree.map(lambda leaf, by=step + 1: by * leaf, params)
            state = TrainState(np.int32(step), scaled, {}, np.zeros(2, np.uint32))
            writer.save(state, data_state={})
    flag = "--checkpoint_step=1"
    for number, (factor, *choice, source) in enumerate(
        ((2, flag, model_dir), (3, model_dir), (2, model_dir / "checkpoints" / "1"))
    ):
        out = tmp_path / str(number)
        assert run("convert", "--from=orbax", "--to=hf", *choice, source, out) == 0
        _, found = convert.load_hf(out)
        expected = jax.tree.map(lambda leaf, by=factor: by * leaf, params)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    absent = [flag.replace("1", "7"), own, tmp_path / "none"]
    assert "No checkpoint of step 7" in _line(capsys, "--from=orbax", "--to=hf", *absent)


def test_a_vocabulary_of_another_size_is_said(folder, tmp_path, capsys):
    for path in (cut := pathlib.Path(shutil.copytree(folder, tmp_path / "cut"))).glob("*.safet*s"):
        names = ("shared.weight", "lm_head.weight")
        tensors = {k: v[:100].copy() if k in names else v for k, v in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    (cut / "spiece.model").unlink()
    assert run("convert", "--from=hf", "--to=orbax", cut, tmp_path / "own") == 0
    shown = capsys.readouterr().out
    assert "note: " in shown and "100 rows is padded with the mean of the others, to 128" in shown
    assert "note: no tokenizer came along" in shown


def test_training_does_not_go_on_in_a_converted_folder(own, tmp_path, capsys):
    copy = pathlib.Path(shutil.copytree(own, tmp_path / "copy"))
    before = sorted(path.name for path in (copy / "checkpoints").iterdir())
    assert run("train", *TINY, gin("MODEL_DIR", str(copy))) == 1
    assert "holds checkpoints of another run" in capsys.readouterr().err
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == before


def test_evaluation_asks_for_a_tokenizer(tmp_path, capsys):
    own = tmp_path / "own"
    assert run("convert", "--from=hf", "--to=orbax", GOLDEN / "t5_tiny_hf", own) == 0
    data = write_data(tmp_path / "data")
    assert run("evaluate", TINY[0], gin("MODEL_DIR", str(own)), f"--data_dir={data}") == 1
    assert "has no tokenizer; convert it again with --tokenizer" in capsys.readouterr().err


def _line(capsys, *arguments):
    assert run("convert", *arguments) == 1
    error = capsys.readouterr().err
    return error[error.index("specialize-jax convert: error: ") :]


def test_targets_must_be_new(folder, own, tmp_path, capsys):
    (tmp_path / "note").write_text("")
    for target in (tmp_path, tmp_path / "note"):
        error = _line(capsys, "--from=hf", "--to=orbax", folder, target)
        assert "exists and is not empty" in error
    assert "exists and is not empty" in _line(capsys, "--from=hf", "--to=hf", folder, folder)
    (tmp_path / "empty").mkdir()
    assert run("convert", "--from=orbax", "--to=orbax", own, tmp_path / "empty") == 0


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_are_refused(folder, tmp_path, capsys, dtype):
    error = _line(capsys, "--from=hf", "--to=hf", f"--dtype={dtype}", folder, tmp_path / "x")
    assert f"one of float32, bfloat16, got {dtype}" in error
    assert not (tmp_path / "x").exists()


def test_a_cut_shard_and_a_missing_one_are_named(folder, tmp_path, capsys):
    spoiled = pathlib.Path(shutil.copytree(folder, tmp_path / "spoiled"))
    first, second, *_ = sorted(spoiled.glob("model-*.safetensors"))
    second.write_bytes(second.read_bytes()[:-10])
    error = _line(capsys, "--from=hf", "--to=orbax", spoiled, tmp_path / "x")
    assert f"{second} is cut short" in error
    first.unlink()
    error = _line(capsys, "--from=hf", "--to=orbax", spoiled, tmp_path / "x")
    assert f"are missing: {first.name}" in error


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path, capsys):
    other = pathlib.Path(shutil.copytree(folder, tmp_path / "other"))
    vocab = {"model": {"vocab": {"a": 0, "b": 199}}, "added_tokens": []}
    (other / "tokenizer.json").write_text(json.dumps(vocab))
    error = _line(capsys, "--from=hf", "--to=orbax", other, tmp_path / "x")
    assert "tokenizer.json has 200 ids, the embedding 128 rows" in error
    (other / "tokenizer.json").write_text("{}")
    assert "vocabulary cannot be read" in _line(
        capsys, "--from=hf", "--to=orbax", other, tmp_path / "x"
    )


def test_the_base_model_that_is_given_is_named(own, tmp_path):
    arguments = ["--from=orbax", "--to=hf", "--base_model=me/mine"]
    assert run("convert", *arguments, own, tmp_path / "back") == 0
    assert 'base_model: "me/mine"' in (tmp_path / "back" / "README.md").read_text()


def test_missing_folders_are_named(folder, tmp_path, capsys):
    arguments = [f"--like={tmp_path / 'absent'}", folder, tmp_path / "x"]
    error = _line(capsys, "--from=hf", "--to=hf", *arguments)
    assert "--like: expected a Hugging Face folder, found no" in error
    for form, words in (
        ("hf", "Expected a Hugging Face folder, found no"),
        ("t5x", "Expected a t5x checkpoint"),
        ("orbax", "holds no checkpoints"),
    ):
        error = _line(capsys, f"--from={form}", "--to=hf", tmp_path / "absent", tmp_path / "x")
        assert words in error and str(tmp_path / "absent") in error


def test_a_closed_bucket_is_explained(own, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("401: anonymous caller")

    monkeypatch.setattr("etils.epath.gpath._GPath.exists", fail)
    for form, source, target in (
        ("hf", "gs://bucket/m", "x"),
        ("t5x", "gs://bucket/m", "x"),
        ("orbax", "gs://bucket/m", "x"),
        ("orbax", str(own), "gs://bucket/m"),
    ):
        monkeypatch.setattr("specialize_jax.apps.convert._check_fresh", _only_remote(fail))
        error = _line(capsys, f"--from={form}", "--to=hf", source, target)
        assert "Cannot use gs://bucket/m: RuntimeError: 401: anonymous caller" in error
        assert "GOOGLE_APPLICATION_CREDENTIALS" in error


def _only_remote(fail):
    return lambda target: fail() if "://" in str(target) else None


def test_a_tokenizer_that_is_not_the_carried_one_replaces_it(folder, tmp_path):
    mine = tmp_path / "student_tokenizer.model"
    mine.write_bytes(world.TOKENIZER.read_bytes())
    target = pathlib.Path(shutil.copytree(folder, tmp_path / "hf"))
    carry.put_tokenizer(epath.Path(mine), epath.Path(target))
    assert (target / "tokenizer_config.json").exists()  # the same tokenizer: all stays
    (target / "spiece.model").write_bytes(b"another")
    carry.put_tokenizer(epath.Path(mine), epath.Path(target))
    assert not (target / "tokenizer_config.json").exists()
    assert (target / "spiece.model").read_bytes() == mine.read_bytes()


def test_tokenizers_that_cannot_come_along_are_named(own, tmp_path, capsys, monkeypatch):
    ranks = tmp_path / "p50k_base.tiktoken"
    ranks.write_text("")
    arguments = ["--from=orbax", "--to=hf", f"--tokenizer={ranks}", own, tmp_path / "x"]
    assert "is no tokenizer of Hugging Face's forms" in _line(capsys, *arguments)

    big = pathlib.Path(shutil.copy(world.TOKENIZER, tmp_path / "big.model"))
    small = tmp_path / "small"
    convert.save_hf(SMALL, tiny.params(SMALL), small)
    arguments = ["--from=hf", "--to=hf", f"--tokenizer={big}", small, tmp_path / "x"]
    assert "has 128 ids, the embedding 64 rows" in _line(capsys, *arguments)
    assert not (tmp_path / "x").exists()

    def load(_):
        raise ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers")

    monkeypatch.setattr("specialize_jax.tokenizers.load", load)
    with pytest.raises(ValueError, match="needs the package tokenizers: pip install"):
        carry.keep_tokenizer(epath.Path("tokenizer.json"), epath.Path(tmp_path), 8)
