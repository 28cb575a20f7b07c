"""Published solutions become teacher records: made-up lines, and the real files."""

import collections
import json
import math

import pytest
from etils import epath

from specialize_jax.schemas import SchemaError, folders, records
from specialize_jax.teacher import answer_tokens, importers
from specialize_jax.teacher import records as record_files
from specialize_jax.teacher import steps as steps_of
from specialize_jax.teacher.importers import top5
from tests.real_data import data_dir


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def steps(*tokens):
    """Steps of the published form: the sampled token, then five candidates."""
    return [[[token, 0.9], [token, 0.9], ["x", 0.05], ["y", 0.0]] for token in tokens]


@pytest.fixture
def data(tmp_path):
    write_lines(
        tmp_path / "gsm8k" / "train.jsonl",
        [
            {"question": "1+1?", "answer": "1+1 = <<1+1=2>>2.\nDone.\n#### 2"},
            {"question": "A big one?", "answer": "It is 1,200.\n#### 1,200"},
        ],
    )
    base = {"generation_index": 0, "question_index": 0, "question": "1+1?"}
    write_lines(
        tmp_path / "codex_top5_steps" / "codex_top5_steps.jsonl",
        [
            base | {"steps": steps(" step", "\n", "The", " answer", " is", " 2", "\n", "\n")},
            base | {"steps": steps(" step", "\n", "The", " answer", " is", " 3", "\n")},
            base | {"steps": steps("no", "\n", "The", " answer", " is", " 2", "\n")},
        ],
    )
    return epath.Path(tmp_path)


def test_gsm8k_becomes_chains_without_marks(data):
    first, second = importers.SOURCES["gsm8k"].rows(data)
    assert first["completion"] == "1+1 = 2.\nDone.\nThe answer is 2"
    assert first["example_id"] == "gsm8k/train/0"
    assert second["gold_answer"] == "1,200"
    assert first["is_correct"] and second["is_correct"]
    for row in (first, second):
        records.check_row(row)
        assert not records.has_logprobs(row)


def test_codex_keeps_the_verbatim_slice_and_the_candidates_at_the_stop(data):
    right, wrong, reason = importers.SOURCES["codex_top5_steps"].rows(data)
    assert records.target_text(right) == "The answer is 2"
    assert right["completion"] == " step\nThe answer is 2\n\n"
    assert right["is_correct"] and not wrong["is_correct"]
    assert right["terminal_bytes"] == [b"\n", b"x"]
    assert right["dropped_candidates"] == len(right["token_bytes"])
    assert reason == "format"


def test_writing_filters_counts_and_verifies(data, tmp_path):
    source = importers.SOURCES["codex_top5_steps"]
    info = record_files.write(source.rows(data), tmp_path / "out", source.info)
    assert info["rows"] == 1
    assert info["dropped"] == {"wrong_answer": 1, "format": 1}
    read = folders.read_info(tmp_path / "out", records.NAME)
    [(_, table)] = folders.read_parts(tmp_path / "out", read, records.ARROW_SCHEMA)
    records.check_row(table.to_pylist()[0])


def test_a_question_without_a_gold_answer_is_named(data):
    write_lines(data / "gsm8k" / "train.jsonl", [{"question": "?", "answer": "No idea."}])
    with pytest.raises(SchemaError, match=r"train.jsonl:1: a question without a gold answer"):
        list(importers.SOURCES["gsm8k"].rows(data))


