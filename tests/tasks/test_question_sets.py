"""The seqio tasks of the test sets, on rows written here."""

import json

import gin
import pytest
import seqio

from specialize_jax.evaluation import prompts, readers, splits
from specialize_jax.schemas import Format
from specialize_jax.tasks import (  # noqa: F401 (importing registers)
    bbh,
    commonsense,
    gsm8k,
    math_ood,
    mawps,
    question_sets,
    question_settings,
    symbolic,
)
from tests.fixtures import world

EXEMPLARS = "Q: 2 + 2?\nLet's think step by step\nIt is 4.\nThe answer is 4"
GSM8K = [{"question": f"{i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(3)]
# The tokenizer of the fixtures has few capital letters.
SPORT = {"input": "Is it plausible?", "target": "no"}
SVAMP = [
    {"ID": f"chal-{i}", "Body": "Tom has pens", "Question": f"Plus {i}?", "Answer": float(i)}
    for i in range(1000)
]


@pytest.fixture(autouse=True)
def data(tmp_path):
    gin.clear_config()
    with gin.unlock_config():
        for name, value in (("data_dir", str(tmp_path)), ("tokenizer_file", str(world.TOKENIZER))):
            gin.bind_parameter(f"specialize_jax.tasks.question_settings.Settings.{name}", value)
    yield tmp_path
    gin.clear_config()


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_gsm8k(folder):
    write(folder, "gsm8k/test.jsonl", "\n".join(map(json.dumps, GSM8K)))


def examples(name, split="test"):
    task = seqio.get_mixture_or_task(name)
    return list(task.get_dataset(None, split, shuffle=False).as_numpy_iterator())


def evaluate(name, responses, split="test"):
    """What seqio's own evaluator says of responses, in their order."""
    vocabulary = question_sets.VOCABULARY
    evaluator = seqio.Evaluator(
        name, seqio.EncDecFeatureConverter(pack=False), split, async_compute_metrics=False
    )

    def predict(dataset, model_feature_shapes=None):
        ids = [[*vocabulary.encode(text), vocabulary.eos_id] for text in responses]
        ids = [[*row, *[vocabulary.pad_id] * (max(map(len, ids)) - len(row))] for row in ids]
        return [(int(index), ids[int(index)]) for index, _ in dataset.as_numpy_iterator()]

    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
    return metrics.result()[name]


def test_every_set_is_a_task_in_every_format():
    names = [name for name in readers.SETS if not name.startswith("miniworld")]
    tasks = {question_sets.task_name(name, fmt) for name in names for fmt in Format}
    assert len(tasks) == 4 * len(names) and tasks <= set(seqio.TaskRegistry.names())
    for group, members in readers.GROUPS.items():
        for fmt in Format:
            mixture = seqio.MixtureRegistry.get(question_sets.task_name(group, fmt))
            assert {task.name for task in seqio.get_subtasks(mixture)} == {
                question_sets.task_name(name, fmt) for name in members
            }
        assert len(seqio.get_subtasks(seqio.MixtureRegistry.get(group))) == len(members)


@pytest.mark.parametrize("fmt", list(Format))
def test_rows_are_prompts_and_gold_answers(data, fmt):
    write_gsm8k(data)
    write(data, readers.MATH_PROMPT, EXEMPLARS)
    rows = examples(question_sets.task_name("gsm8k", fmt))
    assert [row["question_id"].decode() for row in rows] == [f"gsm8k/test/{i}" for i in range(3)]
    first, *_ = rows
    prompt = first["inputs_pretokenized"].decode()
    assert ("2 + 2?" in prompt) == fmt.is_in_context and "Q: 0 + 1?" in prompt
    assert first["targets_pretokenized"].decode() == "The answer is 1"
    vocabulary = question_sets.VOCABULARY
    assert first["inputs"].tolist() == [*vocabulary.encode(prompt), vocabulary.eos_id]
    assert first["targets"].tolist() == [*vocabulary.encode("The answer is 1"), vocabulary.eos_id]


def test_evaluator_reports_every_mode_that_fits(data):
    write_gsm8k(data)
    said = ["So 0 + 1 = 1. The answer is 1.", "The answer is 7.", "First 3 and then 4"]
    assert evaluate("gsm8k_zero_shot_chain_of_thought", said) == {
        "exact_match,corrected": pytest.approx(1 / 3),
        "exact_match,fu2023": pytest.approx(1 / 3),
        "exact_match,gsm8k_cot:strict-match": pytest.approx(1 / 3),
        "exact_match,gsm8k_cot:flexible-extract": pytest.approx(1 / 3),
    }
    perfect = ["The answer is 1.", "The answer is 2.", "It is 3"]
    scores = evaluate("gsm8k_zero_shot_answer_only", perfect)
    assert scores["exact_match,corrected"] == 1.0
    assert scores["exact_match,gsm8k_cot:strict-match"] == pytest.approx(2 / 3)


def test_bbh_tasks_take_their_prompts_and_the_papers_score(data):
    write(data, "bbh/bbh/sports_understanding.json", {"examples": [SPORT, SPORT]})
    block = "Q: q{0}\nA: Let's think step by step.\nYes. So the answer is yes.\n\n"
    text = "canary\n-----\nFind it.\n\n" + "".join(block.format(i) for i in range(3)).strip()
    write(data, "bbh/cot-prompts/sports_understanding.txt", text)
    chain, direct = (
        f"bbh_sports_understanding_in_context_{name}"
        for name in ("chain_of_thought", "answer_only")
    )
    shown = examples(chain)[0]["inputs_pretokenized"].decode()
    assert shown.startswith("Find it.") and shown.endswith("A: Let's think step by step.\n")
    with gin.unlock_config():
        gin.bind_parameter("specialize_jax.tasks.question_settings.Settings.prompts", "fu2023")
    assert examples(chain)[0]["inputs_pretokenized"].decode().startswith("canary")
    scores = evaluate(chain, ["The answer is no.", "so the answer is no."])
    assert scores["exact_match,corrected"] == 1.0
    assert scores["exact_match,fu2023_bbh"] == 0.5  # it reads lower case only
    assert "exact_match,fu2023_bbh_direct" in evaluate(direct, ["yes", "no"])


def test_our_parts_of_a_set_are_splits_of_its_tasks(data):
    write(data, "svamp/SVAMP.json", SVAMP)
    name = "svamp_zero_shot_answer_only"
    for split, part in question_sets.OURS.items():
        ids = [row["question_id"].decode() for row in examples(name, split)]
        assert ids == [f"svamp/chal-{row}" for row in sorted(splits.rows("svamp", part))]
    assert len(examples(name)) == 1000
    assert "validation" not in seqio.TaskRegistry.get("addsub_zero_shot_answer_only").splits


def test_generated_sets_need_no_data():
    with gin.unlock_config():
        gin.bind_parameter("specialize_jax.tasks.question_settings.Settings.data_dir", None)
    for fmt in Format:
        rows = examples(question_sets.task_name("coin_flip_3", fmt))
        assert len(rows) == 500
        assert b"A coin lies heads up." in rows[0]["inputs_pretokenized"]


def test_a_missing_tokenizer_and_mode_are_said(data):
    write_gsm8k(data)
    knobs = "specialize_jax.tasks.question_settings.Settings"
    with gin.unlock_config():
        gin.bind_parameter(f"{knobs}.tokenizer_file", None)
        gin.bind_parameter(f"{knobs}.prompts", "plain")
    with pytest.raises(ValueError, match=r"question_settings\.Settings\.tokenizer_file, got none"):
        question_settings.tokenizer_file()
    with pytest.raises(
        ValueError, match="unknown mode 'plain' of prompts; choices: corrected, fu2023"
    ):
        examples("gsm8k_zero_shot_answer_only")


def test_prompts_show_named_exemplars_first(data):
    write(data, readers.MATH_PROMPT, EXEMPLARS)
    write(data, "mine.txt", EXEMPLARS.replace("2 + 2", "9 - 5"))
    fmt, question = Format.IN_CONTEXT_CHAIN_OF_THOUGHT, readers.Question("q/0", "1 + 1?", "2")
    forms = question_sets.FORMS
    for file, shown in ((None, "2 + 2?"), (str(data / "mine.txt"), "9 - 5?")):
        prompt = prompts.build(fmt, "gsm8k", forms, exemplars=file, data_dir=data)
        assert prompt.shots == 1
        assert prompt.render(question) == (
            f"Q: {shown}\nLet's think step by step\nIt is 4.\nThe answer is 4\n\n"
            "Q: 1 + 1?\nLet's think step by step"
        )
    with pytest.raises(ValueError, match="'aqua' brings no exemplars"):
        prompts.build(fmt, "aqua", forms, data_dir=data)
