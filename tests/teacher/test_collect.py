"""From a teacher's samples to rows: judged, deduplicated, in the contract's form."""

import math

import pytest

from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError, records
from specialize_jax.teacher import collect
from specialize_jax.teacher import records as teacher_records
from specialize_jax.teacher.collect import Sample

QUESTIONS = [Question("q/0", "2 + 2?", "4"), Question("q/1", "Is it?", "yes", kind="boolean")]
TEXTS = {
    ("q/0", 0): "2 + 2 = 4.\nThe answer is 4",
    ("q/0", 1): "2 + 2 = 5.\nThe answer is 5",
    ("q/0", 2): "2 + 2 = 4.\nThe answer is 4",
    ("q/1", 0): "It is.\nThe answer is True",
    ("q/1", 1): "Who knows",
    ("q/1", 2): "No.\nThe answer is no",
}


class Teacher:
    info = {"teacher": {"name": "t", "revision": None}, "tokenizer": {}, "sampling": {}}
    stop = True

    def sample(self, question, *, sample_id, top_logprobs, seed):
        tokens = [c.encode() for c in TEXTS[question.id, sample_id]]
        end = len(tokens)
        tokens += [b"\n"] * self.stop
        topk = [[(token, math.log(0.5)), (b"~", math.log(0.25))][:top_logprobs] for token in tokens]
        return Sample("Q", tokens, [math.log(0.5)] * len(tokens), topk, end)


def rows(teacher=None, **changes):
    settings = {"num_samples": 3, "top_logprobs": 2, "seed": 0} | changes
    return list(collect.rows(teacher or Teacher(), QUESTIONS, **settings))


def test_rows_are_judged_by_the_kind_of_the_question_and_duplicates_counted():
    found = rows()
    assert found[2] == "duplicate"
    kept = [row for row in found if isinstance(row, dict)]
    judged = [
        (row["example_id"], row["sample_id"], row["answer"], row["is_correct"]) for row in kept
    ]
    assert judged == [
        ("q/0", 0, "4", True),
        ("q/0", 1, "5", False),
        ("q/1", 0, "yes", True),
        ("q/1", 1, None, False),
        ("q/1", 2, "no", False),
    ]
    for row in kept:
        records.check_row(row)


def test_the_stop_is_recorded_and_not_learned():
    row = rows()[0]
    assert row["completion"].endswith("4\n")
    assert records.target_text(row) == TEXTS["q/0", 0]
    assert row["terminal_bytes"] == [b"\n", b"~"]
    assert row["terminal_logprobs"] == pytest.approx([math.log(0.5), math.log(0.25)])
    teacher = Teacher()
    teacher.stop = False
    assert rows(teacher)[0]["terminal_bytes"] is None


def test_without_candidates_rows_are_legal():
    row = rows(top_logprobs=0)[0]
    records.check_row(row)
    assert not records.has_logprobs(row)


def test_written_records_count_every_drop_by_reason(tmp_path):
    done = teacher_records.write(rows(), tmp_path / "out", {**Teacher.info, "source": "test"})
    assert done["rows"] == 2 and done["k"] == 2
    assert done["dropped"] == {"wrong_answer": 3, "duplicate": 1}


def test_a_teacher_that_is_never_right_is_an_error(tmp_path):
    wrong = [row for row in rows() if isinstance(row, dict) and not row["is_correct"]]
    with pytest.raises(SchemaError, match=r"no records to write .*{'wrong_answer': 3"):
        teacher_records.write(wrong, tmp_path / "out", Teacher.info)


def test_the_digest_of_questions_tells_them_apart():
    other = [QUESTIONS[0], Question("q/1", "Is it?", "no", kind="boolean")]
    assert collect.digest(QUESTIONS) == collect.digest(list(QUESTIONS)) != collect.digest(other)


@pytest.mark.parametrize("changes", [{"num_samples": 0}, {"top_logprobs": -1}])
def test_numbers_out_of_range_are_named(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"{name.upper()}: expected at least"):
        rows(**changes)
