"""Prompts of BIG-Bench Hard: the published files, and one written here."""

import json

import pytest

from specialize_jax.evaluation import bbh, readers
from tests.real_data import data_dir

CHAIN, DIRECT = "in_context_chain_of_thought", "in_context_answer_only"
HEADER = "DO NOT TRAIN. canary GUID 1\n-----\n"
TASK = "Add two numbers.\n\nNumbers may be negative."
PUBLISHED = f"""{HEADER}{TASK}

Q: 1 + 1
Options:
(A) 2
(B) 3
A: Let's think step by step.
1 + 1 = 2.

That is (A). So the answer is (A).

Q: 2 + 2
A: Let's think step by step. It is 4. So the answer is 4.

Q: 3 - 4
A: Let's think step by step.
It is -1. So the answer is -1."""


def ask(label, mode):
    return bbh.prompt(PUBLISHED, "5 + 5", label, mode, "file")


def test_corrected_chain_is_the_published_text_without_its_header():
    assert ask(CHAIN, "corrected") == (
        PUBLISHED.removeprefix(HEADER) + "\n\nQ: 5 + 5\nA: Let's think step by step.\n"
    )


def test_corrected_direct_shows_every_answer_and_no_chain():
    assert ask(DIRECT, "corrected") == (
        f"{TASK}\n\nQ: 1 + 1\nOptions:\n(A) 2\n(B) 3\nA: The answer is (A).\n\n"
        "Q: 2 + 2\nA: The answer is 4.\n\nQ: 3 - 4\nA: The answer is -1.\n\nQ: 5 + 5\nA:"
    )


def test_the_papers_prompts_keep_their_faults():
    assert ask(CHAIN, "fu2023") == PUBLISHED + "\n\nQ: 5 + 5\nA: Let's think step by step.\n"
    # One direct exemplar, a second with its chain that stops before its answer, a space at the end.
    assert ask(DIRECT, "fu2023") == (
        f"{HEADER}{TASK}\n\nQ: 1 + 1\nOptions:\n(A) 2\n(B) 3\nA: the answer is (A).\n\n"
        "Q: 2 + 2\nA: Let's think step by step. It is 4. So \n\nQ: 5 + 5\nA: the answer is "
    )


def test_unknown_prompts_list_the_choices():
    with pytest.raises(ValueError, match="mode 'plain'.*modes: corrected, fu2023; formats: in_con"):
        ask(CHAIN, "plain")
    with pytest.raises(ValueError, match=f"format 'zero_shot_answer_only'.*{DIRECT}"):
        ask("zero_shot_answer_only", "corrected")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (PUBLISHED.replace("So the answer is 4.", "It is 4."), "got 2 of 3"),
        (PUBLISHED.rpartition("\n\nQ: ")[0], "got 2 of 2"),
        ("", "got 0 of 0"),
    ],
)
@pytest.mark.parametrize("label", [CHAIN, DIRECT])
def test_a_file_of_another_form_is_named(broken, message, label):
    with pytest.raises(ValueError, match=f"'file': expected what the task is.*{message}"):
        bbh.prompt(broken, "q", label, "corrected", "file")


def test_the_papers_direct_prompt_needs_an_answer():
    with pytest.raises(ValueError, match="'file': expected 'the answer is ...', got none"):
        bbh.prompt("Q: 1\nA: 2", "q", DIRECT, "fu2023", "file")


def test_sets_render_with_the_file_of_their_task(tmp_path):
    folder = tmp_path / "bbh" / "cot-prompts"
    folder.mkdir(parents=True)
    (folder / "navigate.txt").write_text(PUBLISHED)
    question = readers.Question("bbh_navigate/0", "5 + 5", "Yes", "boolean")
    own = readers.SETS["bbh_navigate"]
    assert own.render(CHAIN, question, tmp_path, "corrected") == ask(CHAIN, "corrected")
    assert own.shots == 3
    with pytest.raises(FileNotFoundError, match=r"cot-prompts/snarks\.txt.*--data_dir"):
        readers.SETS["bbh_snarks"].render(CHAIN, question, tmp_path, "corrected")


@pytest.mark.parametrize("task", bbh.KINDS)
def test_real_prompts_of_every_task(task):
    text = (data_dir() / "bbh" / "cot-prompts" / f"{task}.txt").read_text()
    shown = bbh.prompt(text, "LAST", CHAIN, "corrected", task)
    assert "canary" not in shown and "-----" not in shown
    # Nothing of the published text is lost, and nothing is added but the question.
    assert text.endswith(shown.partition("\n\nQ: LAST\n")[0])
    direct = bbh.prompt(text, "LAST", DIRECT, "corrected", task)
    assert direct.count("\nA: The answer is ") == 3 and direct.endswith("\n\nQ: LAST\nA:")
    assert "step by step" not in direct and "the answer is" not in direct
    faulty = bbh.prompt(text, "LAST", DIRECT, "fu2023", task)
    assert faulty.startswith("BENCHMARK DATA") and faulty.count("\nA: the answer is ") == 2
    assert faulty.partition("\n\nQ: LAST\n")[0].endswith("So ")


CODEX = (
    "boolean_expressions",
    "date_understanding",
    "dyck_languages",
    "geometric_shapes",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "sports_understanding",
    "word_sorting",
)


@pytest.mark.parametrize("task", CODEX)
def test_prompts_are_those_that_code_davinci_002_answered(task):
    """The published outputs hold the prompts that they answer, without the header."""
    file = data_dir() / "teacher_bbh_codex" / f"{task}_few_shot_template_0-255000.json"
    asked = [row["input"] for row in json.loads(file.read_text())["outputs"]]
    name = f"bbh_{task}"
    render = readers.SETS[name].render
    questions = readers.read(name, data_dir())
    prompts = [render(CHAIN, question, data_dir(), "corrected") for question in questions]
    assert [text.strip() for text in asked] == [text.strip() for text in prompts]
