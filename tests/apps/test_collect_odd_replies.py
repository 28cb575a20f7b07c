"""`collect` from a server whose replies are odd, and flags that would waste what is paid."""

import json
import math
import re

import pytest

from specialize_jax.apps import main, progress
from specialize_jax.teacher.journal import Journal
from tests.apps import test_collect_served as served
from tests.teacher.server import Server

environment, flags = served.environment, served.flags


class Odd(Server):
    """Changes its replies.

    Args:
      change: (request, reply) -> a reply, or a status of HTTP.
    """

    def __init__(self, change, **settings):
        super().__init__(**settings)
        self.change = change

    async def _reply(self, writer, headers, payload, value, fault):
        value = self.change(payload, value)
        if isinstance(value, int):
            return await self._send(writer, value, {"error": {"message": "not now"}})
        return await super()._reply(writer, headers, payload, value, fault)


def candidates(change):
    """Returns a change of what is said of each step."""

    def changed(payload, value):
        for choice in value["choices"]:
            steps = choice["logprobs"]["top_logprobs"]
            choice["logprobs"]["top_logprobs"] = [change(step) for step in steps]
        return value

    return changed


def used(tokens):
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens}
    return lambda _, value: {**value, "usage": usage}


@pytest.mark.parametrize(
    "change",
    [
        used("12"),
        used(-1e9),
        used(math.nan),
        lambda _, value: {**value, "usage": [1]},
        candidates(lambda step: {**step, "?": None}),
        candidates(lambda step: {**step, "?": "-2.0"}),
    ],
)
def test_odd_replies_are_used_as_far_as_they_go(flags, tmp_path, change):
    with Odd(change) as server:
        argv = flags(server, any_answer=True)
        assert main.main(argv) == 0
        count = len(server.requests)
        assert main.main(argv) == 0 and len(server.requests) == count
    assert main.main(["verify", str(tmp_path / "out")]) == 0
    found = served.info(tmp_path)
    assert found["answers"]["there"] == 24 and found["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("status", [400, 500])
def test_a_server_that_will_not_be_measured_is_asked_all_the_same(flags, tmp_path, capsys, status):
    with Odd(lambda payload, value: status if payload["max_tokens"] == 1 else value) as server:
        assert main.main(flags(server, attempts=2)) == 0
    assert "log-probabilities include is not known" in capsys.readouterr().err
    found = served.info(tmp_path)
    assert found["logprobs_temperature"] is None and found["answers"]["there"] == 24


def test_the_first_answers_may_be_empty(flags, tmp_path):
    first = []

    def empty_at_first(payload, value):
        first.append(payload["seed"])
        if payload["seed"] in first[:1]:
            no = {"tokens": [], "token_logprobs": [], "top_logprobs": []}
            value["choices"] = [{**c, "text": "", "logprobs": no} for c in value["choices"]]
        return value

    with Odd(empty_at_first) as server:
        assert main.main(flags(server)) == 0
    assert served.info(tmp_path)["dropped"]["empty"] == 4


@pytest.mark.parametrize("scored_by", ["prompt_logprobs", "echo"])
def test_a_server_that_scores_nothing_is_asked_once(flags, tmp_path, capsys, scored_by):
    existing = tmp_path / "existing.jsonl"
    existing.write_text(json.dumps({"id": "q/0", "completion": "The answer is 1"}) + "\n")
    with Server(logprobs=None) as server:
        assert main.main(flags(server, score_existing=existing, scored_by=scored_by)) == 1
        assert len(server.requests) == 1
    assert re.search("the server sends no .*log", capsys.readouterr().err)


def test_attempts_that_are_lost_are_in_the_budget(flags, tmp_path, capsys):
    with Server(faults=["broken_json"], rate=1.0) as server:
        assert main.main(flags(server, max_tokens=50, max_tokens_total=500, concurrency=3)) == 1
        assert 0 < len(server.requests) < 10
    assert "--max_tokens_total allows none" in capsys.readouterr().err
    with Journal(tmp_path / "out/requests/journal.jsonl") as journal:
        assert 0 < journal.lost <= 500


def test_questions_that_nobody_can_judge(flags, tmp_path, capsys):
    with Server() as server:
        argv = flags(server, any_answer=True)
        rows = [{"id": None, "question": f"What is {i} + 1?", "answer": None} for i in range(2)]
        file = tmp_path / "questions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main.main(argv) == 0
    assert "no gold answers to judge it by" in capsys.readouterr().out
    assert {row["example_id"] for row in served.rows(tmp_path)} == {"questions/0", "questions/1"}


@pytest.mark.parametrize("key", ["sk-secret-caf\u00e9", "sk-sec\nret-1234"])
def test_a_key_that_no_header_carries_is_not_shown(flags, capsys, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Server() as server:
        assert main.main(flags(server)) == 1
        assert not server.requests
    said = capsys.readouterr().err
    assert "OPENAI_API_KEY: expected printable ASCII" in said and key not in said


def test_a_newline_behind_the_key_is_none_of_it(flags, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", served.KEY + "\n")
    with Server(key=served.KEY) as server:
        assert main.main(flags(server)) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"logprobs_temperature": "abc"}, "--logprobs_temperature: expected 'ask'"),
        ({"logprobs_temperature": "nan"}, "--logprobs_temperature: expected 'ask'"),
        ({"extra_body": '{"stream": true, "n": 3}'}, "--extra_body: n, stream cannot be set"),
        ({"system": "Be brief."}, "--system: only --api chat"),
        ({"min_chars": 9, "max_chars": 5}, "min_chars <= max_chars, got 9 and 5"),
        ({"min_chars": -1}, "0 <= min_chars"),
    ],
)
def test_flags_that_would_waste_what_is_paid(flags, capsys, changes, expected):
    with Server() as server:
        assert main.main(flags(server, **changes)) == 1
        assert not server.requests
    assert expected in capsys.readouterr().err


def test_a_bar_goes_on_from_an_earlier_run(capsys):
    move = progress.bar("collect", 10, done=4)
    assert "4/10" in capsys.readouterr().err
    move(6)
    assert "10/10" in capsys.readouterr().err
