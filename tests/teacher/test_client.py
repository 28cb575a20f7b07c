"""Retries, rests and refusals, against a server that misbehaves; the key stays where it is."""

import asyncio
import dataclasses
import datetime
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax.schemas import SchemaError
from specialize_jax.teacher import budget, first_look, summary, wire
from specialize_jax.teacher.client import Client, Pace, Refused, Transient, public, retry_after
from specialize_jax.teacher.collect import Sample
from specialize_jax.teacher.journal import Entry, Journal
from specialize_jax.teacher.sampling import Sampling, Scoring
from tests.teacher.server import Server

KEY = "sk-very-secret-1234"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
PAYLOAD = {"model": "m", "prompt": "What is 1 + 2?", "max_tokens": 64, "temperature": 1.0}


def ask(url, key=KEY, *, timeout=5.0, attempts=8, pace=None, payload=PAYLOAD, path="/completions"):
    """Asks once; returns body, choices, reasons of retries, and of losses."""
    lost = []

    async def run():
        client = Client(
            url, key, timeout=timeout, attempts=attempts, pace=pace or Pace(), connections=4
        )
        try:
            body, choices = await client.ask(path, payload, wire.choices, lost.append)
            return body, choices, client.retries, lost
        finally:
            await client.close()

    return asyncio.run(run())


class Once(Server):
    """Something goes wrong with the first `times` requests, and then nothing."""

    def __init__(self, fault, times=1, **settings):
        super().__init__(**settings)
        self.fault, self.times = fault, times

    async def _reply(self, writer, headers, payload, value, fault):
        fault = self.fault if len(self.requests) <= self.times else None
        return await super()._reply(writer, headers, payload, value, fault)


@pytest.mark.parametrize(
    ("fault", "reason", "may_be_charged"),
    [
        ("limited", "status 429", False),
        ("limited_until", "status 503", False),
        ("error", "status 500", False),
        ("hangs", "timeout", True),
        ("cut_body", "cut body", True),
        ("short_length", "broken JSON", True),
        ("broken_json", "broken JSON", True),
        ("no_choices", "no completion", True),
    ],
)
def test_faults_are_asked_again(fault, reason, may_be_charged):
    with Once(fault) as server:
        body, choices, retries, lost = ask(server.url, timeout=0.4)
    assert retries == {reason: 1} and lost == [reason] * may_be_charged
    assert "The answer is" in choices[0].text
    assert KEY not in body and json.loads(body)["debug"] == "Bearer ***"


def test_a_slow_stream_is_no_fault():
    with Once("slow") as server:
        assert ask(server.url)[2] == {}


def test_after_all_attempts_it_gives_up():
    with Once("error", times=9) as server, pytest.raises(Transient, match="status 500"):
        ask(server.url, attempts=2)
    assert len(server.requests) == 2


def test_what_came_instead_is_told_and_the_first_time_at_once():
    with Server(faults=["no_choices"], rate=1.0) as server:
        said = []

        async def run():
            client = Client(
                server.url, KEY, timeout=5, attempts=2, pace=Pace(), connections=1, say=said.append
            )
            try:
                await client.ask("/completions", PAYLOAD, wire.choices, lambda _: None)
            finally:
                await client.close()

        with pytest.raises(Transient, match=r"no completion \(expected an object with 'choices'"):
            asyncio.run(run())
    assert len(said) == 1 and "an attempt failed: no completion (expected" in said[0]


