"""Where wrong answers first go wrong, and which of them are shown."""

import pytest

from specialize_jax.report import errors, samples
from specialize_jax.report.collect import Evaluation


def _sample(output, question="Tom has 3 and 4.", chain=None, extracted="9", too_long=False):
    mode = {"mode": "corrected", "extracted": extracted, "right": False}
    return {
        "id": "0",
        "question": question,
        "output": output,
        "gold": "7",
        "chain": chain,
        "too_long": too_long,
        "modes": [mode],
    }


CHAIN = "He has 3+4=7 apples.\nThat is 7."


@pytest.mark.parametrize(
    ("sample", "place", "marked", "expected"),
    [
        (_sample("3 + 4 = 9. 9 * 2 = 18. The answer is 18"), "equation", "9", "7"),
        (_sample("3 * 4 = 12. 12 + 1 = 14. The answer is 14", chain=CHAIN), "equation", "14", "13"),
        (_sample("There are 5 of them. The answer is 9", chain=CHAIN), "number", "5", None),
        (_sample("There are $1,250 left. The answer is 9", chain=CHAIN), "number", "$1,250", None),
        (_sample("There are 5 of them. The answer is 9"), "answer", None, None),
        (_sample("He has 3, 4 and 7. The answer is 9", chain=CHAIN), "answer", None, None),
        (_sample("He has 7.0 of 3. The answer is 9", chain=CHAIN), "answer", None, None),
        (_sample("I cannot say", extracted="[invalid]"), "no_answer", None, None),
        (_sample("I cannot say", extracted=None), "no_answer", None, None),
        (_sample(" \n"), "empty", None, None),
        (_sample(None), "empty", None, None),
        (_sample("", too_long=True), "too_long", None, None),
    ],
)
def test_the_first_error_is_found(sample, place, marked, expected):
    found, span, should_be = errors.first_error(sample)
    assert (found, should_be) == (place, expected)
    assert (None if span is None else sample["output"][slice(*span)]) == marked


def _lines(rights, output="The answer is 9", **more):
    return [
        {
            "doc_id": number,
            "doc": {"question": f"Q{number}?"},
            "target": "7",
            "resps": [[output]],
            "filtered_resps": ["9"],
            "filter": mode,
            "exact_match": float(right),
            **more,
        }
        for mode in ("fu2023", "corrected")
        for number, right in enumerate(rights)
    ]


def _gallery(*evaluations, step=2):
    shown = {evaluation.label: {"step": step} for evaluation in evaluations}
    return errors.gallery(evaluations, shown)


def test_wrong_answers_of_the_reported_step_are_counted_and_drawn_by_a_seed():
    rights = [True] * 5 + [False] * 20
    read = [Evaluation("r", step, {}, {"t": _lines(rights)}) for step in (1, 2)]
    (row,) = _gallery(*read)
    assert (row["step"], row["of"], row["wrong"], row["mode"]) == (2, 25, 20, "corrected")
    assert row["places"] == {"answer": 20} and row["has_solutions"] is False
    ids = [int(item["id"]) for item in row["items"]]
    assert len(ids) == errors.EACH and ids == sorted(set(ids)) and min(ids) >= 5
    assert _gallery(*read) == [row]
    assert [item["id"] for item in _gallery(*read, step=1)[0]["items"]] == [str(i) for i in ids]


def test_a_set_without_errors_or_verdicts_is_left_out():
    lines = _lines([True, True])
    unknown = [
        {key: value for key, value in line.items() if key != "exact_match"} for line in lines
    ]
    assert _gallery(Evaluation("r", 2, {}, {"t": lines, "u": unknown})) == []


def test_long_answers_are_cut_around_their_mark():
    output = "word " * 300 + "3 + 4 = 9 " + "word " * 300
    evaluation = Evaluation("r", 2, {}, {"t": _lines([False], output)})
    (item,) = _gallery(evaluation)[0]["items"]
    assert (item["marked"], item["expected"]) == ("9", "7")
    assert item["before"].startswith("…") and item["after"].endswith("…")
    assert item["before"].endswith("3 + 4 = ")
    shown = item["before"] + item["marked"] + item["after"]
    assert len(shown) <= 702 and shown.strip("…") in output
    (item,) = _gallery(Evaluation("r", 2, {}, {"t": _lines([False], "x" * 900)}))[0]["items"]
    assert item["before"] == "…" + "x" * 450 and item["marked"] == item["after"] == ""


def test_gold_solutions_are_read_without_annotations():
    (sample,) = samples.merge(
        [{"doc": {"question": "q", "answer": "5 + 2 = <<5+2=7>>7 in all.\n#### 7"}}]
    )
    assert sample["chain"] == "5 + 2 = 7 in all."
    (other,) = samples.merge([{"doc": {"question": "q", "answer": "7"}}])
    assert other["chain"] is None
