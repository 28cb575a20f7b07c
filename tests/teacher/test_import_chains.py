"""Chains of others: which field is what, which chains are kept, and what is said of bad lines."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax.schemas import SchemaError, records
from specialize_jax.schemas.faults import Faults
from specialize_jax.teacher import filtering, importers
from specialize_jax.teacher.importers import files
from tests.real_data import data_dir

CHAIN = "1 + 1 = 2.\nThe answer is 2"
USER, ASSISTANT = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": CHAIN}
SYSTEM = {"role": "system", "content": "Be brief."}


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def file(tmp_path):
    return lambda *lines: write(tmp_path / "own.jsonl", lines)


def read(path, *pairs, form=None, faults=None, questions=None, rules=None, **layout):
    fields = importers.named(form, pairs, has_questions=questions is not None)
    made = importers.chains.Layout(fields, **layout)
    rules = rules or filtering.Rules(answer_line=False)
    found = importers.chains.rows(path, made, rules, questions=questions, faults=faults)
    rows = list(found)
    for row in rows:
        if not isinstance(row, str):
            records.check_row({name: row[name] for name in records.ARROW_SCHEMA.names})
            assert not records.has_logprobs(row)
    return rows


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("completion", {"question": "1+1?", "completion": CHAIN}),
        ("prompt_completion", {"prompt": "1+1?", "completion": CHAIN}),
        ("prompt_completion", {"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}),
        ("messages", {"messages": [USER, ASSISTANT]}),
        ("messages", {"messages": [SYSTEM, USER, ASSISTANT]}),
        (
            "messages",
            {"messages": [USER, ASSISTANT | {"content": [{"type": "text", "text": CHAIN}]}]},
        ),
        ("rationale", {"question": "1+1?", "rationale": "1 + 1 = 2.\n", "answer": 2}),
        ("instruction", {"instruction": "1+1?", "input": "", "output": CHAIN}),
        ("instruction", {"instruction": "1+1?", "output": CHAIN}),
        ("gsm8k", {"question": "1+1?", "answer": "1 + 1 = <<1+1=2>>2.\n#### 2"}),
    ],
)
def test_every_form_gives_the_same_record(file, form, line):
    (row,) = read(file(line | {"gold": "2"}), "gold=gold", form=form)
    assert (row["question"], row["completion"]) == ("1+1?", CHAIN)
    assert (row["example_id"], row["sample_id"]) == ("own/0", 0)
    assert (row["gold_answer"], row["answer"], row["is_correct"]) == ("2", "2", True)


def test_fields_have_other_names_and_lie_in_objects(file):
    chat = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": CHAIN}]
    path = file({"conversations": chat, "meta": {"gold": {"is": 2}}, "a.b": "7"})
    pairs = ["messages=conversations", "role=from", "content=value", "gold=meta.gold.is", "id=a.b"]
    (row,) = read(path, *pairs)
    assert (row["example_id"], row["completion"], row["is_correct"]) == ("7", CHAIN, True)


def test_an_input_stands_below_its_instruction(file):
    (row,) = read(file({"instruction": "Add.", "input": "1 1", "output": "2"}), form="instruction")
    assert row["question"] == "Add.\n1 1"


def test_without_a_gold_answer_nothing_is_right_or_wrong(file):
    line = {"question": "1+1?", "completion": CHAIN, "answer": "3"}
    for row in (
        *read(file(line), form="completion"),
        *read(file(line), "gold=nowhere", form="completion"),
    ):
        assert row["gold_answer"] is None and row["is_correct"] is None and row["answer"] == "2"
    (row,) = read(file(line), "gold=answer", form="completion")
    assert row["is_correct"] is False


def test_chains_of_a_question_are_numbered_and_counted_once(file):
    path = file(
        {"question": "1+1?", "completion": [CHAIN, "2", f" {CHAIN}\n", " "]},
        {"question": "2+2?", "completion": ["4"]},
        {"question": "1+1?", "completion": ["It is 2"]},
    )
    rows = read(path, form="completion")
    assert [row for row in rows if isinstance(row, str)] == ["duplicate", "empty"]
    kept = [(r["example_id"], r["sample_id"], r["completion"]) for r in rows if r != str(r)]
    assert kept == [
        ("own/0", 0, CHAIN),
        ("own/0", 1, "2"),
        ("own/0", 4, "It is 2"),
        ("own/1", 0, "4"),
    ]


def test_the_filter_is_that_of_collect(file):
    path = file({"question": "1+1?", "completion": [f"{CHAIN}\nQ: more", "no such line", "2"]})
    rules = filtering.Rules(answer_line=True, min_chars=3)
    row, *dropped = read(path, form="completion", rules=rules)
    assert row["completion"] == CHAIN
    assert dropped == ["no_answer_line", "no_answer_line"]


def test_questions_of_another_file_are_found_by_id_or_text(file, tmp_path):
    path = write(tmp_path / "q.jsonl", [{"id": 5, "question": "1+1?", "answer": "steps\n#### 2"}])
    questions = importers.questions.read(path)
    by_id = read(file({"id": 5, "completion": CHAIN}), "id=id", "chain=completion",
                 questions=questions)  # fmt: skip
    by_text = read(file({"question": "1+1?", "completion": CHAIN}), form="completion",
                   questions=questions)  # fmt: skip
    assert by_id == by_text and by_id[0]["is_correct"] and by_id[0]["gold_answer"] == "2"
    with pytest.raises(SchemaError, match=r"own.jsonl:1: expected one of the 1 questions.*'6'"):
        read(file({"id": 6, "completion": CHAIN}), "id=id", "chain=completion", questions=questions)


GOOD = {"question": "1+1?", "completion": CHAIN, "gold": "2", "id": "a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion": None}, r"expected a string 'completion', got only \['completion', 'gold'"),
        ({"completion": 5}, "expected a string 'completion', got 5"),
        ({"completion": " "}, "expected a string 'completion', got ' '"),
        ({"completion": []}, r"expected a string 'completion', got \[\]"),
        ({"completion": [1]}, r"'completion': expected messages, got 1"),
        ({"completion": [{"role": "user"}]}, "texts 'role' and 'content', got {'role': 'user'}"),
        (
            {"completion": [ASSISTANT | {"content": [{"type": "image"}]}]},
            "expected parts of text in a message, got {'type': 'image'}",
        ),
        ({"completion": [USER]}, r"expected one message of each of assistant, .* got \['user'\]"),
        ({"question": "  "}, "expected a string 'question', got '  '"),
        ({"question": [USER, USER]}, "expected one message of each of user, in this order"),
        ({"gold": "blue"}, "'gold': expected a gold answer of kind 'number', got 'blue'; kinds: n"),
        ({"gold": ["2"]}, "'gold': expected a text or a number as gold answer, got"),
        ({"kind": "colour"}, "unknown kind 'colour'; choices: number, option"),
        ({"id": None}, "expected a text or a number 'id', got None"),
        ({"question": "1+2?"}, r"'a' stood before with question '1\+1\?', here with '1\+2\?'"),
        ({"gold": "3"}, "'a' stood before with answer '2', here with '3'"),
    ],
)
def test_a_bad_line_is_named_and_skipped_if_wished(file, change, message):
    good = GOOD | {"kind": "number"}
    path = file(good, good | change, good | {"id": "b"})
    pairs = ["gold=gold", "id=id", "kind=kind"]
    with pytest.raises(SchemaError, match=rf"own\.jsonl:2: {message}|own\.jsonl:2: .*{message}"):
        read(path, *pairs, form="completion")
    faults = Faults("skip")
    rows = read(path, *pairs, form="completion", faults=faults)
    assert [r if isinstance(r, str) else r["example_id"] for r in rows] == ["bad_line", "a", "b"]
    assert len(faults.found) == 1 and "own.jsonl:2: " in faults.found[0]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([CHAIN, "1+1?", "\ud800", "#### 2", "#### "]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "text", "a"]), inner, max_size=3)
    | st.sampled_from([[USER], [ASSISTANT], [USER, ASSISTANT]]),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(importers.FORMS)),
    st.lists(st.dictionaries(st.sampled_from(
        ["question", "prompt", "completion", "messages", "rationale", "answer", "instruction",
         "input", "output", "gold", "id", "kind"]), _ANY), max_size=3),
)  # fmt: skip
def test_whatever_a_field_holds_is_a_record_or_a_named_fault(tmp_path_factory, form, lines):
    path = write(tmp_path_factory.mktemp("own") / "own.jsonl", [*lines, {"id": "good"}])
    faults = Faults("skip")
    rows = read(path, "gold=gold", "id=id", form=form, faults=faults)  # checks every row
    assert rows.count("bad_line") == len(faults.found) >= 1
    assert all(str(path) in text for text in faults.found)
    kept = [row for row in rows if not isinstance(row, str)]
    pa.Table.from_pylist(
        [{n: row[n] for n in records.ARROW_SCHEMA.names} for row in kept], records.ARROW_SCHEMA
    )


@pytest.mark.parametrize(
    ("form", "pairs", "message"),
    [
        ("alpaca", [], "--form: unknown 'alpaca'; choices: completion, prompt_completion"),
        (None, [], "one question .* and one chain .*, got none: name a --form"),
        (None, ["question=q"], r"got \['question'\]"),
        ("completion", ["messages=m"], r"got \['chain', 'messages', 'question', 'messages'\]"),
        ("messages", ["final=a"], "--field final=NAME: goes with a field 'chain' only"),
        ("completion", ["answer=a"], "expected ROLE=NAME with a role of question, .*'answer=a'"),
        ("completion", ["gold"], "expected ROLE=NAME with a role of .*, got 'gold'"),
        ("messages", ["role="], "'role' and 'content' of a message need names"),
        ("completion", ["question=", "id=id"], r"or id with --questions.* got \['chain'\]"),
    ],
)
def test_fields_that_make_no_chain_are_refused(form, pairs, message):
    with pytest.raises(ValueError, match=message):
        importers.named(form, pairs)


def test_tables_read_as_lines_do(tmp_path):
    lines = [{"question": "1+1?", "completion": CHAIN}, {"question": "2?", "completion": "2"}]
    expected = read(write(tmp_path / "own.jsonl", lines), form="completion")
    table = pa.Table.from_pylist(lines)
    pq.write_table(table, tmp_path / "own.parquet")
    (tmp_path / "own.json").write_text(json.dumps(lines))
    (tmp_path / "own").mkdir()
    with pa.OSFile(str(tmp_path / "own" / "data-00000-of-00001.arrow"), "wb") as sink:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=1)
    with pa.OSFile(str(tmp_path / "own.arrow"), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as whole:
            whole.write_table(table)
    for name in ("own.parquet", "own.json", "own.arrow", "own"):
        assert read(tmp_path / name, form="completion") == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "expected a file in .arrow, .json, .jsonl, .ndjson, .parquet"),
        ("a.parquet", b"PAR1", "is not a complete Parquet file"),
        ("a.arrow", b"ARROW1\0\0half", "is not a complete Arrow file"),
        ("a.arrow", b"half of it", "is not a complete Arrow file"),
        ("a.json", b"[{}, ", "a.json: not valid JSON"),
        ("a.json", b"[{}, 3]", "item 1: expected a JSON object, got int"),
        ("a.jsonl", b"{}\n3\n", "a.jsonl:2: expected a JSON object, got int"),
        ("a.jsonl", b'{}\n{"a": "\xff"}\n', "a.jsonl:2: expected UTF-8"),
        ("a.jsonl", b"{}\n{\n", "a.jsonl:2: not valid JSON"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SchemaError, match=message):
        for _, row in files.read(tmp_path / name):
            if isinstance(row, SchemaError):
                raise row


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(SchemaError, match="expected the file .*gone.jsonl"):
        list(files.read(tmp_path / "gone.jsonl"))
    with pytest.raises(SchemaError, match="expected .arrow, .parquet in this folder, found none"):
        list(files.read(tmp_path))


# right, wrong: SOURCE.md of the set, and for GPT-3 the verdicts of the file itself
@pytest.mark.parametrize(
    ("name", "right", "wrong", "first"),
    [
        ("cot_text_gsm8k_code002", 838, 481, "gsm8k/test/0"),
        ("cot_text_gsm8k_gpt4", 1234, 85, "gsm8k/test/0"),
        ("cot_text_aqua_code002", 107, 147, "aqua/test/0"),
        ("cot_text_strategyqa_code002", 1661, 629, "strategyqa/test/0"),
        ("openai_gsm8k_6b_finetuning", 286, 1033, "gsm8k/test/0"),
        ("openai_gsm8k_175b_verification", 742, 577, "gsm8k/test/0"),
    ],
)
def test_real_chains_are_as_right_as_their_publishers_say(name, right, wrong, first):
    data = epath.Path(data_dir())
    published = importers.published.FILES[name]
    questions = None
    if published.questions:
        questions = importers.questions.read(data / published.questions, kind=published.layout.kind)
    rules = filtering.Rules(answer_line=False)
    rows = list(
        importers.chains.rows(data / published.file, published.layout, rules, questions=questions)
    )
    assert sum(row["is_correct"] for row in rows) == right
    assert len(rows) == right + wrong
    assert rows[0]["example_id"] == first
    for row in rows[:20]:
        records.check_row({n: row[n] for n in records.ARROW_SCHEMA.names})
