"""Bad input gets one clear line that names what was expected and what came, and loses nothing."""

import json
import re
import shutil

import pytest

from specialize_jax.apps import train as train_app
from specialize_jax.schemas import SchemaError
from specialize_jax.training import metrics
from tests.apps.line import FIXTURES, gin, run, write_data
from tests.fixtures import world

TINY = "--gin_file=testing/tiny.gin"
TOKENIZER = f"--student_tokenizer={world.TOKENIZER}"


@pytest.fixture
def copy(tmp_path):
    """Copies a fixture folder, to be damaged."""

    def copied(name):
        shutil.copytree(FIXTURES / name, tmp_path / name)
        return tmp_path / name

    return copied


@pytest.fixture
def fails(capsys):
    """Runs a subcommand that must fail; returns its one line of error."""

    def run_it(*argv):
        assert run(*argv) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1, lines
        return lines[0]

    return run_it


def change_info(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def align(records, out, *more):
    return ("align", f"--records={records}", TOKENIZER, f"--out={out}", *more)


def pack(aligned, out, *more):
    return ("pack", TINY, gin("ALIGNED_DIRS", (str(aligned),)), f"--out={out}", *more)


def train(packed, model, *more):
    return ("train", TINY, gin("PACKED_DIR", str(packed)), gin("MODEL_DIR", str(model)), *more)


def test_missing_data_folder(fails, tmp_path, monkeypatch):
    monkeypatch.delenv("SPECIALIZE_JAX_DATA", raising=False)
    arguments = ("import", "--source=gsm8k", f"--out={tmp_path / 'out'}")
    assert "expected --data_dir DIR or SPECIALIZE_JAX_DATA" in fails(*arguments)
    absent = tmp_path / "absent"
    assert f"data folder '{absent}' does not exist" in fails(*arguments, f"--data_dir={absent}")


def test_a_question_without_a_gold_answer(fails, tmp_path):
    data = write_data(tmp_path / "data")
    path = data / "gsm8k" / "train.jsonl"
    path.write_text(path.read_text() + '{"question": "?", "answer": "no idea"}\n')
    line = fails("import", "--source=gsm8k", f"--data_dir={data}", f"--out={tmp_path / 'out'}")
    assert "train.jsonl:4: a question without a gold answer" in line
    assert "expected a last line '#### <answer>', got 'no idea'" in line


def test_unknown_alignment_mode(fails, tmp_path):
    line = fails(*align(FIXTURES / "teacher_records", tmp_path / "out", "--mode=two_to_two"))
    assert "mode must be one of one_to_one" in line and "'two_to_two'" in line


def test_unknown_mixture_and_module(fails, tmp_path):
    out = tmp_path / "out"
    line = fails(*pack(FIXTURES / "aligned_examples", out, gin("MIXTURE_OR_TASK_NAME", "nope")))
    assert "unknown mixture or task 'nope'" in line and "distill_four_formats" in line
    line = fails(*pack(FIXTURES / "aligned_examples", out, gin("MIXTURE_OR_TASK_MODULE", "no.pe")))
    assert "cannot import MIXTURE_OR_TASK_MODULE 'no.pe'" in line


def test_unknown_size(fails, tmp_path):
    line = fails(*train(FIXTURES / "packed_rows", tmp_path / "model", gin("SIZE", "t5_huge")))
    assert "t5_1_1_small" in line and "'t5_huge'" in line


def test_unknown_evaluation_format_and_missing_checkpoints(fails, tmp_path):
    arguments = ("evaluate", TINY, gin("MODEL_DIR", str(tmp_path)), f"--data_dir={tmp_path}")
    assert "config.json" in fails(*arguments)


def test_coverage_below_the_minimum(fails, tmp_path):
    line = fails(*train(FIXTURES / "packed_rows", tmp_path / "model", gin("MIN_COVERAGE", 0.9)))
    assert "coverage of at least MIN_COVERAGE=0.9" in line and "match_sample" in line


def test_k_out_larger_than_stored(fails, tmp_path):
    line = fails(*pack(FIXTURES / "aligned_examples", tmp_path / "out", gin("K_OUT", 9)))
    assert "stores K_out=4 entries per token, but K_OUT=9 was configured" in line


@pytest.mark.parametrize("keep", [0, 0.5, 1])
def test_damaged_shards_of_every_folder(fails, copy, tmp_path, keep):
    """Emptied, cut in half, and one byte changed."""

    def damage(path):
        content = bytearray(path.read_bytes())
        content = content[: int(len(content) * keep)]
        if keep == 1:
            content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))

    records, aligned, packed = map(copy, ("teacher_records", "aligned_examples", "packed_rows"))
    damage(records / "part-00001.parquet")
    damage(aligned / "part-00001.parquet")
    damage(packed / "train-00001.array_record")
    out = tmp_path / "out"
    line = fails(*align(records, out))
    assert "part-00001.parquet': SHA-256 mismatch, expected" in line
    # The part before the damaged one is done, and kept.
    assert (out / "part-00000.parquet").exists() and not (out / "alignment_info.json").exists()
    assert "part-00001.parquet': SHA-256 mismatch" in fails(*pack(aligned, tmp_path / "packed"))
    assert "train-00001.array_record': SHA-256 mismatch" in fails(
        *train(packed, tmp_path / "model")
    )
    for folder in (records, aligned, packed):
        assert "SHA-256 mismatch" in fails("verify", folder)


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("teacher_records", "teacher_info.json"),
        ("aligned_examples", "alignment_info.json"),
        ("packed_rows", "packed_info.json"),
    ],
)
def test_wrong_schema_versions(fails, copy, name, info):
    folder = copy(name)
    change_info(folder / info, version=7)
    line = fails("verify", folder)
    assert f"reads version 1 of schema '{name}', got version 7" in line


