"""Each form has the fields that its trainer names, and pairs are made of right and wrong chains."""

import collections

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax.data import text_exporters

ASK, TELL = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "c"}
WRONG = {"role": "assistant", "content": "w"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("trl", "prompt_completion", False), {"prompt": "Q", "completion": "\nc"}),
        (("trl", "prompt_completion", True), {"prompt": [ASK], "completion": [TELL]}),
        (("trl", "messages", True), {"messages": [ASK, TELL]}),
        (("trl", "preference", False), {"prompt": "Q", "chosen": "\nc", "rejected": "\nw"}),
        (("trl", "preference", True), {"prompt": [ASK], "chosen": [TELL], "rejected": [WRONG]}),
        (("axolotl", "messages", True), {"messages": [ASK, TELL]}),
        (("axolotl", "alpaca", False), {"instruction": "Q", "input": "", "output": "c"}),
        (("axolotl", "preference", False), {"prompt": "Q", "chosen": "c", "rejected": "w"}),
        (("axolotl", "preference", True), {"messages": [ASK], "chosen": TELL, "rejected": WRONG}),
    ],
)
def test_fields_of_a_form(key, expected):
    form = text_exporters.FORMS[key]
    assert form.row("Q", "c", "w") == expected
    assert pa.Table.from_pylist([expected], schema=form.schema).to_pylist() == [expected]


def test_every_form_is_tested():
    (mark,) = [m for m in test_fields_of_a_form.pytestmark if m.name == "parametrize"]
    assert {key for key, _ in mark.args[1]} == set(text_exporters.FORMS)


def test_a_question_is_put_as_our_students_are_asked_or_as_it_stands():
    assert text_exporters.put("1+1?", "question") == "1+1?"
    assert text_exporters.put("1+1?", "step_by_step") == "Q: 1+1?\nLet's think step by step"
    with pytest.raises(ValueError, match="--prompt: expected one of step_by_step, question"):
        text_exporters.put("1+1?", "both")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([True, False, None])), max_size=30)
)
def test_pairs_join_each_chain_once_and_leave_out_no_partner(told):
    rows = [
        {
            "example_id": id_,
            "question": id_,
            "completion": str(i),
            "token_bytes": [],
            "is_correct": v,
        }
        for i, (id_, v) in enumerate(told)
    ]
    by = collections.defaultdict(list)
    for row in rows:
        by[row["example_id"], row["is_correct"]].append(row["completion"])
    expected = [
        (id_, chosen, rejected)
        for id_ in "abc"
        for chosen, rejected in zip(by[id_, True], by[id_, False], strict=False)
    ]
    assert sorted(text_exporters.pairs(rows)) == sorted(expected)
