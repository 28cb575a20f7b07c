import copy
import hashlib
import json

import pytest

from specialize_jax.schemas import SchemaError, results

TASKS = [
    results.TaskResult("gsm8k", {"corrected": (0.5, 0.01)}, original=1319, effective=100),
    results.TaskResult(
        "asdiv",
        {"corrected": (1, 0), "fu2023": (0.25, 0.2)},
        original=2305,
        effective=2305,
        without_gold=56,
        n_shot=4,
        version="1.1",
        config={"prompt": "p"},
    ),
]


def built():
    return results.build_results(TASKS, config={"model": "m", "batch_size": 8}, date=1.5e9)


def sample(**changes):
    arguments = {
        "doc_id": 3,
        "doc": {"question": "q\u00e9"},
        "target": "18",
        "prompt": "Q: q\nA:",
        "generation": {"do_sample": False},
        "responses": ["The answer is 18."],
        "mode": "corrected",
        "answer": "18",
        "correct": True,
    }
    return results.build_sample(**{**arguments, **changes})


def test_results_hold_the_keys_of_the_harness():
    value = built()
    assert set(value) == {
        "schema_version", "results", "intervals", "configs", "versions", "n-shot",
        "higher_is_better", "n-samples", "config", "git_hash", "date",
    }  # fmt: skip
    assert value["results"]["asdiv"] == {
        "alias": "asdiv",
        "exact_match,corrected": 1,
        "exact_match_stderr,corrected": 0,
        "exact_match,fu2023": 0.25,
        "exact_match_stderr,fu2023": 0.2,
    }
    assert value["versions"] == {"gsm8k": 1, "asdiv": "1.1"}
    assert value["n-shot"] == {"gsm8k": 0, "asdiv": 4}
    assert value["higher_is_better"]["gsm8k"] == {"exact_match": True}
    none = {"without_gold": 0, "too_long": 0, "empty": 0}
    assert value["n-samples"]["gsm8k"] == {"original": 1319, "effective": 100, **none}
    assert value["configs"]["asdiv"] == {"task": "asdiv", "num_fewshot": 4, "prompt": "p"}
    assert value["config"]["model"] == "m"
    assert {"specialize_jax", "numpy", "jax"} <= set(value["config"]["packages"])
    assert value["date"] == 1.5e9


def test_results_file_round_trip(tmp_path):
    path = results.write_results(tmp_path / "eval" / "10", built())
    assert path.name == f"results_{results.timestamp(1.5e9)}.json"
    assert results.read_results(path) == built()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_timestamp_is_a_sortable_file_name():
    first, second = results.timestamp(1.5e9), results.timestamp(1.5e9 + 0.25)
    assert first < second
    assert len(first) == len("2026-01-31T09-05-07.123456")
    assert not set(first) & set(':/\\ _"')


def test_same_task_twice_is_an_error():
    with pytest.raises(SchemaError, match="every task once, got"):
        results.build_results([TASKS[0], TASKS[0]], config={})


def _set(*path, to):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


def _drop(*path):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    return change