def test_a_broken_line_and_a_missing_file_are_named(data):
    (data / "gsm8k" / "train.jsonl").write_text('{"question": "cut')
    with pytest.raises(SchemaError, match=r"train.jsonl:1: not valid JSON"):
        list(importers.SOURCES["gsm8k"].rows(data))
    (data / "gsm8k" / "train.jsonl").unlink()
    with pytest.raises(SchemaError, match="expected the file .*--data_dir"):
        list(importers.SOURCES["gsm8k"].rows(data))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "#### 1"}, "expected a string 'question', got only"),
        ({"question": "?"}, "expected a string 'answer', got only"),
        ({"question": "?", "answer": 1}, "expected a string 'answer', got 1"),
    ],
)
def test_a_gsm8k_row_of_another_form_is_named(data, row, message):
    write_lines(data / "gsm8k" / "train.jsonl", [{"question": "1?", "answer": "#### 1"}, row])
    with pytest.raises(SchemaError, match=rf"train.jsonl:2: {message}"):
        list(importers.SOURCES["gsm8k"].rows(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "expected integers 'question_index'.*got {} .*KeyError"),
        ({"question_index": 2}, r"expected a 'question_index' in \[0, 2\).*got 2"),
        ({"question_index": -1}, r"expected a 'question_index' in \[0, 2\).*got -1"),
        ({"question_index": "0"}, "expected 'question_index' of int, got '0'"),
        ({"question": None}, "expected 'question' of str, got None"),
        ({"steps": []}, r"expected at least one of 'steps', got \[\]"),
        ({"steps": [[]]}, "expected integers.*IndexError"),
        ({"steps": 3}, "expected integers.*TypeError"),
        (
            {"steps": [*steps(" step"), [["\n", 0.9], ["\n", "0.9"]]]},
            "expected integers.*TypeError",
        ),
    ],
)
def test_a_codex_record_of_another_form_is_named(data, change, message):
    good = {"generation_index": 0, "question_index": 0, "question": "1+1?"}
    good["steps"] = steps(" step", "\n", " 2", "\n")
    path = data / "codex_top5_steps" / "codex_top5_steps.jsonl"
    write_lines(path, [good, {} if change is None else good | change])
    with pytest.raises(SchemaError, match=f"{path}:2: {message}"):
        list(importers.SOURCES["codex_top5_steps"].rows(data))


def test_only_newlines_end_a_line_and_other_encodings_are_named(tmp_path):
    path = epath.Path(tmp_path / "x.jsonl")
    path.write_bytes('{"a": "b\u2028c\x85"}\r\n{"a": 1}'.encode())
    assert list(importers.read_jsonl(path)) == [
        (f"{path}:1", {"a": "b\u2028c\x85"}),
        (f"{path}:2", {"a": 1}),
    ]
    path.write_bytes(b"")
    assert list(importers.read_jsonl(path)) == []
    path.write_bytes(b'{"a": 1}\n{"a": "caf\xe9"}\n')
    with pytest.raises(SchemaError, match=f"{path}:2: expected UTF-8"):
        list(importers.read_jsonl(path))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (" Nat", b" Nat"),
        ("bytes: \\xc3", b" \xc3"),
        ("bytes: \\\\xc3", b" \xc3"),
        ("bytes:\\xe2\\x80", b"\xe2\x80"),
        ("bytes", b"bytes"),
        ("é", "é".encode()),
    ],
)
def test_token_strings_of_the_old_api(shown, expected):
    assert steps_of.token_to_bytes(shown) == expected


def test_candidates_without_mass_are_dropped_and_rounding_is_forgiven():
    made = top5.choice([[["a", 0.4], ["a", 0.4], ["b", 0.6006], ["c", 0.0]]], "here")
    found = answer_tokens.tokens(made, most=5)
    names, logprobs = zip(*found.topk[0], strict=True)
    assert (names, found.counts["without_mass"]) == ((b"b", b"a"), 1)
    assert math.fsum(map(math.exp, logprobs)) == pytest.approx(1)
    with pytest.raises(SchemaError, match="here: step 0: candidate mass 1.0100"):
        top5.choice([[["a", 0.41], ["a", 0.41], ["b", 0.6]]], "here")


def test_candidates_of_the_same_bytes_are_one():
    pairs = [("a", 0.5), ("b", 0.3), ("a", 0.1), ("b", 0.3)]
    names, logprobs, _ = steps_of.clean([(name.encode(), math.log(share)) for name, share in pairs])
    assert names == [b"a", b"b"]
    assert list(map(math.exp, logprobs)) == pytest.approx([0.6, 0.3])


def test_real_codex_records():
    rows = list(importers.SOURCES["codex_top5_steps"].rows(epath.Path(data_dir())))
    assert len(rows) == 26
    counts = collections.Counter(row["example_id"] for row in rows)
    assert counts == {"gsm8k/train/0": 25, "gsm8k/train/1": 1}
    # 65 steps have one candidate or more that was printed as 0.0000.
    steps_short = sum(len(names) < 5 for row in rows for names in row["topk_bytes"])
    assert steps_short == 65
    assert sum(len(row["token_bytes"]) for row in rows) == 1324
    for row in rows:
        records.check_row(row)
        assert row["is_correct"], records.target_text(row)
        assert records.target_text(row).splitlines()[-1].startswith("The answer is")


def test_real_gsm8k_solutions_all_read_as_right():
    rows = list(importers.SOURCES["gsm8k"].rows(epath.Path(data_dir())))
    assert len(rows) == 7473
    assert all(row["is_correct"] for row in rows)
    assert not any("<<" in row["completion"] or "####" in row["completion"] for row in rows)
