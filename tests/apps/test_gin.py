"""Every packaged gin file parses, and every experiment builds what its commands would run."""

import argparse

import gin
import jax
import pytest

from specialize_jax.apps import evaluate, gin_setup, pack, train
from specialize_jax.models import t5

RUNS = {"pack": pack.run, "train": train.run, "evaluate": evaluate.run}
# What a user must give; the rest is in the files.
GIVEN = ["MODEL_DIR = 'm'", "ALIGNED_DIRS = ('a',)", "DATA_DIR = 'd'"]


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config()


def configured(function, *files, bindings=()):
    args = argparse.Namespace(
        gin_file=list(files), gin_search_paths="", gin_bindings=[*GIVEN, *bindings]
    )
    return gin_setup.configured(args, function)


EXPERIMENTS = gin_setup.packaged("experiments") + ["testing/tiny.gin"]


@pytest.mark.parametrize("command", list(RUNS))
@pytest.mark.parametrize("file", EXPERIMENTS)
def test_experiments_configure_every_command(file, command):
    bindings = ["INITIAL_CHECKPOINT_PATH = 'hf'"] if "xxl" in file else []
    configured(RUNS[command], file, bindings=bindings)
    arguments = gin.get_bindings(RUNS[command])
    if command == "pack":
        assert arguments["mixture_or_task_name"].startswith("distill_")
        assert set(arguments["task_feature_lengths"]) == {"inputs", "targets"}
    elif command == "train":
        model = arguments["model"]
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        assert jax.tree.structure(shapes) == jax.tree.structure(
            model.axes(), is_leaf=lambda x: isinstance(x, tuple)
        )
        assert arguments["objective"] == "match_distribution"
    else:
        assert arguments["sets"] == ("gsm8k", "multiarith", "asdiv", "svamp")


@pytest.mark.parametrize("file", gin_setup.packaged("models"))
def test_model_files_name_their_size(file):
    name = file.rsplit("/", 1)[1].removesuffix(".gin")
    size = "t5_1_1_tiny" if name == "base" else name
    bindings = ["BATCH_SIZE = 1", "TRAIN_STEPS_RELATIVE = 1"]
    bindings += [f"SIZE = '{size}'"] if name == "base" else []
    configured(train.run, "runs/train.gin", "objectives/match_sample.gin", file, bindings=bindings)
    model = gin.get_bindings(train.run)["model"]
    assert model.name == size
    assert model.config.d_model == t5.SIZES[size].d_model


def test_every_size_has_a_file():
    files = {f.rsplit("/", 1)[1].removesuffix(".gin") for f in gin_setup.packaged("models/t5")}
    assert files - {"base"} == set(t5.SIZES)


@pytest.mark.parametrize("file", gin_setup.packaged("objectives"))
def test_objectives_are_files(file):
    tiny = ["runs/train.gin", "models/t5/t5_1_1_tiny.gin", file]
    configured(train.run, *tiny, bindings=["BATCH_SIZE = 1", "TRAIN_STEPS_RELATIVE = 1"])
    arguments = gin.get_bindings(train.run)
    assert arguments["objective"] in ("match_sample", "match_distribution")
    expected = "drop" if "fu2023" in file else "bucket"
    assert arguments["tail"] == expected


def test_later_files_and_bindings_win(tmp_path):
    (tmp_path / "mine.gin").write_text("BATCH_SIZE = 7\nTRAIN_STEPS_RELATIVE = 7\n")
    configured(
        train.run, "testing/tiny.gin", str(tmp_path / "mine.gin"), bindings=["BATCH_SIZE = 9"]
    )
    arguments = gin.get_bindings(train.run)
    assert (arguments["batch_size"], arguments["train_steps"]) == (9, 7)


def test_search_order_is_working_folder_then_paths_then_package(tmp_path, monkeypatch):
    for name, value in (("here", 1), ("path", 2)):
        (tmp_path / name / "objectives").mkdir(parents=True)
        (tmp_path / name / "objectives" / "match_sample.gin").write_text(f"OBJECTIVE = {value}\n")
    monkeypatch.chdir(tmp_path / "here")

    def objective(search):
        args = argparse.Namespace(
            gin_file=["objectives/match_sample.gin"], gin_search_paths=search, gin_bindings=[]
        )
        gin_setup.configured(args, train.run)
        return gin.query_parameter("%OBJECTIVE")

    assert objective(str(tmp_path / "path")) == 1
    monkeypatch.chdir(tmp_path)
    assert objective(str(tmp_path / "path")) == 2
    assert objective("") == "match_sample"


def test_bindings_are_split_from_other_flags():
    bindings, rest = gin_setup.split_bindings(["--gin.A='x=1'", "--out=b", "--gin_file=c"])
    assert bindings == ["A = 'x=1'"] and rest == ["--out=b", "--gin_file=c"]
