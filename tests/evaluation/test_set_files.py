"""Readers on rows written here, in the form of the published files: no data folder is needed."""

import json

import numpy as np
import pytest

from specialize_jax import answers
from specialize_jax.evaluation import readers
from specialize_jax.schemas import SchemaError

SOLVED = {"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}
SOCRATIC = {
    "question": "1 + 1 + 1?",
    "answer": "What is 1 + 1? ** It is <<1+1=2>>2.\nAnd one more? ** \n#### 3",
}
AQUA = {
    "question": "Half of 4?",
    "options": ["A)1", "B)2 m", "C) none"],
    "rationale": "4/2",
    "correct": "B",
}
STRATEGY = [
    {"qid": "a1", "question": "Is snow warm?", "answer": False, "facts": []},
    {"qid": "a2", "question": "Is snow cold?", "answer": True, "facts": []},
]
COMMONSENSE = {
    "answerKey": "B",
    "id": "c1",
    "question": {
        "stem": "Where is a cup?",
        "choices": [{"label": "A", "text": "sky"}, {"label": "B", "text": "shelf"}],
    },
}


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "split", "file", "content", "expected"),
    [
        ("gsm8k", "train", "gsm8k/train.jsonl", SOLVED, ("1 + 1?", "2", "number")),
        (
            "gsm8k_socratic",
            "test",
            "gsm8k/test_socratic.jsonl",
            SOCRATIC,
            ("1 + 1 + 1?", "3", "number"),
        ),
        (
            "gsm_hard",
            "test",
            "gsm_hard/gsmhardv2.jsonl",
            {"input": "q?", "code": "", "target": -2.0107e-06},
            ("q?", "-0.0000020107", "number"),
        ),
        (
            "addsub",
            "test",
            "mawps/mawpsaddsub.jsonl",
            {"input": "q?", "target": 43.0},
            ("q?", "43", "number"),
        ),
        (
            "singleeq",
            "test",
            "mawps/mawpssingleeq.jsonl",
            {"input": "q?", "target": 1.84},
            ("q?", "1.84", "number"),
        ),
        (
            "singleop",
            "test",
            "mawps/mawpssingleop.jsonl",
            {"input": "q?", "target": 9},
            ("q?", "9", "number"),
        ),
        (
            "aqua",
            "dev",
            "aqua/dev.json",
            AQUA,
            ("Half of 4?\nAnswer Choices: (a) 1 (b) 2 m (c) none", "(B)", "option"),
        ),
        (
            "strategyqa",
            "validation",
            "strategyqa/dev.json",
            STRATEGY,
            ("Is snow warm?", "no", "boolean"),
        ),
        (
            "strategyqa",
            "train",
            "strategyqa/train.json",
            STRATEGY,
            ("Is snow warm?", "no", "boolean"),
        ),
        (
            "commonsenseqa",
            "validation",
            "commonsenseqa/dev_rand_split.jsonl",
            COMMONSENSE,
            ("Where is a cup?\nAnswer Choices: (a) sky (b) shelf", "(B)", "option"),
        ),
    ],
)
def test_rows_become_questions(tmp_path, name, split, file, content, expected):
    write(tmp_path, file, content)
    first = readers.read(name, tmp_path, split)[0]
    assert (first.question, first.answer, first.kind) == expected
    assert first.row == 0 and first.has_gold
    assert answers.equal(f"So it is. The answer is {first.answer}.", first.answer, kind=first.kind)


BBH = {
    "boolean_expressions": ("not ( True ) is", "False", "boolean"),
    "navigate": ("Do you return?\nOptions:\n- Yes\n- No", "Yes", "boolean"),
    "sports_understanding": ("Is it plausible?", "no", "boolean"),
    "formal_fallacies": ("Is the argument\nvalid?", "invalid", "text"),
    "dyck_languages": ("Input: [ { <", "> } ]", "text"),
    "word_sorting": ("List: b a", "a b", "text"),
    "multistep_arithmetic_two": ("((1 - 2)) =", "-1", "number"),
    "object_counting": ("How many?", "12", "number"),
    "snarks": ("Which?\nOptions:\n(A) x\n(B) y", "(B)", "option"),
}


@pytest.mark.parametrize("task", BBH)
def test_bbh_rows_have_the_kind_of_their_task(tmp_path, task):
    text, gold, kind = BBH[task]
    row = {"input": text, "target": gold}
    write(tmp_path, f"bbh/bbh/{task}.json", {"canary": "c", "examples": [row, row]})
    first, second = readers.read(f"bbh_{task}", tmp_path)
    assert (first.question, first.answer, first.kind) == BBH[task]
    assert (second.id, second.row) == (f"bbh_{task}/1", 1)
    assert first.has_gold
    assert answers.equal(f"So the answer is {gold}.", gold, kind=kind)
    wrong = {
        "boolean": "yes" if gold in ("no", "False") else "no",
        "text": "] valid",
        "number": "2",
    }
    assert not answers.equal(f"The answer is {wrong.get(kind, '(A)')}.", gold, kind=kind)


