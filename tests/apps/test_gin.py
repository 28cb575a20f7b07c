"""Every packaged gin file parses, and every experiment builds what its commands would run."""

import argparse
import re

import gin
import jax
import pytest
from jax.sharding import AbstractMesh

from specialize_jax import models
from specialize_jax.apps import collect, evaluate, evaluation_sets, gin_setup, pack, train
from specialize_jax.tasks import distill, miniworld
from specialize_jax.training import partitioning

RUNS = {
    "collect": collect.run,
    "pack": pack.run,
    "train": train.run,
    "evaluate": evaluate.run,
}
# What a user must give; the rest is in the files.
GIVEN = ["MODEL_DIR = 'm'", "ALIGNED_DIRS = ('a',)", "DATA_DIR = 'd'"]


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config()


def configured(function, *files, bindings=(), given=GIVEN):
    args = argparse.Namespace(
        gin_file=list(files), gin_search_paths="", gin_bindings=[*given, *bindings]
    )
    return gin_setup.configured(args, function)


EXPERIMENTS = sorted([*gin_setup.packaged("experiments"), "testing/tiny.gin"])
PAPER_S = [file for file in EXPERIMENTS if file.endswith("_gsm8k.gin")]


# A run on published chains has no teacher to ask.
COMMANDS = [
    (file, command)
    for file in EXPERIMENTS
    for command in RUNS
    if command != "collect" or "quickstart" in file
]


@pytest.mark.parametrize(("file", "command"), COMMANDS)
def test_experiments_configure_every_command(file, command):
    bindings = ["INITIAL_CHECKPOINT_PATH = 'hf'"] if file in PAPER_S else []
    is_quickstart = "quickstart" in file
    configured(RUNS[command], file, bindings=bindings)
    arguments = gin.get_bindings(RUNS[command])
    if command == "collect":
        assert arguments["teacher"].info["teacher"]["name"] == "miniworld grammar"
        assert len(arguments["questions"]()) in (2000, 4000)
    elif command == "pack":
        assert arguments["mixture_or_task_name"].startswith("distill_")
        assert set(arguments["task_feature_lengths"]) == {"inputs", "targets"}
    elif command == "train":
        model = arguments["model"]
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        assert jax.tree.structure(shapes) == jax.tree.structure(
            model.axes(), is_leaf=lambda x: isinstance(x, tuple)
        )
        is_sample = any(word in file for word in ("pretrain", "_base_gsm8k", "_large_gsm8k"))
        assert arguments["objective"] == ("match_sample" if is_sample else "match_distribution")
    elif is_quickstart:
        assert set(arguments["sets"]) == {f"miniworld_{name}" for name in miniworld.FAMILIES}
    else:
        assert arguments["sets"] == ("gsm8k", "multiarith", "asdiv", "svamp")


@pytest.mark.parametrize("file", PAPER_S)
def test_experiments_of_the_paper_say_what_they_need_and_what_to_expect(file):
    for command, required in (
        ("pack", {"ALIGNED_DIRS"}),
        ("train", {"MODEL_DIR", "INITIAL_CHECKPOINT_PATH"}),
        ("evaluate", {"MODEL_DIR"}),
    ):
        with pytest.raises(ValueError) as error:
            configured(RUNS[command], file, given=())
        assert set(re.findall(r"\b[A-Z][A-Z_]+\b", str(error.value))) == required
    text = (gin_setup.PACKAGED / file).read_text()
    header = text.split("\ninclude")[0]
    assert f"specialize-jax train --gin_file={file} " in header
    for word in (
        "ALIGNED_DIRS",
        "MODEL_DIR",
        "INITIAL_CHECKPOINT_PATH",
        "Hardware",
        "ime: ",
        "Score:",
    ):
        assert word in header
    assert "unconfirmed by us" in header or "no number is known to us" in header


@pytest.mark.parametrize("file", PAPER_S)
def test_experiments_of_the_paper_fit_together(file):
    configured(pack.run, file)
    assert gin.get_bindings(pack.run)["mixture_or_task_name"] in distill.RATES
    configured(train.run, file, bindings=["INITIAL_CHECKPOINT_PATH = 'hf'"])
    found = gin.get_bindings(train.run)
    # On as many devices as share a copy of the student.
    shape = (1, found["fsdp_partitions"], found["model_partitions"])
    partitioning.check_divides(
        AbstractMesh(shape, partitioning.AXES),
        batch_rows=found["batch_size"],
        microbatches=found["microbatches"],
        heads=found["model"].config.num_heads,
    )
    name = "t5_" + file.split("t5_")[1].removesuffix("_gsm8k.gin")
    model = found["model"]
    assert model.name == ("flan_" if "flan" in file else "") + name
    # 11 billion parameters fit nowhere otherwise; a model's file sets them anew.
    assert (model.config.dtype, model.config.remat) == ("bfloat16", "full")
    # The paper's code: a cosine over ten epochs of micro-steps, one step of it an update.
    assert found["schedule_steps"] > 4 * found["train_steps"] > 0
    assert (found["optimizer"], found["weight_decay"], found["clip"]) == ("adamw", 0.01, None)


