"""Asking a trained student, without gin and without TensorFlow."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from specialize_jax import models
from specialize_jax.apps import generate, student
from tests.apps import students
from tests.apps.line import run

QUESTION = "Ada has 3 apples and buys 4 more. How many apples in all?"
SHORT = "--max_length=6"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return students.write(tmp_path_factory.mktemp("student"), (2, 4))


@pytest.fixture
def ask(model_dir, capsys):
    """Returns a function that asks, and gives what is printed; errors where it fails."""

    def call(*arguments, checkpoint=model_dir, status=0):
        assert run("generate", "--checkpoint", checkpoint, SHORT, *arguments) == status
        found = capsys.readouterr()
        return found.err if status else found.out

    return call


def test_an_answer_and_what_is_read_out_of_it(ask):
    told = ask("--json", QUESTION)
    [reply] = map(json.loads, told.splitlines())
    assert reply["prompt"] == f"Q: {QUESTION}\nLet's think step by step"
    assert len(reply["responses"]) == len(reply["answers"]) == 1
    assert reply["answer"] == reply["answers"][0]
    shown = ask(QUESTION)
    assert shown.startswith(f"Q: {QUESTION}\n") and "\nanswer: " in shown
    assert (reply["responses"][0] or "(an empty text)") in shown


def test_the_last_checkpoint_is_asked_unless_another_is_named(ask, model_dir):
    last, named = (ask("--json", *more, QUESTION) for more in ((), ("--step=4",)))
    assert last == named
    first = ask("--json", "--step=2", QUESTION)
    assert first != last
    folder = model_dir / "checkpoints" / "2"
    assert ask("--json", QUESTION, checkpoint=folder) == first
    assert ask("--json", QUESTION, checkpoint=folder.parent) == last


def test_several_questions_keep_their_order_and_samples_their_seed(ask, monkeypatch):
    questions = [f"{QUESTION} {'And now? ' * count}".strip() for count in (9, 0, 5)]
    sampling = ("--json", "--samples=3", "--temperature=1.5", "--seed=1")
    told = ask(*sampling, *questions)
    replies = [json.loads(line) for line in told.splitlines()]
    assert [reply["question"] for reply in replies] == questions
    assert all(len(reply["responses"]) == 3 for reply in replies)
    assert any(len(set(reply["responses"])) > 1 for reply in replies)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n".join(questions) + "\n"))
    assert ask(*sampling, "-") == told
    assert ask(*sampling[:-1], *questions) != told  # another seed
    assert "votes: " in ask("--samples=2", QUESTION)


def test_in_context_formats_take_exemplars(ask, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Q: 1 + 1?\nLet's think step by step\n1 + 1 = 2.\nThe answer is 2.")
    told = ask("--json", "--format=in_context_answer_only", f"--exemplars={file}", QUESTION)
    assert json.loads(told)["prompt"] == f"Q: 1 + 1?\nA: The answer is 2\n\nQ: {QUESTION}\nA:"


def test_a_question_behind_calculator_is_a_question(ask, monkeypatch):
    monkeypatch.setattr(generate.answering.Answerer, "stream", lambda *_: iter([(0, ["7"])]))
    for arguments in (["--calculator", QUESTION], ["--calculator", "equations", QUESTION]):
        assert json.loads(ask("--json", *arguments))["question"] == QUESTION


def test_the_calculator_after_an_answer_mends_it(ask, monkeypatch):
    said = iter([(0, ["2 + 3 = 6. So 6 * 2 = 12. The answer is 12."])])
    monkeypatch.setattr(generate.answering.Answerer, "stream", lambda *_: said)
    told = json.loads(ask("--json", "--calculator=after", QUESTION))
    assert told["responses"] == ["2 + 3 = 5. So 5 * 2 = 10. The answer is 10."]
    assert told["answer"] == "10"


def test_most_votes_win_and_all_are_told(ask, monkeypatch):
    said = iter([(0, ["The answer is 1", "none", "The answer is 2", "so 2", ""])])
    monkeypatch.setattr(generate.answering.Answerer, "stream", lambda *_: said)
    told = ask("--samples=5", QUESTION)
    assert "answer: 2\nvotes: 2 x 2, 1 x 1, no answer x 2\n" in told
    assert "[5] (an empty text)" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step=7", "q"], "No checkpoint of step 7"),
        (["--format=poem", "q"], "unknown format 'poem'; choices: zero_shot_answer_only"),
        (["--format=in_context_answer_only", "q"], "needs --exemplars FILE"),
        (["--exemplars=x", "q"], "takes no --exemplars FILE"),
        (["--input_length=3", QUESTION], "the student allow 3: …'"),
        (["--calculator=abacus", "q"], "unknown calculator 'abacus'; choices: none, equations"),
        (["--samples=0", "q"], "expected samples >= 1, got 0"),
        (["--samples=2", "--temperature=0", "q"], "expected a temperature above 0"),
        ([" "], "expected a question, got an empty one"),
        ([], "expected a question, or -"),
    ],
)
def test_what_cannot_be_asked_is_named(ask, arguments, message):
    assert message in ask(*arguments, status=1)


def test_folders_that_hold_no_student(ask, model_dir, tmp_path):
    assert "config.json" in ask("q", checkpoint=tmp_path, status=1)
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "2")
    shutil.rmtree(copy / "checkpoints" / "4")
    assert "no checkpoints in" in ask("q", checkpoint=copy, status=1)
    config = json.loads((copy / "checkpoints" / "config.json").read_text())
    for change, message in (
        ({"student_tokenizer": None}, "has no tokenizer; convert it again"),
        ({"model": {"rnn": 1}}, "does not describe a student"),
    ):
        (copy / "checkpoints" / "config.json").write_text(json.dumps(config | change))
        assert message in ask("q", checkpoint=copy, status=1)


def test_a_student_with_few_positions_has_room_for_prompt_and_answer(model_dir):
    read = student.read(model_dir)
    assert read.input_length(9999, 200) == 9999  # relative positions have no end
    gpt2 = read._replace(model=models.build("gpt2_tiny", num_positions=128))
    assert gpt2.input_length(9999, 28) == 100 and gpt2.input_length(64, 28) == 64
    with pytest.raises(ValueError, match="128 positions for a prompt and its answer"):
        gpt2.input_length(64, 128)


def test_neither_gin_nor_tensorflow_is_needed(model_dir):
    code = (
        "import sys\n"
        "for name in ('gin', 'tensorflow', 'seqio', 'torch', 'tensorflow_text'):\n"
        "    sys.modules[name] = None\n"
        "from specialize_jax.apps import main\n"
        f"sys.exit(main.main(['generate', '--checkpoint', {str(model_dir)!r}, {SHORT!r}, 'q']))"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Q: q\n")
