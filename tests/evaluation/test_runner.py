import json
import subprocess
import sys

import pytest

from specialize_jax.evaluation import journal as journal_lib
from specialize_jax.evaluation import readers, runner, scoring
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError, results
from tests.real_data import data_dir

QUESTIONS = [
    Question(f"toy/{row}", f"What is {row} + 1?", str(row + 1), row=row, source={"sum": [row, 1]})
    for row in range(7)
]


def prompt(question):
    return f"Q: {question.question}\n"


def run(questions, prompt_fn, predict, *, batch_size=64, **arguments):
    """`runner.run` with a model that answers batches in order."""
    return runner.run(questions, prompt_fn, runner.in_batches(predict, batch_size), **arguments)


class Model:
    """Adds correctly, apart from questions it is told to get wrong or to fail on."""

    def __init__(self, fail_on=None, wrong=()):
        self.asked, self.fail_on, self.wrong = [], fail_on, wrong

    def __call__(self, prompts):
        assert isinstance(prompts, list)
        replies = []
        for text in prompts:
            row = int(text.split()[3])
            if row == self.fail_on:
                raise KeyboardInterrupt
            replies.append(f"The answer is {row + 1 + (row in self.wrong)}.")
        self.asked.append(len(prompts))
        return replies


def test_every_question_is_asked_once_in_order():
    model, seen = Model(wrong=(2,)), []
    predictions = run(
        QUESTIONS, prompt, model, batch_size=3, progress=lambda *done: seen.append(done)
    )
    assert model.asked == [3, 3, 1]
    assert seen == [(done, 7) for done in range(8)]
    assert [prediction.question for prediction in predictions] == QUESTIONS
    assert predictions[2].prompt == "Q: What is 2 + 1?\n"
    assert predictions[2].responses == ["The answer is 4."]
    for mode in runner.MODES:
        correct = [prediction.scores[mode].correct for prediction in predictions]
        assert correct == [True, True, False, True, True, True, True]


def test_nothing_to_ask_gives_nothing():
    assert run([], prompt, Model()) == []


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    journal = runner.journal_path(tmp_path / "eval" / "100", "toy")
    with pytest.raises(KeyboardInterrupt) as interrupted:
        run(QUESTIONS, prompt, Model(fail_on=5), batch_size=2, journal=journal)
    assert interrupted.value.__notes__ == [
        f"4 of 7 answers were done, kept in '{journal}'; the same command goes on from there"
    ]
    again, seen = Model(), []
    resumed = run(
        QUESTIONS,
        prompt,
        again,
        batch_size=2,
        journal=journal,
        progress=lambda *done: seen.append(done),
    )
    assert again.asked == [2, 1]
    assert seen == [(done, 7) for done in range(4, 8)]
    assert resumed == run(QUESTIONS, prompt, Model(), batch_size=2)
    untouched = Model(fail_on=0)
    assert run(QUESTIONS, prompt, untouched, journal=journal) == resumed
    assert untouched.asked == []


def test_resuming_after_every_possible_cut_of_the_file(tmp_path):
    """Whatever byte a killed process stopped at, nothing whole is asked again and all is right."""
    journal = tmp_path / "predictions_toy.jsonl"
    expected = run(QUESTIONS[:3], prompt, Model(), journal=journal)
    content = journal.read_bytes()
    for cut in range(len(content) + 1):
        journal.write_bytes(content[:cut])
        model = Model()
        assert run(QUESTIONS[:3], prompt, model, journal=journal) == expected
        assert sum(model.asked) == 3 - content[:cut].count(b"\n")
        assert journal.read_bytes() == content


def test_only_the_same_request_is_used_again(tmp_path):
    journal, model = tmp_path / "predictions.jsonl", Model()
    arguments = {"journal": journal, "batch_size": 10}
    run(QUESTIONS, prompt, model, generation={"max_length": 8}, **arguments)
    run(QUESTIONS, lambda q: prompt(q) + " ", model, generation={"max_length": 8}, **arguments)
    run(QUESTIONS, prompt, model, generation={"max_length": 9}, **arguments)
    assert model.asked == [7, 7, 7]
    run(QUESTIONS[2:4], prompt, model, generation={"max_length": 8}, **arguments)
    run(QUESTIONS, prompt, model, modes=["fu2023"], generation={"max_length": 9}, **arguments)
    assert model.asked == [7, 7, 7]
    assert len(journal.read_text().splitlines()) == 21


