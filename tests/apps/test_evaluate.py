"""Evaluating checkpoints that stay, come and go; prompts that are too long; votes."""

import json
import shutil

import pytest

from specialize_jax.apps import evaluate, examination, student
from specialize_jax.apps.answering import Settings
from specialize_jax.schemas import results
from tests import simulated_devices
from tests.apps import students
from tests.apps.line import gin, run, write_data

TINY = "--gin_file=testing/tiny.gin"
FORMAT = "zero_shot_chain_of_thought"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A student with two checkpoints, never evaluated."""
    return students.write(tmp_path_factory.mktemp("student"), (2, 4))


@pytest.fixture
def model_dir(written, tmp_path):
    return shutil.copytree(written, tmp_path / "model")


@pytest.fixture
def evaluated(model_dir, data):
    """Returns a function that evaluates with some macros, and gives the exit status."""

    def call(**macros):
        macros = {"MODEL_DIR": str(model_dir), "EVAL_SETS": ("gsm8k",), **macros}
        flags = [gin(name, value) for name, value in macros.items()]
        return run("evaluate", TINY, gin("MAX_DECODE_LENGTH", 6), *flags, f"--data_dir={data}")

    return call


def read(model_dir, step):
    path = max((model_dir / "eval" / str(step)).glob("results_*.json"))
    return results.read_results(path)


def lines_of(model_dir, step, task):
    path = max((model_dir / "eval" / str(step)).glob(f"samples_{task}_{FORMAT}_*.jsonl"))
    return results.read_samples(path)


def test_a_second_time_nothing_is_read_decoded_or_written(
    evaluated, model_dir, monkeypatch, capsys
):
    assert evaluated(EVAL_CHECKPOINTS="all") == 0
    files = {path: path.stat().st_mtime_ns for path in (model_dir / "eval").rglob("*.json*")}
    monkeypatch.setattr(student.Student, "restore", lambda *_: pytest.fail("parameters were read"))
    assert evaluated(EVAL_CHECKPOINTS="all") == 0
    assert {p: p.stat().st_mtime_ns for p in (model_dir / "eval").rglob("*.json*")} == files
    assert capsys.readouterr().out.count("scored before: ") == 2
    first, second = (read(model_dir, step) for step in (2, 4))
    assert first["config"]["step"] == 2 and first["git_hash"] == second["git_hash"]
    assert first["config"]["gen_kwargs"] == {"max_gen_toks": 6, "do_sample": False}
    asked = first["configs"][f"gsm8k_{FORMAT}"]
    template = "Q: {question}\nLet's think step by step"
    assert asked["prompt_hash"] == results.text_hash(template)
    assert (asked["validation_rows"], asked["calculator"]) == ("gsm8k", "none")
    assert first["intervals"][f"gsm8k_{FORMAT}"]["exact_match,corrected"]["method"] == "bootstrap"


def test_a_set_that_is_new_is_asked_and_others_are_not_again(evaluated, model_dir, monkeypatch):
    asked = []
    stream = examination.answering.Answerer.stream

    def counted(self, params, prompts, numbers):
        asked.append(len(prompts))
        return stream(self, params, prompts, numbers)

    monkeypatch.setattr(examination.answering.Answerer, "stream", counted)
    assert evaluated() == 0
    assert evaluated(EVAL_SETS=("gsm8k", "svamp")) == 0
    assert asked == [3, 3]
    assert set(read(model_dir, 4)["results"]) == {f"gsm8k_{FORMAT}", f"svamp_{FORMAT}"}


def test_prompts_that_are_too_long_are_counted_and_wrong(evaluated, model_dir, data, capsys):
    questions = [json.loads(line) for line in (data / "gsm8k/test.jsonl").read_text().splitlines()]
    tokenizer = student.read(model_dir).tokenizer
    prompts = [f"Q: {q['question']}\nLet's think step by step" for q in questions]
    lengths = [len(tokenizer.encode(prompt)) + 1 for prompt in prompts]
    limit = sorted(lengths)[-1] - 1
    assert evaluated(EVAL_INPUT_LENGTH=limit) == 0
    told = capsys.readouterr().out
    assert f"1 of 3 prompts are not asked, they have more than {limit} tokens" in told
    assert "1 too long to ask" in told
    counts = read(model_dir, 4)["n-samples"][f"gsm8k_{FORMAT}"]
    assert (counts["effective"], counts["too_long"]) == (3, 1)
    [line] = [line for line in lines_of(model_dir, 4, "gsm8k")[:3] if line.get("too_long")]
    assert line["doc_id"] == lengths.index(limit + 1) and line["exact_match"] == 0
    assert evaluated(EVAL_INPUT_LENGTH=limit, EVAL_SETS=("gsm8k", "svamp")) == 1
    error = capsys.readouterr().err
    assert f"svamp_{FORMAT}: 3 of 3 prompts" in error and "EVAL_INPUT_LENGTH allows" in error


def test_samples_vote_for_several_k(evaluated, model_dir, capsys):
    settings = {"EVAL_SAMPLES": 3, "EVAL_TEMPERATURE": 1.0}
    assert evaluated(**settings, EVAL_MAJ_K=(3, 1)) == 0
    value = read(model_dir, 4)
    row = value["results"][f"gsm8k_{FORMAT}"]
    assert row["maj@1,corrected"] == row["exact_match,corrected"]
    assert {"maj@3,corrected", "maj@3_stderr,corrected", "maj@3,fu2023"} <= set(row)
    sampling = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "num_return_sequences": 3}
    greedy = {"max_gen_toks": 6, "do_sample": True}
    assert value["config"]["gen_kwargs"] == {**greedy, **sampling, "seed": 0}
    lines = lines_of(model_dir, 4, "gsm8k")
    assert all(len(line["resps"][0]) == 3 for line in lines)
    assert any(len(set(line["resps"][0])) > 1 for line in lines)
    assert "maj@3  corrected" in capsys.readouterr().out
    assert evaluated(**settings, EVAL_MAJ_K=(4,)) == 1
    assert "EVAL_MAJ_K: expected numbers from 1 to EVAL_SAMPLES=3" in capsys.readouterr().err
    assert evaluated(EVAL_SAMPLES=3) == 1
    assert "EVAL_SAMPLES, EVAL_TEMPERATURE" in capsys.readouterr().err


def test_greedy_answers_are_recorded_as_by_earlier_versions():
    assert examination.generation(Settings(max_length=7, seed=3)) == {
        "max_gen_toks": 7,
        "do_sample": False,
    }
    assert examination.generation(Settings(num_beams=2))["num_beams"] == 2
    assert examination.generation(Settings(calculator="equations"))["calculator"] == "equations"


def test_votes_are_of_all_samples_by_default():
    assert evaluate.voting(1, None) is None
    assert evaluate.voting(8, None).ks == (8,)
    assert evaluate.voting(8, (4, 1, 4)).ks == (1, 4)


@pytest.fixture
def vanish(model_dir, monkeypatch):
    """Returns a function; from then on, step 4 is removed when a checkpoint is read.

    So does a run that keeps few.
    """
    restore = student.Student.restore

    def removing(self, step):
        shutil.rmtree(model_dir / "checkpoints" / "4", ignore_errors=True)
        return restore(self, step)

    return lambda: monkeypatch.setattr(student.Student, "restore", removing)


def test_a_checkpoint_that_vanishes_is_skipped(evaluated, model_dir, vanish, capsys):
    vanish()
    assert evaluated(EVAL_CHECKPOINTS="all") == 0
    told = capsys.readouterr().out
    assert "step 4: skipped, the checkpoint" in told and "has vanished" in told
    assert read(model_dir, 2) and not (model_dir / "eval" / "4").exists()


@pytest.mark.parametrize("steps", [(2, 4), "last"])
def test_one_that_was_named_or_the_only_one_is_a_failure(evaluated, vanish, steps):
    vanish()
    assert evaluated(EVAL_CHECKPOINTS=steps) == 1


def test_what_was_scored_before_a_checkpoint_vanished_stays(evaluated, model_dir, vanish, capsys):
    assert evaluated() == 0
    content = {path: path.read_bytes() for path in (model_dir / "eval" / "4").glob("*.jsonl")}
    vanish()
    assert evaluated(EVAL_SETS=("gsm8k", "svamp"), EVAL_CHECKPOINTS="all") == 0
    told = capsys.readouterr().out
    assert f"not scored: svamp_{FORMAT}" in told
    assert set(read(model_dir, 4)["results"]) == {f"gsm8k_{FORMAT}"}
    assert content and all(path.read_bytes() == found for path, found in content.items())


def test_a_damaged_checkpoint_is_an_error_and_no_vanished_one(evaluated, model_dir, capsys):
    shutil.rmtree(model_dir / "checkpoints" / "4" / "params")
    assert evaluated() == 1
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"sha2', "[]", "{}"])
def test_a_damaged_mark_of_the_checkpoint_is_named(evaluated, model_dir, capsys, text):
    mark = model_dir / "eval" / "4" / "checkpoint.json"
    mark.parent.mkdir(parents=True)
    mark.write_text(text)
    assert evaluated() == 1
    assert f"error: '{mark}': " in capsys.readouterr().err


def test_a_checkpoint_is_chosen_at_the_end_where_that_is_asked(evaluated, model_dir, capsys):
    asked = {"EVAL_CHECKPOINTS": "all", "EVAL_SETS": ("svamp",)}
    assert evaluated(**asked, EVAL_SELECT_BY="out_of_distribution") == 0
    assert json.loads((model_dir / "selected.json").read_text())["step"] in (2, 4)
    assert "chosen: step" in capsys.readouterr().out


def test_results_of_another_version_are_left_alone(evaluated, model_dir, capsys):
    strange = model_dir / "eval" / "4" / "results_2000-01-01T00-00-00.000000.json"
    strange.parent.mkdir(parents=True)
    strange.write_text('{"schema_version": 9}')
    assert evaluated() == 0
    told = capsys.readouterr().out
    assert "reads schema_version 1 and 2, got 9; it is left as it is" in told
    assert "`select` and `verify` stop there until it is moved away" in told
    assert strange.read_text() == '{"schema_version": 9}' and read(model_dir, 4)


def test_several_devices_share_the_work(written, data, tmp_path):
    assert simulated_devices.run(
        "tests.apps.mesh_evaluate", arguments=(written, data, tmp_path), count=4
    )[-1:] == ["equal"]


def test_the_rule_by_which_a_checkpoint_is_chosen():
    assert evaluate.selection_rule(None) is None
    assert evaluate.selection_rule("in_distribution") == {"by": "in_distribution"}
    assert evaluate.selection_rule({"svamp": 2}) == {"by": "weighted", "weights": {"svamp": 2}}
    # Before anything is asked.
    with pytest.raises(ValueError, match=r"sets and of roles \(in_dist.*got 'math_ood', 'svmp'"):
        evaluate.selection_rule({"svmp": 2, "math_ood": 1, "generic": 1})
    for wrong in ("weighted", "svamp", {}):
        with pytest.raises(ValueError, match="EVAL_SELECT_BY: expected one of out_of_distribution"):
            evaluate.selection_rule(wrong)


def test_the_best_checkpoint_is_chosen_at_the_end(evaluated, model_dir, capsys):
    assert evaluated(EVAL_CHECKPOINTS="all", EVAL_SELECT_BY={"gsm8k": 1}) == 0
    assert "chosen: step 2, by weighted" in capsys.readouterr().out  # of ties the earlier one
    chosen = json.loads((model_dir / "selected.json").read_text())
    assert (chosen["step"], chosen["rule"]["calculator"]) == (2, "none")
