"""Answers in any order, several samples a question, prompts that are too long, kills anywhere."""

import random
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import answers, decoding
from specialize_jax.evaluation import runner, scoring
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import results

QUESTIONS = [Question(f"toy/{row}", f"{row} + 1?", str(row + 1), row=row) for row in range(9)]
MODES = ("corrected",)


def prompt(question):
    return question.question


def shuffled(prompts, numbers, *, samples=1, seed=0):
    """Answers out of order; sample s of row r is right where s + r is even."""
    places = list(range(len(prompts)))
    random.Random(seed).shuffle(places)
    for place in places:
        assert prompts[place] == f"{numbers[place]} + 1?"
        row = numbers[place]
        yield place, [f"The answer is {row + 1 + (row + s) % 2}." for s in range(samples)]


def of(k, mode="corrected"):
    return lambda prediction: prediction.votes[f"maj@{k}"][mode]


def test_answers_in_any_order_land_at_their_questions(tmp_path):
    expected = runner.run(QUESTIONS, prompt, shuffled, modes=MODES)
    assert [one.scores["corrected"].correct for one in expected] == [True, False] * 4 + [True]
    for seed in range(5):

        def stream(prompts, numbers, seed=seed):
            return shuffled(prompts, numbers, seed=seed)

        journal = tmp_path / f"{seed}.jsonl"
        assert runner.run(QUESTIONS, prompt, stream, modes=MODES, journal=journal) == expected


def test_an_answer_is_on_disk_as_soon_as_it_came(tmp_path):
    journal = tmp_path / "predictions.jsonl"

    def stream(prompts, numbers):
        for count, answer in enumerate(shuffled(prompts, numbers)):
            assert (journal.read_bytes().count(b"\n") if journal.exists() else 0) == count
            yield answer

    runner.run(QUESTIONS, prompt, stream, modes=MODES, journal=journal)
    assert journal.read_bytes().count(b"\n") == len(QUESTIONS)