def test_where_files_cannot_grow_the_journal_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_lib, "_can_grow", lambda path: False)
    journal = tmp_path / "predictions.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(QUESTIONS, prompt, Model(fail_on=4), batch_size=2, journal=journal)
    model = Model()
    run(QUESTIONS, prompt, model, batch_size=2, journal=journal)
    assert model.asked == [2, 1]
    assert len(journal.read_text().splitlines()) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_odd_texts_survive_the_journal(tmp_path):
    journal, odd = tmp_path / "predictions.jsonl", "\u2028 \x85 \r\n \ud83d half \u0000 7"
    for predict in (lambda prompts: [odd], None):
        (prediction,) = run(QUESTIONS[:1], prompt, predict, journal=journal)
        assert prediction.responses == [odd]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: expected a prediction"),
        ("[]", "line 1: expected a prediction"),
        ('{"id": "a"}', "line 1: expected a prediction"),
        ("\xff", "line 1: expected a prediction"),
        (
            '{"id": "a", "arguments": {}, "resps": ["x"]}',
            r"line 1: expected 'resps' \[\[text, ...\]\]",
        ),
    ],
)
def test_a_malformed_journal_names_its_line(tmp_path, line, message):
    journal = tmp_path / "predictions.jsonl"
    journal.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(SchemaError, match=message):
        run(QUESTIONS, prompt, Model(), journal=journal)
    assert journal.read_bytes() == line.encode("latin-1") + b"\n"


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda prompts: prompts[1:], "to return 7 texts, got 6"),
        (lambda prompts: "seven c", "to return 7 texts, got one string"),
        (lambda prompts: [None] * 7, "to return texts, got None"),
    ],
)
def test_a_wrong_predict_fn_is_named(predict, message):
    with pytest.raises(ValueError, match=message):
        run(QUESTIONS, prompt, predict)


def test_wrong_arguments_are_found_before_anything_is_decoded():
    model = Model()
    with pytest.raises(ValueError, match="batch_size >= 1, got 0"):
        run(QUESTIONS, prompt, model, batch_size=0)
    with pytest.raises(ValueError, match="unknown extraction mode 'strict'; choices: corrected"):
        run(QUESTIONS, prompt, model, modes=["strict"])
    with pytest.raises(ValueError, match="unique question ids, got 'toy/0' twice"):
        run([*QUESTIONS, QUESTIONS[0]], prompt, model)
    assert model.asked == []


def test_saved_files_follow_the_schema(tmp_path):
    no_gold = Question("toy/7", "What is 7 + 1?", "Bryan", row=7)
    predictions = run(
        [*QUESTIONS, no_gold], prompt, Model(wrong=(0, 1)), generation={"max_length": 64}
    )
    task = runner.Task(predictions, original=100, n_shot=4, config={"prompt": "four"})
    path = runner.save(
        tmp_path, {"toy": task}, config={"model": "tiny"}, git_hash="abc", date=1.7e9
    )
    read = results.read_results(path)
    summary = scoring.summarize([prediction.scores["corrected"] for prediction in predictions])
    assert read["results"]["toy"] == {
        "alias": "toy",
        "exact_match,corrected": 5 / 8,
        "exact_match_stderr,corrected": summary.stderr,
        "exact_match,fu2023": 5 / 8,
        "exact_match_stderr,fu2023": summary.stderr,
    }
    counts = {"original": 100, "effective": 8, "without_gold": 1, "too_long": 0, "empty": 0}
    assert read["n-samples"]["toy"] == counts
    low, high = scoring.bootstrap([True] * 5 + [False] * 3)
    interval = {"low": low, "high": high, "method": "bootstrap", "resamples": 1000, "seed": 0}
    assert 0 < low < 5 / 8 < high < 1
    assert read["intervals"]["toy"] == dict.fromkeys(
        ("exact_match,corrected", "exact_match,fu2023"), interval
    )
    assert read["n-shot"] == {"toy": 4}
    assert read["configs"]["toy"] == {"task": "toy", "num_fewshot": 4, "prompt": "four"}
    assert read["config"]["model"] == "tiny"
    assert read["config"]["packages"]["numpy"]
    stamp = path.name.removeprefix("results_").removesuffix(".json")
    samples = results.read_samples(tmp_path / f"samples_toy_{stamp}.jsonl")
    assert [(sample["filter"], sample["doc_id"]) for sample in samples] == [
        (mode, row) for mode in runner.MODES for row in range(8)
    ]
    assert samples[0]["doc"] == {"question": "What is 0 + 1?", "sum": [0, 1]}
    assert samples[0]["arguments"]["gen_args_0"]["arg_1"] == {"max_length": 64}
    assert [sample["exact_match"] for sample in samples[:8]] == [0, 0, 1, 1, 1, 1, 1, 0]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        path.name,
        f"samples_toy_{stamp}.jsonl",
    ]


def test_saving_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="task 'toy' has no predictions"):
        runner.save(tmp_path, {"toy": runner.Task([])}, config={})


def test_a_real_set_from_reader_to_results(tmp_path):
    """The texts of code-davinci-002 as the model: known accuracies come out of the files."""
    path = data_dir() / "teacher_cot_text" / "GSM8K" / "code002_COT" / "predictions.jsonl"
    texts = [json.loads(line)["completion"] for line in path.read_text("utf-8").splitlines()]
    questions = readers.read("gsm8k", data_dir())
    by_prompt = {prompt(question): texts[question.row] for question in questions}
    predictions = run(
        questions,
        prompt,
        lambda prompts: [by_prompt[text] for text in prompts],
        batch_size=500,
        journal=tmp_path / "predictions_gsm8k.jsonl",
    )
    saved = runner.save(tmp_path, {"gsm8k": runner.Task(predictions)}, config={})
    metrics = results.read_results(saved)["results"]["gsm8k"]
    assert metrics["exact_match,corrected"] == pytest.approx(838 / 1319)
    assert metrics["exact_match,fu2023"] == pytest.approx(831 / 1319)


def test_evaluation_imports_nothing_heavy():
    code = (
        "import sys, specialize_jax.evaluation\n"
        "heavy = {'jax', 'tensorflow', 'torch', 'seqio', 'gin', 'flax'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
