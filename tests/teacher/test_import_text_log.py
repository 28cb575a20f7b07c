"""The text log of 2301.12726's code: what that code wrote is what we read."""

import math

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax.schemas import SchemaError, records
from specialize_jax.schemas.faults import Faults
from specialize_jax.teacher import filtering, importers
from specialize_jax.teacher.importers import files, text_log, top5
from tests.real_data import data_dir


def logged(index, question, answer, outputs):
    """What `write_output` of scripts/codex_decode_gsm8k.py writes of a question.

    Args:
      index: of the question.
      question: its text.
      answer: its gold answer.
      outputs: the steps of each, [[token, probability], ...] with the sampled token first.
    """
    told = [f"Question {index}: {question}\n", f"Answer: {answer}\n"]
    for number, steps in enumerate(outputs):
        text = "".join(step[0][0] for step in steps)
        told.append(f"Model output {number}: {cut(text)}\n")
        told.append("Per-step decode: ")
        for step in steps:
            told += [f"<<{token!r}>> {p:.4f} " for token, p in step]
            told.append("||| ")
        told.append("\n")
    return "".join([*told, "\n\n\n\n"])


def cut(text):
    """`extract_ans`: the lines up to the first with "answer is"."""
    kept = []
    for line in text.split("\n"):
        kept.append(line)
        if "answer is" in line:
            break
    return "\n".join(kept)


def steps(*tokens):
    return [[(token, 0.9), (token, 0.9), ("x", 0.05), ("y", 0.0)] for token in tokens]


ECHO = (" step", "\n")
RIGHT = steps(*ECHO, "The", " answer", " is", " 2", "\n", "\n")


def read(path, content, faults=None, **rules):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(text_log.rows(path, filtering.Rules(**rules), faults=faults))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


def test_an_output_becomes_a_record_with_its_candidates(log):
    wrong = steps(*ECHO, "The", " answer", " is", " 3", "\n")
    content = logged(7, "1+1?", "1+1=<<1+1=2>>2\n#### 2", [RIGHT, wrong, RIGHT])
    first, second, third = read(log, content)
    assert (first, second["is_correct"]) == ("duplicate", False) or third == "duplicate"
    (row,) = [row for row in (first, second, third) if row != "duplicate" and row["is_correct"]]
    records.check_row({name: row[name] for name in records.ARROW_SCHEMA.names})
    assert records.target_text(row) == "The answer is 2"
    assert row["completion"] == " step\nThe answer is 2\n\n"
    assert (row["example_id"], row["sample_id"]) == ("gsm8k/train/7", 0)
    assert (row["question"], row["gold_answer"]) == ("1+1?", "2")
    assert row["terminal_bytes"] == [b"\n", b"x"]
    assert row["token_logprobs"] == [math.log(0.9)] * 8


def test_an_output_may_hold_lines_that_look_like_the_log_s(log):
    """Where that code's own parser goes astray: a model that goes on with questions."""
    astray = steps(
        *ECHO, "2", "\n", "Question 3: what?", "\n", "Answer: 5", "\n", "The answer is 2"
    )
    content = logged(0, "1+1?", "#### 2", [astray, RIGHT]) + logged(1, "2?", "#### 2", [RIGHT])
    rows = read(log, content)
    kept = [row["example_id"] for row in rows if not isinstance(row, str)]
    # The first ends in its line's middle for all that one knows: nothing stands behind it.
    assert rows[0] == "cut_by_length" and kept == ["gsm8k/train/0", "gsm8k/train/1"]


def test_what_follows_the_answer_is_not_learned_and_what_never_came_to_one_is_dropped(log):
    more = steps(*ECHO, "The", " answer is", " 2", "\n\n", "Question", ": and 9")
    endless = steps(*ECHO, "So", " 1", " is", " 1", "\n")
    other = steps(" steps", "\n", "The answer is 2", "\n")
    row, *dropped = sorted(read(log, logged(0, "1+1?", "#### 2", [more, endless, other])), key=str)
    rows = [row, *dropped]
    assert [r for r in rows if isinstance(r, str)] == ["format", "no_answer_line"]
    (row,) = [r for r in rows if not isinstance(r, str)]
    assert records.target_text(row) == "The answer is 2" and row["finish_reason"] == "stop"


def test_samples_are_numbered_through_where_a_log_was_begun_again(log):
    other = steps(*ECHO, "It is", " 2, so the answer is 2", "\n")
    content = logged(4, "1+1?", "#### 2", [RIGHT, other]) + logged(4, "1+1?", "#### 2", [other])
    rows = read(log, content)
    assert [row["sample_id"] for row in rows] == [0, 1, 2]


_TOKENS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(_TOKENS, st.integers(0, 10_000).map(lambda n: n / 10_000)),
            min_size=1,
            max_size=6,
        ),
        max_size=12,
    )
)
def test_any_steps_are_read_as_they_were_written(tmp_path_factory, written):
    """Tokens with quotes, bars, `>>`, newlines, escapes: `repr` says them all."""
    log = tmp_path_factory.mktemp("log") / "log.txt"
    log.write_bytes(logged(0, "1+1?", "#### 2", [written]).encode())
    text = "".join(step[0][0] for step in written)
    if "bytes:" in text or "\nPer-step decode: " in f"\n{cut(text)}":
        return
    (block,) = text_log._blocks(epath.Path(log))
    assert not isinstance(block, SchemaError), block
    ((found, _),) = block.outputs
    assert found == [[(token, p) for token, p in step] for step in written]