@pytest.mark.parametrize("file", gin_setup.packaged("models"))
def test_model_files_name_their_size(file):
    name = file.rsplit("/", 1)[1].removesuffix(".gin")
    size = "t5_1_1_tiny" if name == "base" else name
    bindings = ["BATCH_SIZE = 1", "TRAIN_STEPS_RELATIVE = 1"]
    bindings += [f"SIZE = '{size}'"] if name == "base" else []
    files = ("runs/train.gin", "objectives/match_sample.gin", file)
    configured(train.run, *files, bindings=bindings, given=GIVEN[:1])
    model = gin.get_bindings(train.run)["model"]
    assert model.name == size
    assert model.config.d_model == models.SIZES[size].d_model
    assert (model.config.attention, model.config.dropout_rate) == ("plain", 0.0)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_every_size_has_a_file(family):
    found = gin_setup.packaged(f"models/{family}")
    files = {file.rsplit("/", 1)[1].removesuffix(".gin") for file in found}
    assert files - {"base"} == set(models.FAMILIES[family].SIZES)


@pytest.mark.parametrize("file", gin_setup.packaged("objectives"))
def test_objectives_are_files(file):
    tiny = ["runs/train.gin", "models/t5/t5_1_1_tiny.gin", file]
    bindings = ["BATCH_SIZE = 1", "TRAIN_STEPS_RELATIVE = 1"]
    configured(train.run, *tiny, bindings=bindings, given=GIVEN[:1])
    arguments = gin.get_bindings(train.run)
    assert arguments["objective"] in ("match_sample", "match_distribution")
    expected = "drop" if "fu2023" in file else "bucket"
    assert arguments["tail"] == expected


def test_a_divergence_and_its_settings_reach_the_run():
    bindings = ["DIVERGENCE = 'jsd'", "TAIL = 'renormalize'", "TEMPERATURE = 2.0", "BETA = 0.1"]
    configured(train.run, "testing/tiny.gin", bindings=bindings)
    arguments = gin.get_bindings(train.run)
    names = ("divergence", "tail", "temperature", "beta")
    assert [arguments[name] for name in names] == ["jsd", "renormalize", 2.0, 0.1]


def test_settings_of_optimizer_and_schedule_reach_the_run():
    bindings = ["OPTIMIZER_SETTINGS = {'decay_rate': 0.9}", "SCHEDULE_STEPS = 99"]
    configured(train.run, "testing/tiny.gin", bindings=bindings)
    arguments = gin.get_bindings(train.run)
    assert arguments["optimizer_settings"] == {"decay_rate": 0.9}
    assert arguments["schedule_steps"] == 99


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


@pytest.mark.parametrize(
    ("command", "binding", "expected"),
    [
        ("train", "BATCH_SIZE = '2'", "BATCH_SIZE: expected int, got '2' (str)"),
        ("train", "BATCH_SIZE = 2.5", "BATCH_SIZE: expected int, got 2.5 (float)"),
        ("train", "BATCH_SIZE = True", "BATCH_SIZE: expected int, got True (bool)"),
        (
            "train",
            "TRAIN_STEPS_RELATIVE = None",
            "TRAIN_STEPS_RELATIVE: expected int, got None (NoneType)",
        ),
        ("train", "LEARNING_RATE = 'fast'", "LEARNING_RATE: expected float, got 'fast' (str)"),
        ("train", "CLIP = 'no'", "CLIP: expected float | None, got 'no' (str)"),
        (
            "train",
            "OPTIMIZER_SETTINGS = 0.8",
            "OPTIMIZER_SETTINGS: expected Mapping[str, Any] | None, got 0.8 (float)",
        ),
        ("train", "train.run.seed = 'x'", "train.run.seed: expected int, got 'x' (str)"),
        # Of the configurable that a binding refers to.
        ("train", "models.build.size = 3", "models.build.size: expected str, got 3 (int)"),
        ("pack", "ALIGNED_DIRS = 'a'", "ALIGNED_DIRS: expected Sequence[str], got 'a' (str)"),
        ("pack", "ALIGNED_DIRS = (1,)", "ALIGNED_DIRS: expected Sequence[str], got (1,) (tuple)"),
        (
            "pack",
            "TASK_FEATURE_LENGTHS = 512",
            "TASK_FEATURE_LENGTHS: expected Mapping[str, int], got 512 (int)",
        ),
        (
            "pack",
            "TASK_FEATURE_LENGTHS = {'inputs': 'a', 'targets': 1}",
            "TASK_FEATURE_LENGTHS: expected Mapping[str, int], "
            "got {'inputs': 'a', 'targets': 1} (dict)",
        ),
        ("evaluate", "EVAL_SETS = 'gsm8k'", "EVAL_SETS: expected Sequence[str], got 'gsm8k' (str)"),
        (
            "evaluate",
            "EVAL_CHECKPOINTS = 20",
            "EVAL_CHECKPOINTS: expected str | Sequence[int], got 20 (int)",
        ),
    ],
)
def test_wrong_types_are_named(command, binding, expected):
    with pytest.raises(ValueError) as error:
        configured(RUNS[command], "testing/tiny.gin", bindings=[binding])
    assert str(error.value) == f"wrong types: {expected}"


