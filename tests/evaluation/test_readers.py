import dataclasses
import json

import pytest

from specialize_jax import answers
from specialize_jax.evaluation import readers
from specialize_jax.schemas import SchemaError
from tests.real_data import data_dir


@pytest.mark.parametrize(
    ("name", "split", "count", "without_gold"),
    [
        ("gsm8k", "test", 1319, 0),
        ("gsm8k", "train", 7473, 0),
        ("gsm8k_socratic", "test", 1319, 0),
        ("gsm_hard", "test", 1319, 0),
        ("svamp", "test", 1000, 0),
        ("asdiv", "test", 2305, 56),
        ("multiarith", "test", 600, 0),
        ("addsub", "test", 395, 0),
        ("singleeq", "test", 508, 0),
        ("singleop", "test", 562, 0),
        ("aqua", "test", 254, 0),
        ("aqua", "dev", 254, 0),
        ("strategyqa", "validation", 229, 0),
        ("strategyqa", "train", 2061, 0),
        ("commonsenseqa", "validation", 1221, 0),
    ],
)
def test_real_sets_have_their_published_size(name, split, count, without_gold):
    questions = readers.read(name, data_dir(), split)
    assert len(questions) == len({question.id for question in questions}) == count
    assert [question.row for question in questions] == list(range(count))
    assert_gold_is_found(questions, without_gold)


def assert_gold_is_found(questions, without_gold=0):
    """Every gold answer but some is read as its kind, and as itself after "the answer is"."""
    found = readers.with_gold(questions)
    assert len(found) == len(questions) - without_gold
    for question in found:
        if (
            question.id == "asdiv/nluds-1111"
        ):  # "11:55 p.m. on 24 December": "p.m. " ends a sentence
            continue
        said = f"Some words.\nThe answer is {question.answer}."
        assert answers.equal(said, question.answer, kind=question.kind), question
    json.dumps([question.source for question in questions], allow_nan=False)


def test_real_bbh_has_27_tasks_and_their_kinds():
    sizes = {"bbh_causal_judgement": 187, "bbh_penguins_in_a_table": 146, "bbh_snarks": 178}
    without_gold = {"bbh_movie_recommendation": 1, "bbh_ruin_names": 2}
    names, total = readers.expand(["bbh"]), 0
    for name in names:
        questions = readers.read(name, data_dir())
        assert len(questions) == sizes.get(name, 250)
        assert_gold_is_found(questions, without_gold.get(name, 0))
        total += len(questions)
    assert (len(names), total) == (27, 6511)


def test_real_validation_rows_are_of_gsm8k_train():
    chosen = readers.read("gsm8k_dev200", data_dir())
    train = readers.read("gsm8k", data_dir(), "train")
    assert len(chosen) == 200 and (chosen[0].row, chosen[-1].row) == (9, 7455)
    assert chosen == [train[question.row] for question in chosen]
    assert_gold_is_found(chosen)


def test_rows_of_real_sets():
    gsm8k = readers.read("gsm8k", data_dir())
    assert gsm8k[0].answer == "18"
    assert gsm8k[0].question.startswith("Janet\u2019s ducks lay 16 eggs")
    svamp = readers.read("svamp", data_dir())
    assert svamp[0].id == "svamp/chal-1"
    assert svamp[0].question.endswith(
        "25 dollars on each pack. How much do you have to pay to buy each pack?"
    )
    assert svamp[0].answer == "51"
    assert ".. " not in svamp[2].question
    assert svamp[2].question.endswith("cookies. How many salty cookies did Paco have left?")
    asdiv = readers.read("asdiv", data_dir())
    assert (asdiv[0].id, asdiv[0].answer) == ("asdiv/nluds-0001", "9 (apples)")
    assert asdiv[0].question.endswith("in the basket. How many apples are in the basket?")
    assert sum(";" in question.answer for question in asdiv) == 90
    multiarith = readers.read("multiarith", data_dir())
    assert (multiarith[0].id, multiarith[0].answer) == ("multiarith/0", "39")
    socratic = readers.read("gsm8k_socratic", data_dir())
    assert [q.question for q in socratic] == [q.question for q in gsm8k]
    assert [q.answer for q in socratic] == [q.answer for q in gsm8k]
    assert sum(len(question.source["steps"]) for question in socratic) == 4821
    assert readers.read("gsm_hard", data_dir())[0].answer == "-9867630"
    aqua = readers.read("aqua", data_dir(), "dev")
    assert aqua[0].question.endswith(
        "\nAnswer Choices: (a) 32400 (b) 6000 (c) 600 (d) 60000 (e) 10"
    )