def test_a_changed_tokenizer_file(fails, copy, tmp_path):
    folder = copy("aligned_examples")
    with (folder / "student_tokenizer.model").open("ab") as file:
        file.write(b"?")
    line = fails(*pack(folder, tmp_path / "out"))
    assert "student_tokenizer.model': SHA-256 mismatch" in line


def test_targets_longer_than_the_feature_length(fails, tmp_path, capsys):
    lengths = gin("TASK_FEATURE_LENGTHS", {"inputs": 512, "targets": 30})
    aligned = FIXTURES / "aligned_examples"
    line = fails(*pack(aligned, tmp_path / "a", lengths, gin("ON_TOO_LONG", "error")))
    found = re.search(
        r"(\d+) of 25 examples fit no row of TASK_FEATURE_LENGTHS = {'inputs': 512, 'targets': 30} "
        r"\(.*: targets too long.*\); {'inputs': 512, 'targets': (\d+)} holds all of them",
        line,
    )
    assert found and int(found[1]) > 5 and int(found[2]) > 30
    line = fails(
        *pack(aligned, tmp_path / "b", gin("TASK_FEATURE_LENGTHS", {"inputs": 5, "targets": 5}))
    )
    assert "no example of split 'train' fits: 25 of 25 examples fit no row" in line
    # One token less than the lengths that were named is too short again.
    cut, short = ({"inputs": 512, "targets": int(found[2]) - less} for less in (0, 1))
    epoch = (gin("PACKED_EPOCHS", 1), gin("ON_TOO_LONG", "error"), gin("VALIDATION", 0))
    line = fails(*pack(aligned, tmp_path / "e", gin("TASK_FEATURE_LENGTHS", short), *epoch))
    assert f"{cut} holds all of them" in line
    assert run(*pack(aligned, tmp_path / "c", lengths, gin("ON_TOO_LONG", "truncate"))) == 0
    printed = capsys.readouterr().out
    assert "truncate: " in printed
    info = json.loads((tmp_path / "c" / "packed_info.json").read_text())
    assert f"TASK_FEATURE_LENGTHS = {info['lengths_that_hold_all']} holds all of them" in printed
    assert any("targets too long" in what for what in info["too_long"])
    assert "unknown ON_TOO_LONG 'cut'" in fails(
        *pack(aligned, tmp_path / "d", lengths, gin("ON_TOO_LONG", "cut"))
    )


