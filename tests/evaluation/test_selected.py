"""`selected.json` from evaluation files: what counts, what is refused, what is checked."""

import json

import pytest

from specialize_jax.apps import main as program
from specialize_jax.evaluation import selected, splits
from specialize_jax.schemas import SchemaError
from tests.evaluation import runs

VALIDATION = sorted(splits.rows("svamp", "validation"))[:40]
TEST = sorted(splits.rows("svamp", "test"))[:60]


def _svamp(validation, test):
    """Answers to some of SVAMP's questions: the first so many of either part are right."""
    right = {row: i < validation for i, row in enumerate(VALIDATION)}
    return right | {row: i < test for i, row in enumerate(TEST)}


def _own(right, n=20):
    return {row: row < right for row in range(n)}


@pytest.fixture
def run(tmp_path):
    """A run whose best step on SVAMP's validation part, 200, is not the best on its test part."""
    runs.write(tmp_path, {"svamp": _svamp(5, 50), "gsm8k": {0: 1, 1: 0}}, step=100)
    runs.write(tmp_path, {"svamp": _svamp(30, 15), "gsm8k": {0: 1, 1: 1}}, step=200)
    return tmp_path


def test_chosen_on_validation_rows_and_reported_on_the_others(run):
    value = selected.build(run)
    assert (value["step"], value["checkpoint"]) == (200, "checkpoints/200")
    assert [row["score"]["value"] for row in value["checkpoints"]] == pytest.approx([1 / 8, 3 / 4])
    assert value["rule"]["weights"] == {"svamp": 1.0}
    expected = {"role": "out_of_distribution", "weight": 1.0, "questions": 40}
    assert value["sets"]["svamp"] == expected | {"part": "validation"}
    svamp = value["chosen"]["sets"]["svamp"]
    assert (svamp["value"], svamp["n"], svamp["part"]) == (0.25, 60, "test")
    assert svamp["held_out"] and svamp["low"] < 0.25 < svamp["high"]
    assert value["chosen"]["roles"]["out_of_distribution"]["value"] == 0.25
    assert value["warning"] is None and value["undecided"] == []


def test_in_distribution_and_weights_choose_by_other_sets(tmp_path):
    gsm8k = sorted(splits.rows("gsm8k", "validation"))[:10]
    for step, good in ((1, 9), (2, 1)):
        right = {row: i < good for i, row in enumerate(gsm8k)}
        runs.write(tmp_path, {"gsm8k": right, "own": _own(20 - good)}, step=step)
    assert selected.build(tmp_path, by="in_distribution")["step"] == 1
    assert selected.build(tmp_path)["step"] == 2
    weights = {"in_distribution": 1.0, "own": 0.1}
    assert selected.build(tmp_path, by="weighted", weights=weights)["step"] == 1


def test_a_set_without_a_split_uses_all_rows_and_says_so(tmp_path):
    runs.write(tmp_path, {"own": _own(4)}, step=1)
    runs.write(tmp_path, {"own": _own(5)}, step=2)
    value = selected.build(tmp_path)
    assert value["sets"]["own"]["part"] == "all" and value["sets"]["own"]["questions"] == 20
    assert not value["chosen"]["sets"]["own"]["held_out"]
    assert not value["chosen"]["roles"]["out_of_distribution"]["held_out"]
    assert any("for want of a split: own" in note for note in value["notes"])
    assert "step 2 leads within noise" in value["warning"] and value["undecided"] == [1]
    runs.write(tmp_path / "b", {"gsm8k": {0: 1}}, step=1, configs={"validation_rows": None})
    assert selected.build(tmp_path / "b", by="in_distribution")["sets"]["gsm8k"]["part"] == "all"


def test_different_questions_are_compared_on_the_common_ones(tmp_path):
    runs.write(tmp_path, {"own": _own(15)}, step=1)
    runs.write(tmp_path, {"own": _own(10, n=10)}, step=2)
    value = selected.build(tmp_path)
    assert value["step"] == 1  # both have all ten right: of equals the earlier
    assert value["notes"][0].startswith("own: compared on the 10 questions")
    runs.write(tmp_path, {"own": {99: 1}}, step=3)
    with pytest.raises(ValueError, match="no question of 'own' was asked of every checkpoint"):
        selected.build(tmp_path)