ACCURACY = "exact_match,corrected"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("n-shot"), r"f: missing \['n-shot'\]; has \["),
        (_set("schema_version", to=3), "reads schema_version 1 and 2, got 3"),
        (_set("results", to=[]), r"expected 'results' as dict, got \[\]"),
        (_set("date", to="now"), "expected 'date' as int or float, got 'now'"),
        (_set("date", to=float("nan")), "expected 'date' as int or float, got nan"),
        (_set("git_hash", to=3), "expected 'git_hash' as str or NoneType, got 3"),
        (_drop("versions", "asdiv"), r"\['asdiv', 'gsm8k'\] under 'versions', got \['gsm8k'\]"),
        (_set("results", "gsm8k", ACCURACY, to=1.5), r"corrected' in \[0, 1\], got 1.5"),
        (_set("results", "gsm8k", ACCURACY, to=True), r"corrected' in \[0, 1\], got True"),
        (_set("results", "gsm8k", ACCURACY, to="1"), r"corrected' in \[0, 1\], got '1'"),
        (_set("results", "gsm8k", "acc", to=0.5), "expected keys 'exact_match,<mode>'.*got 'acc'"),
        (_drop("results", "gsm8k", "exact_match_stderr,corrected"), "at least one mode, each with"),
        (_set("results", "gsm8k", to={"alias": "x"}), r"at least one mode.*got \['alias'\]"),
        (_set("results", "gsm8k", to=None), "results of 'gsm8k': expected an object, got None"),
        (_set("n-samples", "gsm8k", "effective", to=2000), "0 < effective <= original"),
        (_set("n-samples", "gsm8k", "effective", to=0), "0 < effective <= original"),
        (_set("n-samples", "gsm8k", "without_gold", to=101), "0 <= without_gold <= effective"),
        (_drop("n-samples", "gsm8k", "original"), r"missing \['original'\]"),
        (_set("n-samples", "gsm8k", "too_long", to=101), "0 <= too_long <= effective"),
        (_set("n-samples", "gsm8k", "empty", to=-1), "empty >= 0"),
        (_drop("intervals"), r"missing \['intervals'\]"),
        (_set("intervals", "gsm8k", to=[]), r"an object under 'intervals', got \[\]"),
        (_set("intervals", "gsm8k", to={ACCURACY: {"low": 0.7, "high": 0.6}}), "'low' <= 'high'"),
        (_set("intervals", "gsm8k", to={"acc": {"low": 0, "high": 1}}), "'acc', which 'results'"),
        (_set("results", "gsm8k", "maj@0,corrected", to=0.5), "expected keys .* got 'maj@0"),
        (_set("results", "gsm8k", "maj@8,corrected", to=0.5), "at least one mode, each with"),
    ],
)
def test_broken_results_are_named(change, message):
    value = copy.deepcopy(built())
    change(value)
    with pytest.raises(SchemaError, match=message):
        results.validate_results(value, "f")


def test_broken_values_never_reach_a_file(tmp_path):
    bad = results.TaskResult("gsm8k", {"corrected": (2.0, 0.0)}, original=1, effective=1)
    with pytest.raises(SchemaError, match=r"in \[0, 1\], got 2.0"):
        results.build_results([bad], config={})
    bad = results.TaskResult("a/b", {"corrected": (1.0, 0.0)}, original=1, effective=1)
    with pytest.raises(SchemaError, match="task name of letters.*got 'a/b'"):
        results.build_results([bad], config={})
    with pytest.raises(SchemaError, match="line 2: expected doc_id >= 0, got -1"):
        results.write_samples(tmp_path, "gsm8k", [sample(), sample(doc_id=-1)], "t")
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(SchemaError, match="cannot read '.*nothing.json'"):
        results.read_results(tmp_path / "nothing.json")
    (tmp_path / "results_x.json").write_text("{")
    with pytest.raises(SchemaError, match="results_x.json: expected JSON"):
        results.read_results(tmp_path / "results_x.json")


def test_sample_has_the_fields_and_hashes_of_the_harness():
    value = sample()
    doc = json.dumps({"question": "q\u00e9"}, indent=2, ensure_ascii=False)
    assert value == {
        "doc_id": 3,
        "doc": {"question": "q\u00e9"},
        "target": "18",
        "arguments": {"gen_args_0": {"arg_0": "Q: q\nA:", "arg_1": {"do_sample": False}}},
        "resps": [["The answer is 18."]],
        "filtered_resps": ["18"],
        "filter": "corrected",
        "metrics": ["exact_match"],
        "doc_hash": hashlib.sha256(doc.encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(b"Q: q\nA:").hexdigest(),
        "target_hash": hashlib.sha256(b"18").hexdigest(),
        "exact_match": 1.0,
    }
    results.validate_sample(value, "f")
    assert sample(answer=None)["filtered_resps"] == ["[invalid]"]


def test_samples_file_round_trip(tmp_path):
    samples = [sample(), sample(doc_id=4, responses=["\u2028 \x85 \ud83d"], correct=False)]
    path = results.write_samples(tmp_path, "gsm8k", samples, "2026-01-31T09-05-07.123456")
    assert path.name == "samples_gsm8k_2026-01-31T09-05-07.123456.jsonl"
    assert results.read_samples(path) == samples
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("filter"), r"f: missing \['filter'\]"),
        (_set("doc_id", to=-1), "doc_id >= 0, got -1"),
        (_set("doc_id", to=True), "expected 'doc_id' as int, got True"),
        (_set("target", to=18), "expected 'target' as str, got 18"),
        (_set("exact_match", to=0.5), "exact_match 0.0 or 1.0, got 0.5"),
        (_set("prompt_hash", to="0" * 64), "'prompt_hash' is not the SHA-256 of its text"),
        (_set("target", to="19"), "'target_hash' is not the SHA-256 of its text"),
        (_set("arguments", to={"gen_args_0": ["p"]}), "expected 'arguments' {'gen_args_0'"),
        (_set("resps", to=["x"]), r"expected 'resps' \[\[text, ...\]\], got \['x'\]"),
        (_set("filtered_resps", to=["1", "2"]), "expected one entry in 'filtered_resps'"),
        (_set("filtered_resps", to=[None]), "expected text in 'filtered_resps'"),
    ],
)
def test_broken_samples_are_named(change, message):
    value = sample()
    change(value)
    with pytest.raises(SchemaError, match=message):
        results.validate_sample(value, "f")