def test_every_gold_answer_agrees_with_the_original_pattern_where_that_can_read_it():
    """A second look at every gold answer by a dull rule: plain digits need no cleverness."""
    for name in ("svamp", "multiarith"):
        for question in readers.read(name, data_dir()):
            fu2023 = answers.extract(question.answer, "fu2023")
            assert answers.extract(question.answer) == fu2023


SVAMP = [
    {"ID": "chal-1", "Body": "Tom has 2 pens", "Question": "How many? ", "Answer": 2.0},
    {"ID": "chal-2", "Body": " Tom has 2 pens. ", "Question": "How many?", "Answer": 2.5},
    {"ID": "chal-3", "Body": "If Tom has 2 pens,", "Question": "how many?", "Answer": -2},
]
ASDIV = """<?xml version="1.0" encoding="UTF-8" ?>
<Machine-Reading-Corpus-File><ProblemSet>
<Problem ID="p1" Grade="1" Source="x"><Body>Two &amp; two.</Body><Question>How many? </Question>
<Solution-Type>Addition</Solution-Type><Answer>4 (pens)</Answer><Formula>2+2=4</Formula></Problem>
<Problem ID="p2" Grade="1" Source="x"><Body>A or B.</Body><Question>Who?</Question>
<Solution-Type>Comparison</Solution-Type><Answer>Bryan</Answer><Formula>1</Formula></Problem>
</ProblemSet></Machine-Reading-Corpus-File>"""


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_svamp_joins_body_and_question_with_one_full_stop(tmp_path):
    write(tmp_path, "svamp/SVAMP.json", json.dumps(SVAMP))
    questions = readers.read("svamp", tmp_path)
    assert [question.question for question in questions] == [
        "Tom has 2 pens. How many?",
        "Tom has 2 pens. How many?",
        "If Tom has 2 pens, how many?",
    ]
    assert [question.answer for question in questions] == ["2", "2.5", "-2"]


def test_asdiv_keeps_questions_without_a_number(tmp_path):
    write(tmp_path, "asdiv/ASDiv.xml", ASDIV)
    first, second = readers.read("asdiv", tmp_path)
    assert (first.question, first.answer) == ("Two & two. How many?", "4 (pens)")
    assert first.source["Formula"] == "2+2=4"
    assert first.has_gold
    assert (second.id, second.answer, second.has_gold) == ("asdiv/p2", "Bryan", False)
    assert readers.with_gold([first, second]) == [first]


def test_line_separators_inside_a_question_are_kept(tmp_path):
    row = {"question": "a\u2028b?", "answer": "one\n#### 1,000"}
    write(tmp_path, "gsm8k/test.jsonl", json.dumps(row, ensure_ascii=False))
    (question,) = readers.read("gsm8k", tmp_path)
    assert (question.question, question.answer) == ("a\u2028b?", "1,000")