def test_an_attempt_that_is_interrupted_may_be_charged():
    lost = []

    async def run(url):
        client = Client(url, None, timeout=60, attempts=2, pace=Pace(), connections=1)
        asking = asyncio.create_task(client.ask("/completions", PAYLOAD, wire.choices, lost.append))
        await asyncio.sleep(0.2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await client.close()

    with Server(faults=["hangs"], rate=1.0) as server:
        asyncio.run(run(server.url))
    assert lost == ["interrupted"]


@pytest.mark.parametrize("key", ["x", "0", "token", "text"])
def test_a_word_that_stands_for_a_key_is_left_in_replies(key):
    with Server() as server:
        body, choices, _, _ = ask(server.url, key=key, payload={**PAYLOAD, "logprobs": 2})
    assert wire.choices(json.loads(body)) == choices


def test_a_rest_that_the_server_asks_for_is_kept_by_all():
    pace = Pace()

    async def run():
        pace.rest(0.2)
        start = time.monotonic()
        await asyncio.gather(*(pace.turn() for _ in range(3)))
        return time.monotonic() - start

    assert 0.2 <= asyncio.run(run()) < 2


def test_requests_a_minute():
    async def run():
        pace, start = Pace(1200), time.monotonic()
        for _ in range(5):
            await pace.turn()
        return time.monotonic() - start

    assert 4 * 0.05 <= asyncio.run(run()) < 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        ("-3", 0),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        *((word, None) for word in ("soon", "", "inf", "nan", None)),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(value, NOW) == seconds


def test_refusals_say_what_to_change_and_not_the_key():
    with Server(key=KEY) as server:
        for key, change, path, expected in (
            ("sk-other-5678", {}, "/completions", "401: the server refuses the key: set OPENAI"),
            (KEY, {"model": "x"}, "/completions", "404: no such path or model.*no such model"),
            (KEY, {}, "/completion", r"404: no such path.*ends in /v1.*Not Found"),
            (KEY, {"logprobs": 21}, "/completions", "400: --top_logprobs.*20 at most, not 21"),
        ):
            with pytest.raises(Refused, match=expected) as error:
                ask(server.url, key, payload={**PAYLOAD, **change}, path=path)
            assert key not in str(error.value)


def test_nobody_there_is_said_at_once():
    with Server() as server:
        url = server.url
    with pytest.raises(Refused, match="cannot reach http://127.0.0.1"):
        ask(url)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "http://a:b", "http://[a"])
def test_no_url(url):
    with pytest.raises(ValueError, match="--base_url"):
        public(url)


def test_a_url_is_shown_without_its_secrets():
    assert public("https://me:pass@host:8/v1/?api_key=x#y") == "https://host:8/v1"
    assert public("http://[::1]:8/v1") == "http://[::1]:8/v1"


# ---- the journal ----


def test_a_journal_keeps_what_was_answered(tmp_path):
    path = tmp_path / "requests" / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(Entry("q", (0, 1), (10, 20), "body é"))
        journal.add(Entry("q", (3,), (1, 2), "other"))
        journal.add_lost(7)
        with pytest.raises(SchemaError, match="another process"):
            Journal(path)
    whole = path.read_bytes()
    for cut in (b"", b'{"question": "q", "samples": [4'):
        path.write_bytes(whole + cut)
        with Journal(path) as journal:
            assert len(journal) == 3 and ("q", 3) in journal and ("q", 2) not in journal
            assert (journal.tokens, journal.lost) == ([11, 22], 7)
            assert list(journal.replies("q")) == [((0, 1), "body é"), ((3,), "other")]
            assert list(journal.replies("r")) == []
        assert path.read_bytes() == whole
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(SchemaError, match="line 1: damaged"):
        Journal(path)


# ---- what is asked ----


def question(text="What is 1 + 2?"):
    from specialize_jax.evaluation.readers import Question

    return Question("q/1", text, "3")


def test_payloads():
    asked = Sampling("m", stop=("\nQ",), top_logprobs=3, extra_body={"return_token_ids": True})
    body = asked.payload(question(), "P", (2, 3))
    assert (body["n"], body["logprobs"], body["stop"]) == (2, 3, ["\nQ"])
    assert body["prompt"] == "P" and body["return_token_ids"] and "messages" not in body
    assert body["seed"] != asked.payload(question(), "P", (4, 5))["seed"]
    body = Sampling("m", api="chat", system="S", top_logprobs=3).payload(question(), "P", (0,))
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "logprobs" not in Sampling("m", top_logprobs=0).payload(question(), "P", (0,))


@pytest.mark.parametrize(
    "change",
    [
        *({"api": "x"}, {"num_samples": 0}, {"top_logprobs": -1}, {"temperature": float("nan")}),
        *({"top_p": 0}, {"max_tokens": 0}, {"temperature": 0, "num_samples": 2}),
    ],
)
def test_settings_out_of_range(change):
    with pytest.raises(ValueError, match="expected|choices|same"):
        Sampling("m", **change)