def test_kill_nine_loses_only_what_was_in_flight(tmp_path):
    journal = tmp_path / "predictions.jsonl"
    code = f"""
import os, signal
from specialize_jax.evaluation import runner
from tests.evaluation.test_streaming import QUESTIONS, prompt, shuffled
def stream(prompts, numbers):
    for count, answer in enumerate(shuffled(prompts, numbers, samples=3)):
        if count == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield answer
runner.run(QUESTIONS, prompt, stream, samples=3, modes=("corrected",), journal={str(journal)!r})
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL
    asked = []

    def stream(prompts, numbers):
        asked.extend(numbers)
        return shuffled(prompts, numbers, samples=3)

    again = runner.run(QUESTIONS, prompt, stream, samples=3, modes=MODES, journal=journal)
    assert len(asked) == 4
    assert [len(one.responses) for one in again] == [3] * 9


def test_a_bucket_gets_the_whole_file_when_the_run_ends_or_breaks(tmp_path, monkeypatch):
    from specialize_jax.evaluation import journal as journal_lib

    monkeypatch.setattr(journal_lib, "_can_grow", lambda path: False)
    path, written = tmp_path / "predictions.jsonl", []

    def stream(prompts, numbers):
        for count, answer in enumerate(shuffled(prompts, numbers)):
            written.append(path.exists())
            if count == 6:
                raise OSError("the machine is gone")
            yield answer

    with pytest.raises(OSError, match="gone"):
        runner.run(QUESTIONS, prompt, stream, modes=MODES, journal=path)
    assert not any(written) and path.read_bytes().count(b"\n") == 6


def test_a_journal_of_other_settings_is_not_reused_and_the_old_form_is(tmp_path):
    path, asked = tmp_path / "predictions.jsonl", []
    old = {"max_gen_toks": 8, "do_sample": False}
    lines = [
        results.json_line(
            {
                "id": one.id,
                "doc_id": one.row,
                "arguments": results.arguments(prompt(one), old),
                "resps": [["The answer is 1."]],
            }
        )
        for one in QUESTIONS
    ]
    path.write_text("".join(lines))

    def stream(prompts, numbers):
        asked.append(len(prompts))
        return shuffled(prompts, numbers, samples=2)

    reused = runner.run(QUESTIONS, prompt, stream, journal=path, generation=old)
    assert not asked and reused[0].responses == ["The answer is 1."]
    sampled = {**old, "do_sample": True, "num_return_sequences": 2, "seed": 1}
    for generation in (sampled, sampled, sampled | {"seed": 2}):
        runner.run(QUESTIONS, prompt, stream, samples=2, journal=path, generation=generation)
    assert asked == [9, 9]
    # The same request with another number of texts is another one, too.
    runner.run(QUESTIONS, prompt, stream, samples=2, journal=path, generation=old)
    assert asked == [9, 9, 9]


def test_every_k_of_one_run():
    voting = runner.Voting(decoding.majority_vote, (1, 2, 3))

    def stream(prompts, numbers):
        return shuffled(prompts, numbers, samples=3)

    found = runner.run(QUESTIONS, prompt, stream, modes=MODES, samples=3, voting=voting)
    first = [one.scores["corrected"] for one in found]
    assert [of(1)(one) for one in found] == first
    # Two differ: the first to occur wins. Of three the two of one kind.
    assert [of(2)(one) for one in found] == first
    assert [of(3)(one).correct for one in found] == [row % 2 == 0 for row in range(9)]
    assert found[0].metrics.keys() == {"exact_match", "maj@1", "maj@2", "maj@3"}


def plain_vote(texts, gold, k):
    """The rule in words: parsable answers of the first k; the most frequent; first of equals."""
    read = [answers.extract(text) for text in texts[:k]]
    read = [answer for answer in read if answer is not None]
    if not read:
        return None, False
    best = read[0]
    for answer in read:
        if read.count(answer) > read.count(best):
            best = answer
    return best, answers.equal(best, gold)


TEXTS = st.lists(
    st.sampled_from(["The answer is 7.", "The answer is 8", "= $7.00", "none", "", "so 9, so 8"]),
    min_size=1,
    max_size=9,
)


@given(TEXTS, st.sampled_from(["7", "8", "Bryan"]))
def test_votes_are_those_of_the_rule_in_words(texts, gold):
    question, ks = Question("x/0", "q", gold), tuple(range(1, len(texts) + 1))
    found = scoring.votes(texts, question, MODES, ks, decoding.majority_vote)
    for k in ks:
        voted, correct = plain_vote(texts, gold, k)
        assert (found[k]["corrected"].answer, found[k]["corrected"].correct) == (voted, correct)


def test_a_prompt_that_is_too_long_is_not_asked_and_wrong(tmp_path):
    asked = []

    def stream(prompts, numbers):
        asked.extend(numbers)
        return ((place, [" "] * 2) for place in range(len(prompts)))

    voting = runner.Voting(decoding.majority_vote, (2,))
    found = runner.run(
        QUESTIONS, prompt, stream, modes=MODES, samples=2, voting=voting, too_long={"toy/3"}
    )
    assert asked == [0, 1, 2, 4, 5, 6, 7, 8]
    assert found[3].too_long and found[3].responses == [""]
    assert not found[3].scores["corrected"].correct and not of(2)(found[3]).correct
    path = runner.save(tmp_path, {"toy": runner.Task(found)}, config={}, date=0)
    counts = results.read_results(path)["n-samples"]["toy"]
    assert (counts["effective"], counts["too_long"], counts["empty"]) == (9, 1, 16)
    [samples] = tmp_path.glob("samples_*")
    lines = results.read_samples(samples)
    assert [line.get("too_long", False) for line in lines] == [row == 3 for row in range(9)]
    assert lines[0]["resps"] == [[" ", " "]] and lines[0]["maj@2"] == 0.0


def test_nothing_new_writes_nothing(tmp_path):
    found = runner.run(QUESTIONS, prompt, shuffled, modes=MODES)
    saved = [
        runner.save(tmp_path, {"toy": runner.Task(found)}, config={"step": 1}, date=date)
        for date in (0, 1)
    ]
    assert saved[0] == saved[1]
    other = runner.save(tmp_path, {"toy": runner.Task(found)}, config={"step": 2}, date=2)
    assert other == runner.newest_results(tmp_path) != saved[0]


def test_results_of_another_version_stay_and_new_ones_go_beside(tmp_path):
    strange = tmp_path / "results_1970-01-01T00-00-00.000000.json"
    strange.write_text('{"schema_version": 9}')
    found = runner.run(QUESTIONS, prompt, shuffled, modes=MODES)
    path = runner.save(tmp_path, {"toy": runner.Task(found)}, config={}, date=1e9)
    assert path != strange and strange.read_text() == '{"schema_version": 9}'


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (lambda prompts, numbers: iter(()), "got none to 9 of them"),
        (lambda prompts, numbers: iter([(9, ["x"])]), "place of 9 prompts once, got 9"),
        (lambda prompts, numbers: iter([(0, ["x"]), (0, ["x"])]), "prompts once, got 0"),
        (lambda prompts, numbers: iter([(0, ["x", "y"])]), "to return 1 texts, got 2"),
        (lambda prompts, numbers: iter([(0, "x")]), "to return 1 texts, got one string"),
    ],
)
def test_a_wrong_stream_is_named(stream, message):
    with pytest.raises(ValueError, match=message):
        runner.run(QUESTIONS, prompt, stream)


@pytest.mark.parametrize("k", [0, 3])
def test_votes_need_as_many_samples(k):
    with pytest.raises(ValueError, match=f"votes of 1 to 2 samples.*got {k}"):
        runner.run(
            QUESTIONS,
            prompt,
            shuffled,
            samples=2,
            voting=runner.Voting(decoding.majority_vote, [k]),
        )