@pytest.mark.parametrize(
    ("old", "new", "message", "kept"),
    [
        # a step that is cut, one without its end, no steps at all
        (" ||| <<' 2'>> 0.9", "<<' 2>> 0.9", r"txt:5: expected .*in column", [1]),
        ("<<'y'>> 0.0000 ||| \n", "<<'y'>> 0.0000 \n", r"txt:5: expected .*'\|\|\|' behind", [1]),
        ("Per-step decode: ", "", "txt:[0-9]+: expected the steps to write this output", []),
        ("Answer: #### 2\n", "", "txt:1: expected a question with an answer, got '1.1", []),
        ("Answer: #### 2", "Answer: two", "txt:1: expected a gold answer of kind 'number'", []),
        ("Model output 1", "Model output 2", r"txt:[0-9]+: expected .*'Model output 1: ...'", [0]),
        ("Model output 1: ", "", "txt:[0-9]+: expected 'Question N: ...' or 'Model output 1", [0]),
        (" step\nThe", " step\nA", "txt:3: expected the steps to write this output", [1]),
        ("0.9000 <<' is'>>", "9.0000 <<' is'>>", "txt:3: step 4: expected a probability", [1]),
        ("<<'x'>> 0.0500", "<<'x'>> 0.5000", "txt:3: step 0: candidate mass 1.4", [1]),
    ],
)
def test_a_damaged_log_is_named_and_skipped_if_wished(log, old, new, message, kept):
    other = steps(*ECHO, "So", " the answer is", " 2", "\n")
    good = logged(1, "2?", "#### 2", [RIGHT])
    content = logged(0, "1+1?", "#### 2", [RIGHT, other]).replace(old, new, 1) + good
    with pytest.raises(SchemaError, match=message):
        read(log, content)
    faults = Faults("skip")
    rows = read(log, content, faults)
    ids = [(r["example_id"], r["sample_id"]) for r in rows if not isinstance(r, str)]
    assert ids[-1] == ("gsm8k/train/1", 0)
    assert len(ids) - 1 == len(kept)
    assert faults.found and rows.count("bad_line") == len(faults.found)


_DAMAGE = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 30),
        st.sampled_from(
            [b"", b"\n", b"'", b"\\", b"\\x", b"\0", b"\xff", b"1.2.3", b"||| ", b"<<", b">> "]
            + [b"\nQuestion 3: ", b"\nAnswer: ", b"\nModel output 1: ", b"\nPer-step decode: "]
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(_DAMAGE)
def test_whatever_is_damaged_is_skipped_or_told_and_nothing_else_breaks(tmp_path_factory, damage):
    other = steps(*ECHO, "So", " the answer is", " 2", "\n")
    content = logged(0, "1+1?", "#### 2", [RIGHT, other]).encode()
    for place, gone, put in damage:
        at = place % len(content)
        content = content[:at] + put + content[at + gone :]
    path = tmp_path_factory.mktemp("log") / "log.txt"
    good = logged(1, "2?", "#### 2", [RIGHT]).encode()
    faults = Faults("skip")
    rows = read(path, content + b"\nPer-step decode: \n" + good, faults)
    assert rows.count("bad_line") == len(faults.found)
    for row in rows:
        if not isinstance(row, str):
            records.check_row({name: row[name] for name in records.ARROW_SCHEMA.names})
    if faults.found:
        with pytest.raises(SchemaError):
            read(path, content + b"\nPer-step decode: \n" + good)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_log_that_ends_early_keeps_what_is_whole(log, part):
    content = logged(0, "1+1?", "#### 2", [RIGHT]) + logged(1, "2?", "#### 2", [RIGHT])
    whole = len(logged(0, "1+1?", "#### 2", [RIGHT]))
    cut_here = whole + int((len(content) - whole - 5) * part)
    faults = Faults("skip")
    rows = read(log, content[:cut_here], faults)
    assert [row["example_id"] for row in rows if not isinstance(row, str)] == ["gsm8k/train/0"]
    assert len(faults.found) == 1


def test_characters_that_were_lost_are_counted(log):
    bad = logged(0, "1+1?", "#### 2", [steps(*ECHO, "é: the answer is 2", "\n")])
    assert read(log, bad.encode("latin-1")) == ["lost_characters"]


def test_the_published_generations_in_a_log_are_the_published_records(log):
    data = epath.Path(data_dir())
    by_question = {}
    for _, record in files.read_jsonl(data / "codex_top5_steps" / "codex_top5_steps.jsonl"):
        by_question.setdefault(record["question_index"], []).append(record)
    gsm8k = [row for _, row in files.read_jsonl(data / "gsm8k" / "train.jsonl")]
    content = "".join(
        logged(index, gsm8k[index]["question"], gsm8k[index]["answer"],
               [record["steps"] for record in found])
        for index, found in by_question.items()
    )  # fmt: skip
    rows = read(log, content)
    expected = list(importers.SOURCES["codex_top5_steps"].rows(data))
    # One of the 26 says what another said before.
    assert len(rows) == 26 and rows.count("duplicate") == 1
    by_target = {records.target_text(row): row for row in reversed(expected)}
    for row in rows:
        if row != "duplicate":
            other = by_target[records.target_text(row)]
            assert {k: v for k, v in row.items() if k != "sample_id"} == {
                k: v for k, v in other.items() if k != "sample_id"
            }


def test_tokens_that_make_no_text_are_refused():
    with pytest.raises(SchemaError, match="here: expected tokens that make a text"):
        top5.choice(steps("bytes:\\xff", "a"), "here")
    with pytest.raises(
        SchemaError, match="here: step 0: expected a probability in .0, 1., got nan"
    ):
        top5.choice([[("a", math.nan)]], "here")