def test_a_mixture_without_soft_targets(fails, tmp_path, monkeypatch):
    (tmp_path / "my_plain_task.py").write_text(
        "import seqio\n"
        "from specialize_jax.data import sources\n"
        "from specialize_jax.tasks import distill, distill_settings\n"
        "features = {name: distill.OUTPUT_FEATURES[name] for name in ('inputs', 'targets')}\n"
        "source = sources.AlignedSource(distill_settings.corpus)\n"
        "seqio.TaskRegistry.add('my_plain_task', source=source, output_features=features)\n"
    )
    monkeypatch.chdir(tmp_path)
    names = (("MIXTURE_OR_TASK_NAME", "my_plain_task"), ("MIXTURE_OR_TASK_MODULE", "my_plain_task"))
    macros = (gin(*name) for name in names)
    line = fails(*pack(FIXTURES / "aligned_examples", tmp_path / "out", *macros))
    assert "'my_plain_task' has no output feature targets_soft_ids, targets_soft_logprobs" in line
    assert "it has inputs, targets." in line and "format_rows" in line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BATCH_SIZE", 0, "got 0 row(s) in 1"),
        ("MICROBATCHES", 0, "got 2 row(s) in 0"),
        ("MICROBATCHES", 3, "in 3 microbatch(es); the nearest that do: 3"),
        ("MODEL_PARTITIONS", 3, "to divide the 1 devices of each of 1 slice(s), got 1 x 3 = 3"),
        ("LOGICAL_AXIS_RULES", (("vocabb", None),), "unknown logical axis vocabb; choices: abspos"),
        ("LOGICAL_AXIS_RULES", (("vocab", "tp"),), "'vocab' goes to unknown mesh axis 'tp'; choi"),
        ("LOGICAL_AXIS_RULES", (("vocab", None),), "no rule for embed, heads, joined_kv, layers"),
        ("LOGICAL_AXIS_RULES", ("vocab", None), "expected pairs as ('embed', 'fsdp'), got 'vocab'"),
        ("EVAL_ACCURACY_QUESTIONS", -1, "EVAL_ACCURACY_QUESTIONS: expected 0 or more, got -1"),
    ],
)
def test_settings_that_no_mesh_or_batch_fits(fails, tmp_path, name, value, message):
    model = tmp_path / "model"
    assert message in fails(*train(FIXTURES / "packed_rows", model, gin(name, value)))
    assert not (model / "checkpoints").exists()


def test_missing_lengths_are_named(fails, tmp_path):
    lengths = gin("TASK_FEATURE_LENGTHS", {"inputs": 512})
    line = fails(*pack(FIXTURES / "aligned_examples", tmp_path / "out", lengths))
    assert "expected 'inputs' and 'targets', got {'inputs': 512}" in line