def test_a_broken_line_of_a_samples_file_is_named(tmp_path):
    path = tmp_path / "samples_x_t.jsonl"
    path.write_text(results.json_line(sample()) + "{\n")
    with pytest.raises(SchemaError, match=r"samples_x_t\.jsonl, line 2: expected JSON"):
        results.read_samples(path)
    path.write_text(results.json_line(sample()) + "[]\n")
    with pytest.raises(SchemaError, match="line 2: expected an object, got list"):
        results.read_samples(path)


VOTED = results.TaskResult(
    "gsm8k",
    {"corrected": (0.5, 0.1)},
    original=10,
    effective=10,
    votes={"maj@8": {"corrected": (0.75, 0.05)}},
    intervals={"maj@8,corrected": {"low": 0.5, "high": 0.9, "method": "bootstrap"}},
    too_long=2,
    empty=13,
)


def test_votes_stand_beside_the_first_samples_score(tmp_path):
    value = results.build_results([VOTED], config={}, date=0)
    assert value["results"]["gsm8k"]["maj@8,corrected"] == 0.75
    assert value["results"]["gsm8k"]["maj@8_stderr,corrected"] == 0.05
    assert value["higher_is_better"]["gsm8k"] == {"exact_match": True, "maj@8": True}
    assert value["n-samples"]["gsm8k"]["too_long"] == 2
    assert results.read_results(results.write_results(tmp_path, value)) == value


def test_results_of_version_1_are_still_read():
    value = built()
    value["schema_version"] = 1
    del value["intervals"]
    for counts in value["n-samples"].values():
        del counts["too_long"], counts["empty"]
    results.validate_results(value, "f")


def test_an_unknown_version_is_told_before_what_it_lacks():
    with pytest.raises(SchemaError, match="f: this library reads schema_version 1 and 2, got 7"):
        results.validate_results({"schema_version": 7}, "f")


def test_a_sample_holds_all_texts_and_what_they_vote_for():
    votes = {"maj@2": ("18", True), "maj@3": (None, False)}
    value = sample(responses=["18", "17", ""], votes=votes)
    assert value["resps"] == [["18", "17", ""]]
    assert value["metrics"] == ["exact_match", "maj@2", "maj@3"]
    assert (value["exact_match"], value["maj@2"], value["maj@3"]) == (1.0, 1.0, 0.0)
    assert value["votes"] == {"maj@2": "18", "maj@3": "[invalid]"}
    results.validate_sample(value, "f")
    assert results.responses_of(value, "f") == ["18", "17", ""]
    with pytest.raises(SchemaError, match="maj@2 0.0 or 1.0, got 0.5"):
        results.validate_sample(value | {"maj@2": 0.5}, "f")
    for wrong in ([[]], [["18", None]], ["18"]):
        with pytest.raises(SchemaError, match="expected 'resps'"):
            results.validate_sample(value | {"resps": wrong}, "f")


def test_a_question_that_was_not_asked_says_so():
    assert "too_long" not in sample() and sample(responses=[""], too_long=True)["too_long"] is True