GOOD_LINE = '{"question": "q", "answer": "#### 1"}\n'


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("gsm8k", "gsm8k/test.jsonl", GOOD_LINE + "{", r"test\.jsonl, line 2: expected one JSON"),
        ("gsm8k", "gsm8k/test.jsonl", GOOD_LINE + "\n" + GOOD_LINE, r"line 2: expected one JSON"),
        ("gsm8k", "gsm8k/test.jsonl", "", r"line 1: expected one JSON"),
        ("gsm8k", "gsm8k/test.jsonl", "[1]", r"line 1: expected an object, got list"),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "q"}', r"line 1: expected 'answer', got None"),
        (
            "gsm8k",
            "gsm8k/test.jsonl",
            GOOD_LINE + '{"question": "q", "answer": "7"}',
            r"line 2: expected '#### <answer>'",
        ),
        (
            "multiarith",
            "mawps/mawpsmultiarith.jsonl",
            '{"input": "q", "target": true}',
            r"line 1: expected 'target', got True",
        ),
        ("svamp", "svamp/SVAMP.json", '[\n{"ID": 1,}]', r"SVAMP\.json, line 2: expected JSON"),
        ("svamp", "svamp/SVAMP.json", "{}", r"expected a JSON list, got dict"),
        ("svamp", "svamp/SVAMP.json", '[{"ID": "a"}]', r"item 0: expected 'Body', got None"),
        ("asdiv", "asdiv/ASDiv.xml", "<a>\n<b>\n</a>", r"ASDiv\.xml, line 3: expected XML"),
        (
            "asdiv",
            "asdiv/ASDiv.xml",
            ASDIV.replace("<Answer>Bryan</Answer>", ""),
            r"problem 1: expected 'Answer', got None",
        ),
    ],
)
def test_malformed_files_name_the_place(tmp_path, name, file, text, message):
    write(tmp_path, file, text)
    with pytest.raises(SchemaError, match=message):
        readers.read(name, tmp_path)


def test_missing_files_name_the_path_and_the_flag(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"expected '.*gsm8k/test.jsonl'.*--data_dir"):
        readers.read("gsm8k", tmp_path / "nowhere")
    monkeypatch.delenv("SPECIALIZE_JAX_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="--data_dir or set SPECIALIZE_JAX_DATA"):
        readers.read("svamp")
    write(tmp_path, "gsm8k/test.jsonl", GOOD_LINE)
    monkeypatch.setenv("SPECIALIZE_JAX_DATA", str(tmp_path))
    assert [question.id for question in readers.read("gsm8k")] == ["gsm8k/test/0"]


def test_unknown_names_and_splits_list_the_choices(tmp_path):
    with pytest.raises(ValueError, match="'gsm'; choices: gsm8k, .*svamp, asdiv, multiarith"):
        readers.read("gsm", tmp_path)
    with pytest.raises(ValueError, match="'validation' of 'gsm8k'; choices: test, train"):
        readers.read("gsm8k", tmp_path, "validation")
    with pytest.raises(ValueError, match="'test' of 'strategyqa'; choices: validation, train"):
        readers.read("strategyqa", tmp_path, "test")
    for name in ("svamp", "asdiv", "multiarith"):
        with pytest.raises(ValueError, match=f"'train' of '{name}'; choices: test"):
            readers.read(name, tmp_path, "train")


def test_sample_is_seeded_nested_and_in_order():
    questions = [readers.Question(f"x/{row}", "q", "1", row=row) for row in range(100)]
    small, large = readers.sample(questions, 10, seed=3), readers.sample(questions, 30, seed=3)
    assert small == readers.sample(questions, 10, seed=3) != readers.sample(questions, 10, seed=4)
    rows = [question.row for question in large]
    assert rows == sorted(set(rows)) and len(rows) == 30
    assert set(question.row for question in small) < set(rows)
    assert readers.sample(questions, 1000, seed=3) == questions
    with pytest.raises(ValueError, match="at least 1 question, got n=0"):
        readers.sample(questions, 0, seed=3)


@pytest.fixture
def own_sets():
    """Forgets what a test registers."""
    before = dict(readers.SETS)
    yield
    readers.SETS.clear()
    readers.SETS.update(before)


def test_a_module_registers_sets_of_its_own(own_sets):
    question = readers.Question("own/0", "1 + 1?", "2")
    own = readers.QuestionSet(lambda data_dir, split: [question], "generic", needs_data_dir=False)
    readers.register("own", own)
    assert readers.read("own") == [question]
    readers.register("own", own)  # the same again, as on a second import
    with pytest.raises(ValueError, match="'own' is registered already"):
        readers.register("own", own._replace(role="in_distribution"))
    with pytest.raises(ValueError, match=r"unknown role 'other'; choices: in_distribution"):
        readers.register("third", own._replace(role="other"))
    with pytest.raises(ValueError, match="'bbh' is registered already"):
        readers.register("bbh", own)  # the name of a group
    with pytest.raises(ValueError, match="choices: gsm8k, .*own, the groups .*EVAL_SETS_MODULE"):
        readers.read("absent")


def own_set(*questions):
    return readers.QuestionSet(lambda *_: list(questions), "generic", needs_data_dir=False)


def test_a_set_that_gives_no_rows_is_numbered(own_sets):
    # As the one of README: samples files, votes and `select` know a question by its row.
    asked = [readers.Question(f"own/{name}", f"What is {name}?", "1") for name in "abc"]
    readers.register("own", own_set(*asked))
    assert [(one.id, one.row) for one in readers.read("own")] == [
        ("own/a", 0),
        ("own/b", 1),
        ("own/c", 2),
    ]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"row": 5}, "set 'own': expected another id for every question, got 'own/a' 2 times"),
        ({"id": "own/b"}, "set 'own': expected another row for every question, got 4 2 times"),
    ],
)
def test_questions_that_cannot_be_told_apart_are_refused(own_sets, other, message):
    one = readers.Question("own/a", "What is a?", "1", row=4)
    readers.register("own", own_set(one, dataclasses.replace(one, **other)))
    with pytest.raises(ValueError, match=message):
        readers.read("own")