def test_unwritable_output(fails, tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "out"
    for arguments in (
        align(FIXTURES / "teacher_records", below),
        pack(FIXTURES / "aligned_examples", below),
        train(FIXTURES / "packed_rows", below),
    ):
        assert "cannot write to output folder" in fails(*arguments)


def test_required_macros_are_named_in_one_error(fails, tmp_path):
    line = fails("train", "--gin_file=runs/train.gin")
    for macro in ("MODEL_DIR", "MODEL", "OBJECTIVE", "BATCH_SIZE", "TRAIN_STEPS_RELATIVE"):
        assert f"{macro}" in line.split("give")[0]
    line = fails("pack", "--gin_file=testing/tiny.gin", f"--out={tmp_path / 'x'}")
    assert "required macros are not set: ALIGNED_DIRS;" in line


def test_gin_files_that_are_not_there_or_do_not_parse(fails, tmp_path):
    assert "packaged experiments: experiments/codex" in fails("train")
    line = fails("train", "--gin_file=nope.gin")
    assert "nope.gin" in line and "looked in" in line
    (tmp_path / "broken.gin").write_text("this is not gin")
    assert "gin:" in fails("train", f"--gin_file={tmp_path / 'broken.gin'}")


def test_another_student_in_the_same_folder(fails, tmp_path):
    model = tmp_path / "model"
    assert run(*train(FIXTURES / "packed_rows", model, gin("TRAIN_STEPS_RELATIVE", 1))) == 0
    line = fails(*train(FIXTURES / "packed_rows", model, "--gin.models.build.d_model=64"))
    assert "holds checkpoints of another student (d_model: 32 there, 64 here)" in line


def test_another_objective_or_other_data_in_the_same_folder(fails, copy, tmp_path):
    model = tmp_path / "model"
    assert run(*train(FIXTURES / "packed_rows", model, gin("TRAIN_STEPS_RELATIVE", 1))) == 0
    line = fails(*train(FIXTURES / "packed_rows", model, gin("OBJECTIVE", "match_sample")))
    assert "another run (objective: match_distribution there, match_sample here" in line
    other = copy("packed_rows")
    info = json.loads((other / "packed_info.json").read_text())
    shards = [entry for entry in info["shards"] if entry["file"] != "train-00001.array_record"]
    change_info(other / "packed_info.json", shards=shards)
    assert "another run (data: " in fails(*train(other, model))


def test_packing_again_with_other_settings(fails, tmp_path):
    out = tmp_path / "out"
    arguments = pack(FIXTURES / "aligned_examples", out)
    assert run(*arguments) == 0
    line = fails(*arguments, gin("MIXTURE_OR_TASK_NAME", "distill_zero_shot"))
    assert "packed with other settings (mixture_or_task_name: distill_four_formats there" in line
    assert "seed: 0 there, 5 here" in fails(*arguments, gin("RANDOM_SEED", 5))


@pytest.mark.parametrize("name", ["PACKED_EPOCHS", "EXAMPLES_PER_EPOCH"])
@pytest.mark.parametrize("value", [0, -5])
def test_packing_nothing(fails, tmp_path, name, value):
    line = fails(*pack(FIXTURES / "aligned_examples", tmp_path / "out", gin(name, value)))
    assert f"{name}: expected at least 1, got {value}" in line


def test_too_few_questions_for_exemplars(fails, tmp_path):
    line = fails(*pack(FIXTURES / "aligned_examples", tmp_path / "out", gin("VALIDATION", 10)))
    assert "expected at least 4 other questions as exemplars, got 1" in line


def test_a_module_that_does_not_import_is_named(fails, tmp_path, monkeypatch):
    (tmp_path / "my_broken_domain.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    module = gin("MIXTURE_OR_TASK_MODULE", "my_broken_domain")
    line = fails(*pack(FIXTURES / "aligned_examples", tmp_path / "out", module))
    assert "'my_broken_domain': ZeroDivisionError: division by zero" in line


def test_alignment_with_other_settings(fails, tmp_path):
    arguments = align(FIXTURES / "teacher_records", tmp_path / "out")
    assert run(*arguments) == 0
    assert "made with other settings" in fails(*arguments, "--k_out=2")


def test_verify_of_something_else(fails, tmp_path):
    assert "holds none of teacher_info.json" in fails("verify", tmp_path)
    assert "does not exist" in fails("verify", tmp_path / "absent")


def test_bindings_are_for_gin_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        run("verify", "x", "--gin.A=1")
    assert stop.value.code == 2
    assert "'verify' is not configured by gin" in capsys.readouterr().err


def test_rows_that_a_run_packed_are_not_used_with_other_settings(tmp_path, capfd):
    shutil.copytree(FIXTURES / "packed_rows", tmp_path / "m" / "packed")
    flags = [gin("MODEL_DIR", str(tmp_path / "m")), gin("PACKED_EPOCHS", 3)]
    flags += [gin("ALIGNED_DIRS", (str(FIXTURES / "aligned_examples"),))]
    assert run("train", TINY, *flags) == 1
    assert "was packed with other settings (" in capfd.readouterr().err


def test_one_training_at_a_time(tmp_path, capsys):
    flags = [gin("MODEL_DIR", str(tmp_path)), gin("PACKED_DIR", str(FIXTURES / "packed_rows"))]
    with train_app.alone(tmp_path):
        assert run("train", TINY, *flags) == 1
    assert f"another training is at work in '{tmp_path}'" in capsys.readouterr().err
    assert not (tmp_path / "train.gin").exists()


def test_more_steps_than_asked_for_are_no_failure(tmp_path, capsys):
    flags = [gin("MODEL_DIR", str(tmp_path)), gin("PACKED_DIR", str(FIXTURES / "packed_rows"))]
    assert run("train", TINY, *flags, gin("TRAIN_STEPS_RELATIVE", 2)) == 0
    before = (tmp_path / "train.gin").read_text()
    assert run("train", TINY, *flags, gin("TRAIN_STEPS_RELATIVE", 1)) == 0
    # Nor is what is refused written down as what was run.
    assert run("train", TINY, *flags, gin("RANDOM_SEED", 7)) == 1
    assert "trained on data at" in capsys.readouterr().err
    assert (tmp_path / "train.gin").read_text() == before


def test_a_spoiled_line_of_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\n[1]\n{"st')
    with pytest.raises(SchemaError, match="metrics.jsonl' line 2: expected an object with 'step'"):
        metrics.read(tmp_path / "metrics.jsonl")