def test_a_few_questions_of_which_none_is_of_the_validation_part(tmp_path):
    runs.write(tmp_path, {"svamp": {row: 1.0 for row in TEST[:3]}}, step=1)
    with pytest.raises(ValueError, match="of the validation part to choose by, got none of svamp"):
        selected.build(tmp_path)


def test_a_missing_set_names_the_set_and_the_step(run):
    runs.write(run, {"gsm8k": {0: 1}}, step=300)
    with pytest.raises(ValueError, match=r"step 300 was not asked 'svamp', only gsm8k.*--steps"):
        selected.build(run)
    assert selected.build(run, steps=[100, 200])["step"] == 200
    with pytest.raises(ValueError, match=r"no evaluation of steps \[7\].*\[100, 200, 300\]"):
        selected.build(run, steps=[7, 100])


def test_checkpoints_that_were_asked_differently_are_not_compared(tmp_path):
    runs.write(tmp_path, {"own": _own(1)}, step=1)
    runs.write(tmp_path, {"own": _own(2)}, step=2, prompt="Question: {row}")
    with pytest.raises(ValueError, match="question 0: steps 1 and 2 differ in prompt"):
        selected.build(tmp_path)
    runs.write(tmp_path, {"own": _own(2)}, step=2, date=9.0)  # a later evaluation counts
    assert selected.build(tmp_path)["step"] == 2


def test_formats_are_averaged_or_chosen(tmp_path):
    both = (runs.FORMAT, "in_context_chain_of_thought")
    runs.write(tmp_path, {"own": _own(10)}, step=1, formats=both)
    runs.write(tmp_path, {"own": _own(4)}, step=2, formats=both[:1])
    runs.write(tmp_path, {"own": _own(18)}, step=2, formats=both[1:], date=9.0)
    value = selected.build(tmp_path)
    assert value["step"] == 2 and value["rule"]["formats"] == sorted(both)
    assert value["checkpoints"][1]["score"]["value"] == pytest.approx((4 + 18) / 40)
    assert selected.build(tmp_path, formats=both[:1])["step"] == 1
    with pytest.raises(ValueError, match="step 1 was not asked with format answer; choices: in_"):
        selected.build(tmp_path, formats=["answer"])
    runs.write(tmp_path, {"own": _own(3)}, step=3)
    with pytest.raises(ValueError, match="at step 3; name --formats that both have"):
        selected.build(tmp_path)


def test_answers_with_and_without_a_calculator_are_not_mixed(tmp_path):
    for step, right in ((1, 5), (2, 12)):
        runs.write(tmp_path, {"own": _own(right)}, step=step)
        configs = {"calculator": "equations"}
        runs.write(tmp_path, {"own": _own(20 - right)}, step=step, date=9.0, configs=configs)
    assert selected.build(tmp_path)["step"] == 2
    assert selected.build(tmp_path, calculator="equations")["step"] == 1
    with pytest.raises(ValueError, match="calculator annotations; choices: equations, none"):
        selected.build(tmp_path, calculator="annotations")
    runs.write(tmp_path / "b", {"own": _own(3)}, step=1, configs=configs)
    assert selected.build(tmp_path / "b")["rule"]["calculator"] == "equations"
    runs.write(tmp_path / "b", {"own": _own(3)}, step=1, configs={"calculator": "after"}, date=9.0)
    with pytest.raises(ValueError, match="several calculators: name one of after, equations"):
        selected.build(tmp_path / "b")


def test_a_later_look_at_a_few_questions_does_not_count(tmp_path):
    beams = {"generation": runs.GREEDY | {"num_beams": 2}}
    for step, right in ((1, 5), (2, 12)):
        few = dict.fromkeys(range(3), float(step == 1))
        runs.write(tmp_path, {"own": _own(right)}, step=step)
        runs.write(tmp_path, {"own": few}, step=step, date=1.0, **beams)
        runs.write(tmp_path, {"own": few}, step=step, date=2.0)
    value = selected.build(tmp_path)
    assert [row["score"]["value"] for row in value["checkpoints"]] == [5 / 20, 12 / 20]