def test_a_bbh_answer_that_names_no_option_is_counted(tmp_path):
    row = {"input": "Which?\nOptions:\n(A) Monsters\n(B) Inc", "target": "Monsters, Inc"}
    write(tmp_path, "bbh/bbh/movie_recommendation.json", {"examples": [row]})
    (question,) = readers.read("bbh_movie_recommendation", tmp_path)
    assert not question.has_gold


def test_socratic_steps_are_told_apart(tmp_path):
    write(tmp_path, "gsm8k/test_socratic.jsonl", SOCRATIC)
    (question,) = readers.read("gsm8k_socratic", tmp_path)
    assert question.id == "gsm8k_socratic/test/0"
    assert question.source["steps"] == [
        {"question": "What is 1 + 1?", "solution": "It is <<1+1=2>>2."},
        {"question": "And one more?", "solution": ""},
    ]


def dev200(folder, rows):
    write(folder, "gsm8k/train.jsonl", "\n".join([json.dumps(SOLVED)] * 3))
    (folder / "cot_prompts").mkdir()
    np.save(folder / "cot_prompts" / "validation_index.npy", rows)


def test_dev200_keeps_the_rows_and_ids_of_train(tmp_path):
    dev200(tmp_path, np.array([2, 0, 2]))
    chosen = readers.read("gsm8k_dev200", tmp_path)
    assert [question.id for question in chosen] == ["gsm8k/train/0", "gsm8k/train/2"]
    assert [question.row for question in chosen] == [0, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([0, 3]), r"validation_index\.npy: row 3 is not among the 3 of GSM8K train"),
        (np.array([-1]), r"row -1 is not among the 3"),
        (np.array([0.5]), r"expected a list of row numbers, got float64 \(1,\)"),
        (np.array([{}], object), r"expected a list of row numbers"),
    ],
)
def test_dev200_refuses_rows_that_are_none(tmp_path, rows, message):
    dev200(tmp_path, rows)
    with pytest.raises(SchemaError, match=message):
        readers.read("gsm8k_dev200", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "gsm8k_socratic",
            "gsm8k/test_socratic.jsonl",
            SOLVED,
            r"line 1: expected 'sub-question \*\* step', got '1 \+ 1 = ",
        ),
        ("gsm_hard", "gsm_hard/gsmhardv2.jsonl", '{"input": "q", "target": NaN}', "finite number"),
        (
            "aqua",
            "aqua/test.json",
            AQUA | {"correct": "D"},
            r"options A, B, \.\.\. and one of them",
        ),
        ("aqua", "aqua/test.json", AQUA | {"options": ["A)1", "C)2"]}, r"got \['A', 'C'\], 'B'"),
        ("aqua", "aqua/test.json", AQUA | {"options": []}, r"line 1: .*got \[\], 'B'"),
        (
            "strategyqa",
            "strategyqa/dev.json",
            [{"qid": "a", "question": "q"}],
            "item 0: expected 'answer'",
        ),
        (
            "commonsenseqa",
            "commonsenseqa/dev_rand_split.jsonl",
            COMMONSENSE | {"question": {"stem": "q", "choices": [{"label": "A"}]}},
            "line 1: expected 'text'",
        ),
        ("bbh_snarks", "bbh/bbh/snarks.json", [], "expected an object, got list"),
        ("bbh_snarks", "bbh/bbh/snarks.json", {"examples": {}}, "expected 'examples'"),
        (
            "bbh_snarks",
            "bbh/bbh/snarks.json",
            {"examples": [{"input": "q"}]},
            "item 0: expected 'target'",
        ),
    ],
)
def test_malformed_files_name_the_place(tmp_path, name, file, content, message):
    write(tmp_path, file, content)
    with pytest.raises(SchemaError, match=message):
        readers.read(name, tmp_path)


def test_rows_of_gsm8k_from_elsewhere_only_without_its_folder(tmp_path, monkeypatch):
    asked = []

    def rows(split):
        asked.append(split)
        return [SOLVED, SOLVED | {"question": "Why?"}]

    monkeypatch.delenv(readers.DATA_DIR_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="no data folder given for 'gsm8k/test.jsonl'"):
        readers.read("gsm8k")
    monkeypatch.setitem(readers.gsm8k.ELSEWHERE, "gsm8k", rows)
    for folder in (None, tmp_path):
        questions = readers.read("gsm8k", folder, "train")
        assert [(q.id, q.question, q.answer) for q in questions] == [
            ("gsm8k/train/0", "1 + 1?", "2"),
            ("gsm8k/train/1", "Why?", "2"),
        ]
    assert asked == ["train", "train"]
    write(tmp_path, "gsm8k/train.jsonl", SOLVED)
    assert len(readers.read("gsm8k", tmp_path, "train")) == 1
    with pytest.raises(FileNotFoundError, match=r"gsm8k/test\.jsonl"):
        readers.read("gsm8k", tmp_path)  # the folder is there, and not elsewhere
    monkeypatch.setitem(readers.gsm8k.ELSEWHERE, "gsm8k", lambda split: [{"question": "q"}])
    with pytest.raises(
        SchemaError, match="split 'test', not from a file, row 0: expected 'answer'"
    ):
        readers.read("gsm8k")