def test_all_wrong_types_are_in_one_error():
    with pytest.raises(ValueError) as error:
        configured(train.run, "testing/tiny.gin", bindings=["BATCH_SIZE = '2'", "TAIL = 1"])
    assert str(error.value).count("expected") == 2
    assert "BATCH_SIZE: " in str(error.value) and "TAIL: expected str" in str(error.value)


@pytest.mark.parametrize(
    ("command", "binding"),
    [
        ("train", "LEARNING_RATE = 1"),
        ("train", "CLIP = None"),
        ("train", "CLIP = 1.0"),
        ("train", "BATCH_SIZE = %EVAL_BATCH_SIZE"),
        ("pack", "ALIGNED_DIRS = ['a', 'b']"),
        ("pack", "ALIGNED_DIRS = (%MODEL_DIR,)"),
        ("pack", "VALIDATION = 'rows.npy'"),
        ("evaluate", "EVAL_CHECKPOINTS = 'all'"),
        ("evaluate", "EVAL_CHECKPOINTS = (5,)"),
    ],
)
def test_right_types_pass(command, binding):
    configured(RUNS[command], "testing/tiny.gin", bindings=[binding])


def test_arguments_that_flags_set_are_not_checked():
    args = argparse.Namespace(
        gin_file=["testing/tiny.gin"], gin_search_paths="", gin_bindings=["DATA_DIR = 1", GIVEN[0]]
    )
    gin_setup.configured(args, evaluate.run, data="d")
    with pytest.raises(ValueError, match="DATA_DIR: expected str"):
        gin_setup.configured(args, evaluate.run)


def test_the_evaluation_sets_of_a_run_are_known_to_training(tmp_path):
    configured(train.run, "testing/tiny.gin")
    tiny = evaluation_sets.Sets(("gsm8k", "multiarith", "asdiv", "svamp"), None, "d")
    assert evaluation_sets.from_gin(None) == tiny
    assert evaluation_sets.from_gin("other") == tiny._replace(data="other")
    configured(train.run, "testing/tiny.gin", bindings=["EVAL_SETS = 'gsm8k'"])
    assert evaluation_sets.from_gin(None).names == ()
    # Without the file of `evaluate`, and with a macro that is left open.
    (tmp_path / "own.gin").write_text("include 'runs/train.gin'\nEVAL_SETS = %gin.REQUIRED\n")
    given = ["MODEL_DIR = 'm'", "MODEL = 1", "OBJECTIVE = 'o'", "BATCH_SIZE = 1"]
    given += ["TRAIN_STEPS_RELATIVE = 1"]
    configured(train.run, str(tmp_path / "own.gin"), given=given)
    assert evaluation_sets.from_gin(None) == evaluation_sets.NO_SETS


def test_unknown_macros_are_named_with_close_ones():
    bindings = ["MIXTURE_OR_TASK_NAM = 'distill_in_context'", "ZZZ = 1"]
    with pytest.raises(ValueError) as error:
        configured(pack.run, "testing/tiny.gin", bindings=bindings)
    message = str(error.value)
    assert "MIXTURE_OR_TASK_NAM (did you mean MIXTURE_OR_TASK_NAME" in message
    assert message.endswith(", ZZZ")


def test_a_macro_that_a_file_only_uses_can_be_set(tmp_path):
    (tmp_path / "mine.gin").write_text("BATCH_SIZE = %MINE\n")
    files = ["testing/tiny.gin", str(tmp_path / "mine.gin")]
    configured(train.run, *files, bindings=["MINE = 3"])
    assert gin.get_bindings(train.run)["batch_size"] == 3


@pytest.mark.parametrize("value", ["out/line/model", "/out/model", "gs://a/b", "'a", "[1"])
def test_a_value_without_inner_quotes_gets_a_hint(value):
    with pytest.raises(ValueError) as error:
        configured(train.run, "testing/tiny.gin", bindings=[f"MODEL_DIR = {value}"])
    message = str(error.value)
    assert message.startswith(f"gin: --gin.MODEL_DIR={value}: ") and "\n" not in message
    assert message.endswith("strings need quotes inside, as --gin.NAME=\"'value'\"")