def test_votes_at_the_last_checkpoint_leave_the_greedy_answers_of_all_in_place(tmp_path):
    sampled = {"generation": runs.GREEDY | {"num_return_sequences": 8}}
    runs.write(tmp_path, {"own": _own(3)}, step=1)
    runs.write(tmp_path, {"own": _own(5)}, step=2)
    runs.write(tmp_path, {"own": _own(1)}, step=2, date=1.0, **sampled)
    value = selected.build(tmp_path)
    assert [row["score"]["value"] for row in value["checkpoints"]] == [3 / 20, 5 / 20]
    assert f"step 2: own_{runs.FORMAT} was evaluated again, decoded in" in value["notes"][0]
    # Where all were asked anew, that counts, and needs no note.
    runs.write(tmp_path, {"own": _own(4)}, step=1, date=1.0, **sampled)
    value = selected.build(tmp_path)
    assert [row["score"]["value"] for row in value["checkpoints"]] == [4 / 20, 1 / 20]
    assert not any("again" in note for note in value["notes"])
    # Nothing in common: as it was, the files say what differs.
    runs.write(tmp_path, {"own": _own(4)}, step=3, generation={"num_beams": 4})
    with pytest.raises(ValueError, match="steps 1 and 3 differ in prompt, gold answer or decoding"):
        selected.build(tmp_path)


def test_an_extraction_mode_that_is_not_there_is_named(tmp_path):
    runs.write(tmp_path, {"own": _own(1)}, step=1, modes=("corrected", "fu2023"))
    assert selected.build(tmp_path, mode="fu2023")["rule"]["mode"] == "fu2023"
    with pytest.raises(ValueError, match=r"under 'x'; choices: \['corrected', 'fu2023'\]"):
        selected.build(tmp_path, mode="x")


def test_what_has_not_finished_is_left_out_and_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no finished evaluation"):
        selected.build(tmp_path)
    runs.write(tmp_path, {"own": _own(1)}, step=1)
    (tmp_path / "eval" / "2").mkdir()
    value = selected.build(tmp_path)
    assert value["notes"][0] == "step 2 is left out: its evaluation has not finished"
    assert value["warning"] == "step 1 is the only checkpoint that was evaluated"


def test_a_damaged_or_lost_samples_file_is_named(run):
    (path,) = (run / "eval" / "100").glob("samples_svamp*")
    path.write_text(path.read_text().replace("exact_match", "exact"))
    with pytest.raises(SchemaError, match=r"samples_svamp.*line 1: missing"):
        selected.build(run)
    path.unlink()
    with pytest.raises(SchemaError, match="samples_svamp"):
        selected.build(run)


def test_check_finds_what_was_changed_afterwards(run):
    selected.write(run, selected.build(run))
    assert selected.check(run)["step"] == 200
    value = json.loads((run / selected.NAME).read_text())
    assert len(value["files"]) == 5  # two results, two of SVAMP, GSM8K of the chosen step
    selected.write(run, value | {"step": 100})
    with pytest.raises(SchemaError, match="step 100 is chosen, but step 200 scores best"):
        selected.check(run)
    selected.write(run, value | {"schema_version": 9})
    with pytest.raises(SchemaError, match="reads schema_version 1, got 9"):
        selected.check(run)
    selected.write(run, value)
    (path,) = (run / "eval" / "100").glob("results_*")
    path.write_text(path.read_text() + " ")
    with pytest.raises(SchemaError, match="SHA-256"):
        selected.check(run)


def test_the_command_writes_the_file_and_says_why(run, capsys):
    assert program.main(["select", str(run), "--resamples", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("chosen: step 200, by out_of_distribution, corrected: svamp 1.00")
    assert lines[2].split()[:2] == ["100", "12.50%"] and "+62.50 points" in lines[2]
    assert lines[3].startswith("*      200   75.00%")
    assert any("svamp" in line and "25.00%" in line and "n = 60, test" in line for line in lines)
    assert selected.check(run)["rule"]["resamples"] == 50
    assert program.main(["verify", str(run)]) == 0
    assert "selected: step 200 by out_of_distribution" in capsys.readouterr().out


def test_the_command_takes_weights(run, capsys):
    assert program.main(["select", str(run), "--weights", "svamp=1", "gsm8k=0"]) == 0
    assert "by weighted" in capsys.readouterr().out
    assert program.main(["select", str(run), "--weights", "aime=1"]) == 1
    assert "no set of the run is or has the role 'aime'" in capsys.readouterr().err
    assert program.main(["select", str(run), "--weights", "svamp=1", "svamp=2"]) == 1
    assert "expected every name once, got ['svamp', 'svamp']" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.main(["select", str(run), "--weights", "svamp"])
    assert "expected NAME=WEIGHT" in capsys.readouterr().err