def test_scoring_takes_the_tokens_of_the_answer():
    asked = Scoring("m", {"q/1": ["3 it is"]}, 2, "echo")
    assert asked.payload(question(), "Sum?", (0,))["prompt"] == "Sum?\n3 it is"
    tokens = ["Sum", "?", "\n", "3", " it", " is"]
    logprobs = {"tokens": tokens, "token_logprobs": [None, *[-1.0] * 5], "top_logprobs": None}
    body = {"choices": [{"text": "".join(tokens), "logprobs": logprobs}]}
    (choice,) = asked.read(body, question(), (0,), None)
    assert choice.text == "3 it is" and len(choice.steps) == 3
    logprobs["tokens"][2:4] = ["", "\n3"]  # a token that reaches across
    assert asked.read(body, question(), (0,), None)[0].steps == []
    listed = [
        None,
        *({str(i): {"logprob": -1.0, "decoded_token": t}} for i, t in enumerate(tokens)),
    ]
    asked = Scoring("m", {"q/1": [" it is"]}, 2)
    (choice,) = asked.read({"choices": [{"prompt_logprobs": listed}]}, question(), (0,), None)
    assert [step.name.bytes for step in choice.steps] == [b" it", b" is"]


# ---- what it costs, and how good the teacher is ----


def test_budgets():
    limits = budget.Budget(1.0, 2.0, max_tokens=100, max_cost=0.00015)
    assert limits.cost(1_000_000, 500_000) == 2.0
    assert limits.exceeded(50, 51) == "max_tokens_total"
    assert limits.exceeded(0, 76) == "max_cost" and limits.exceeded(0, 75) is None
    with pytest.raises(ValueError, match="--max_cost needs prices"):
        budget.Budget(max_cost=1.0)
    found = budget.estimate([(35, 2, 10), (70, 1, 10)], limits, top_logprobs=5)
    assert found[:4] == (2, 3, 30, 30)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_counts_all_ways(samples, data):
    import itertools

    right = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    ways = list(itertools.combinations([True] * right + [False] * (samples - right), k))
    assert summary.pass_at_k(samples, right, k) == pytest.approx(sum(map(any, ways)) / len(ways))


def test_a_tally():
    from specialize_jax.decoding.voting import majority_vote

    tally = summary.Tally(majority_vote)
    for sample, text in enumerate(["The answer is 4", "so 3", "it is 3", "no idea"]):
        assert tally.add(question(), sample, text) == (sample in (1, 2))
    found = tally.summary()
    assert (found["first_sample_accuracy"], found["majority_accuracy"]) == (0.0, 1.0)
    assert found["pass_at_k"] == pytest.approx({"1": 0.5, "2": 5 / 6, "4": 1.0})
    assert found["questions_without_gold"] == 0
    assert summary.histogram({"a": 2, "b": 2, "c": 1}, 5) == {"0": 2, "1": 1, "2": 2}


def test_answers_without_a_gold_answer_are_neither_right_nor_wrong():
    from specialize_jax.decoding.voting import majority_vote

    tally = summary.Tally(majority_vote)
    unknown = dataclasses.replace(question(), id="unknown", answer="")
    assert not tally.add(unknown, 0, "The answer is 3")
    found = tally.summary()
    assert found["samples"] == 1 and "first_sample_accuracy" not in found
    tally.add(question(), 0, "The answer is 3")
    found = tally.summary()
    assert (found["questions"], found["samples"], found["questions_without_gold"]) == (2, 2, 1)
    assert found["first_sample_accuracy"] == found["right_samples"] == 1.0


@pytest.mark.parametrize("when", ["before", "after"])
def test_which_temperature_logprobs_include_is_found_out(when):
    asked = Sampling("m", temperature=0.7, top_logprobs=4)

    async def run(url):
        client = Client(url, None, timeout=5, attempts=2, pace=Pace(), connections=1)
        try:
            return await first_look.temperature_of_logprobs(
                client, asked, question(), "What is 1 + 2?", None
            )
        finally:
            await client.close()

    with Server(logprobs=when) as server:
        included, tokens = asyncio.run(run(server.url))
    assert included == (1.0 if when == "before" else 0.7) and sum(tokens) > 0


def test_a_sample_without_tokens_is_its_text():
    from specialize_jax.teacher import collect

    row = collect.row(question(), 0, Sample("P", [], [], [], 0, text="It is 3"))
    assert (row["completion"], row["is_correct"], row["token_bytes"]) == ("It is 3", True, [])