def test_a_set_under_another_role(own_sets):
    """Seen from another specialism than GSM8K, as `QuestionSet` says."""
    letters = readers.SETS["last_letters_2"]._replace(role="in_distribution")
    readers.register("my_letters", letters)
    assert readers.read("my_letters") == readers.read("last_letters_2")
    assert readers.SETS["last_letters_2"].role == "generic"


def test_groups_expand_to_their_sets_in_order_and_once():
    assert readers.expand(["svamp", "math_ood"]) == ("svamp", "multiarith", "asdiv")
    assert readers.expand(["mawps"]) == ("addsub", "multiarith", "singleeq", "singleop")
    assert readers.expand(["last_letters"]) == tuple(f"last_letters_{n}" for n in (2, 3, 4))
    bbh = readers.expand(["bbh", "bbh_navigate"])
    assert len(bbh) == 27 and all(name.startswith("bbh_") for name in bbh)
    with pytest.raises(ValueError, match="unknown data set 'gsm'; choices: .*math_ood"):
        readers.expand(["svamp", "gsm"])


def test_every_set_is_seen_from_one_of_the_roles():
    # A module of tasks may have registered its own.
    roles = {n: s.role for n, s in readers.SETS.items() if not n.startswith("miniworld")}
    assert {name for name in roles if roles[name] == "in_distribution"} == {
        "gsm8k",
        "gsm8k_socratic",
        "gsm8k_dev200",
    }
    assert {roles[name] for name in readers.expand(["math_ood", "mawps"])} == {
        "out_of_distribution"
    }
    assert {roles[name] for name in readers.expand(["bbh", "coin_flip"])} == {"generic"}


def test_exemplars_come_from_the_set_or_the_data_folder(tmp_path, own_sets):
    text = "Q: 1 + 1?\nLet's think step by step\nIt is 2.\nThe answer is 2"
    with pytest.raises(ValueError, match=r"'gsm8k' are not there: '.*prompt_simple_4_cases\.txt'"):
        readers.exemplars("gsm8k", tmp_path)
    path = write(tmp_path, readers.MATH_PROMPT, text)
    assert readers.exemplars("gsm8k", tmp_path) == (text, str(path))
    assert readers.exemplars("multiarith", tmp_path)[0] == text
    with pytest.raises(ValueError, match=r"'strategyqa' brings no exemplars.*EVAL_EXEMPLARS"):
        readers.exemplars("strategyqa", tmp_path)
    readers.register("own", readers.SETS["gsm8k"]._replace(prompt=lambda: "own text"))
    assert readers.exemplars("own", tmp_path) == ("own text", "exemplars of 'own'")
