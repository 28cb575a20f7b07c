"""What README.md shows as whole modules is run here as it stands."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from specialize_jax.schemas import folders, records
from tests.apps.line import FIXTURES, gin

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def block(name):
    """Returns the code block that follows the name of a file."""
    found = re.search(rf"`{re.escape(name)}`[^\n]*\n+```\w*\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md shows no {name}"
    return found[1] + "\n"


@pytest.fixture
def run(tmp_path):
    """Runs a subcommand in a folder of its own, as a person would."""

    def call(*argv):
        command = [sys.executable, "-m", "specialize_jax.apps.main", *map(str, argv)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    for name in ("my_teacher.py", "my_teacher.gin", "my_domain.py"):
        (tmp_path / name).write_text(block(name))
    return call


def commands(section):
    """Returns the commands of a section, without line continuations."""
    text = README.partition(f"## {section}\n")[2].partition("\n## ")[0].replace("\\\n", " ")
    return [line.split("#")[0] for line in text.splitlines() if line.startswith("specialize-jax ")]


def test_a_teacher_of_ones_own(run, tmp_path):
    given = commands("Your own teacher")
    assert [shlex.split(line)[1] for line in given] == [
        *("collect", "tokenizer", "align", "pack", "train")
    ]
    (file,) = re.findall(r'^FILE="(.*out/mine.*)"$', README, re.MULTILINE)
    short = {"train": ["--gin.TRAIN_STEPS_RELATIVE=2", "--gin.WARMUP_STEPS=1"]}
    for line in given:
        # As the shell does it: what a variable holds is split, and its quotes stay.
        words = [
            w for word in shlex.split(line) for w in (file.split() if word == "$FILE" else [word])
        ]
        _, command, *flags = words
        run(command, *flags, *short.get(command, []))
    info = folders.read_info(tmp_path / "out/mine/records", records.NAME)
    assert (info["rows"], info["k"], info["teacher"]["name"]) == (81, 2, "adder")
    aligned = folders.read_info(tmp_path / "out/mine/aligned", "aligned_examples")
    assert aligned["coverage"] > 0.3


def test_a_task_of_ones_own(run, tmp_path):
    tiny = ("--gin_file=testing/tiny.gin",)
    aligned = gin("ALIGNED_DIRS", (str(FIXTURES / "aligned_examples"),))
    mine = (gin("MIXTURE_OR_TASK_MODULE", "my_domain"), gin("MIXTURE_OR_TASK_NAME", "my_mixture"))
    run("pack", *tiny, aligned, *mine, "--out=packed")
    info = folders.read_info(tmp_path / "packed", "packed_rows")
    assert info["mixture"] == "my_mixture"
    assert set(info["splits"]["train"]["formats"]) == {
        "zero_shot_chain_of_thought",
        "zero_shot_answer_only",
    }
    model = gin("MODEL_DIR", "model")
    run("train", *tiny, gin("PACKED_DIR", "packed"), model, gin("TRAIN_STEPS_RELATIVE", 2))
    sets = (gin("EVAL_SETS_MODULE", "my_domain"), gin("EVAL_SETS", ("coins",)))
    text = run("evaluate", *tiny, model, *sets)
    assert "coins_zero_shot_chain_of_thought" in text and " 15 " in text


def test_the_commands_for_a_task_of_ones_own_use_that_module():
    text = README.partition("## Your own task\n")[2].partition("\n## ")[0]
    assert "MIXTURE_OR_TASK_MODULE='my_domain'" in text and "EVAL_SETS=\"('coins',)\"" in text
    assert len(block("my_domain.py").splitlines()) <= 40
