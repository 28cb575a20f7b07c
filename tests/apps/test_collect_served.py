"""`collect` from a server: a run that is killed, filters, limits, and what is refused."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import pytest

from specialize_jax.apps import main
from specialize_jax.schemas import folders, records
from specialize_jax.teacher.journal import Journal
from specialize_jax.teacher.sampling import Sampling
from tests.real_data import data_dir
from tests.teacher.server import FAULTS, Server

KEY = "sk-very-secret-1234"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def flags(tmp_path):
    """Returns a function that gives the flags of a run in a folder of its own."""

    def make(server, count=6, **changes):
        rows = [
            {"id": f"q/{i}", "question": f"What is {i} + 1?", "answer": f"{i + 1}"}
            for i in range(count)
        ]
        file = tmp_path / "questions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        prompt = tmp_path / "prompt.txt"
        prompt.write_text("Question: {question}\nLet's think step by step")
        settings = {
            **{"base_url": getattr(server, "url", server), "model": "m", "questions": file},
            **{"prompt": prompt, "samples": 4, "top_logprobs": 3, "out": tmp_path / "out"},
            **{"answer_line": True, "timeout": 2, **changes},
        }
        found = ["collect"]
        for name, value in settings.items():
            if value is True:
                found.append(f"--{name}")
            elif value is not None and value is not False:
                found.append(f"--{name}={value}")
        return found

    return make


def info(tmp_path, name="out"):
    return folders.read_info(tmp_path / name, records.NAME)


def rows(tmp_path, name="out"):
    found = info(tmp_path, name)
    tables = folders.read_parts(tmp_path / name, found, records.ARROW_SCHEMA)
    return [row for _, table in tables for row in table.to_pylist()]


def journalled(out):
    with Journal(out / "requests" / "journal.jsonl") as journal:
        return {(f"q/{i}", n) for i in range(200) for n in range(8) if (f"q/{i}", n) in journal}


def test_killed_in_the_middle_against_a_server_full_of_faults(flags, tmp_path):
    """Every (question, sample) exactly once, nothing that was kept asked again, no key anywhere."""
    concurrency = 16
    with Server(FAULTS, rate=0.2, delay=0.005) as server:
        changes = {"samples": 8, "samples_per_request": 2, "concurrency": concurrency}
        argv = flags(server, count=200, timeout=0.5, seed=3, any_answer=True, **changes)
        command = [sys.executable, "-m", "specialize_jax.apps.main", *argv]
        with (tmp_path / "log").open("wb") as log:
            run = subprocess.Popen(command, stdout=log, stderr=log)
            while server.done.total() < 300 and run.poll() is None:
                time.sleep(0.02)
            assert run.poll() is None, (tmp_path / "log").read_text()
            run.send_signal(signal.SIGKILL)
            run.wait()
            before = journalled(tmp_path / "out")
            asked_before = len(server.requests)
            assert 0 < len(before) < 1600
            ended = subprocess.run(command, stdout=log, stderr=log)
        text = (tmp_path / "log").read_text()
        assert ended.returncode == 0, text
    assert len(journalled(tmp_path / "out")) == 1600
    found = info(tmp_path)
    assert found["answers"] == {"wanted": 1600, "there": 1600}
    assert found["summary"]["samples"] == 1600 == found["rows"] + sum(found["dropped"].values())
    keys = [(row["example_id"], row["sample_id"]) for row in rows(tmp_path)]
    assert keys == sorted(keys, key=lambda k: (int(k[0][2:]), k[1])) and len({*keys}) == len(keys)
    # What the journal held at the kill was not asked for again.
    asked = Sampling("m", seed=3)
    kept_seeds = {
        asked.payload(types.SimpleNamespace(id=id_), "", (sample,))["seed"]
        for id_, sample in before
    }
    again = [p["seed"] for _, p, _ in server.requests[asked_before:] if p["max_tokens"] > 1]
    assert not kept_seeds & {*again}
    # Sent whole twice: only what was on its way when the process was killed.
    twice = [key for key, count in server.done.items() if count > 1]
    assert len(twice) <= concurrency
    for path in [*(tmp_path / "out").rglob("*"), tmp_path / "log"]:
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_the_journal_in_compressed_replies_has_no_key_either(flags, tmp_path):
    with Server() as server:
        assert main.main(flags(server)) == 0
        assert any(KEY in header.get("authorization", "") for header in server.headers)
    with Journal(tmp_path / "out/requests/journal.jsonl") as journal:
        bodies = [body for i in range(6) for _, body in journal.replies(f"q/{i}")]
    assert len(bodies) == 6 and not any(KEY in body for body in bodies)
    assert all("Bearer ***" in body for body in bodies)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_records_verify_and_agree_with_what_was_said(flags, tmp_path, api, capsys):
    with Server() as server:
        assert main.main(flags(server, api=api, keep_wrong=True)) == 0
        assert "to ask: 6 requests for 24 answers" in capsys.readouterr().out
        count = len(server.requests)
        assert main.main(flags(server, api=api, keep_wrong=True)) == 0
        assert "already collected" in capsys.readouterr().out and len(server.requests) == count
    for name, is_correct in (("out", True), ("out/wrong", False)):
        assert main.main(["verify", str(tmp_path / name)]) == 0
        assert {row["is_correct"] for row in rows(tmp_path, name)} == {is_correct}
    found = info(tmp_path)
    assert found["logprobs_temperature"] == 1.0  # two short requests told
    assert found["rows"] + info(tmp_path, "out/wrong")["rows"] == 24
    assert found["summary"]["right_samples"] == found["rows"] / 24
    assert found["usage"]["completion_tokens"] > 24
    # The chat form tells the bytes of every token, the other form only what the text tells.
    assert (found["left_out"]["ambiguous"] > 0) == (api == "completions")
    assert all(row["prompt"].endswith("step by step") for row in rows(tmp_path))


def test_another_filter_asks_nothing_and_other_settings_are_refused(flags, tmp_path, capsys):
    with Server() as server:
        assert main.main(flags(server)) == 0
        count, kept = len(server.requests), info(tmp_path)["rows"]
        assert main.main(flags(server, any_answer=True)) == 0
        assert len(server.requests) == count and info(tmp_path)["rows"] > kept
        capsys.readouterr()
        assert main.main(flags(server, temperature=0.9, top_logprobs=2)) == 1
        said = capsys.readouterr().err
        assert "temperature: 0.5 there, 0.9 here" in said and "top_logprobs: 3 there, 2" in said
        assert len(server.requests) == count


@pytest.mark.parametrize(
    "limit", [{"max_tokens_total": 600}, {"max_cost": 4, "price_completion": 1e4}]
)
def test_a_budget_is_kept_and_can_be_raised(flags, tmp_path, limit, capsys):
    with Server() as server:
        common = {"max_tokens": 50, "samples_per_request": 1, "logprobs_temperature": 1}
        assert main.main(flags(server, **common, **limit)) == 0
        (name,) = (key for key in limit if key.startswith("max"))
        assert f"stopped by --{name}" in capsys.readouterr().out
        found = info(tmp_path)
        used = found["usage"]["prompt_tokens"] + found["usage"]["completion_tokens"]
        assert found["stopped"] == name and 0 < used <= 600
        assert 0 < found["answers"]["there"] < 24
        assert main.main(flags(server, **common)) == 0
        assert info(tmp_path)["answers"]["there"] == 24 and info(tmp_path)["stopped"] is None
        assert max(server.done.values()) == 1


def test_settings_of_a_run_that_got_nothing_bind_nobody(flags, tmp_path):
    with Server(logprobs=None) as server:
        assert main.main(flags(server)) == 1
        assert main.main(flags(server, top_logprobs=0)) == 0
    assert info(tmp_path)["k"] == 0 and info(tmp_path)["logprobs_temperature"] is None


def test_what_is_on_its_way_is_kept_when_the_server_refuses(flags, tmp_path, capsys):
    """A quota runs out: others had been asked already, and are paid for."""
    with Quota() as server:
        argv = flags(server, samples_per_request=1, logprobs_temperature=1, concurrency=6)
        assert main.main(argv) == 1
        assert "insufficient_quota" in capsys.readouterr().err
        sent = server.done.total()
        assert 1 < sent < 24 and len(journalled(tmp_path / "out")) == sent
        server.left = 100
        assert main.main(argv) == 0 and server.done.total() == 24


class Quota(Server):
    """Answers a few requests, slowly, and refuses at once what comes then."""

    left = 6

    async def _reply(self, writer, headers, payload, value, fault):
        self.left -= 1
        if self.left < 0:
            said = {"error": {"message": "insufficient_quota", "code": "insufficient_quota"}}
            return await self._send(writer, 429, said)
        await asyncio.sleep(0.02 * (6 - self.left % 6))
        return await super()._reply(writer, headers, payload, value, fault)


def test_prompts_by_name_and_a_url_of_the_environment(flags, tmp_path, monkeypatch):
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        changes = {"base_url": None, "answer_line": None, "prompt": "hint", "samples": 1}
        assert main.main(flags(server, count=2, data_dir=data_dir(), **changes)) == 0
        prompt = server.requests[0][1]["prompt"]
        assert server.requests[0][1]["stop"] == ["\nQuestion:"]
    assert prompt.endswith("What is 0 + 1?\nThe answer is 1.\nLet's think step by step")
    assert info(tmp_path)["filter"]["answer_line"] is True


def test_an_estimate_asks_nothing_and_writes_nothing(flags, tmp_path, capsys):
    assert main.main(flags("http://127.0.0.1:9/v1", estimate=True, price_completion=2.0)) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"6 requests for 24 answers; .* 6,144 tokens of answers at most, cost 0.01", said
    )
    assert not (tmp_path / "out").exists()


def test_answers_that_are_there_are_scored(flags, tmp_path):
    existing = tmp_path / "existing.jsonl"
    lines = [{"id": f"q/{i}", "completion": f"{i} + 1\nThe answer is {i + 1}"} for i in (0, 0, 2)]
    existing.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Scorer() as server:
        assert main.main(flags(server, score_existing=existing)) == 0
    found = rows(tmp_path)
    assert [(row["example_id"], row["sample_id"]) for row in found] == [("q/0", 0), ("q/2", 0)]
    assert info(tmp_path)["dropped"] == {"duplicate": 1}
    assert records.target_text(found[0]) == "0 + 1\nThe answer is 1"
    assert found[0]["token_logprobs"] and len(found[0]["topk_bytes"][0]) == 2


class Scorer(Server):
    """Scores prompts as vLLM does."""

    async def _reply(self, writer, headers, payload, value, fault):
        tokens = re.findall(r" ?\w+|\W", payload["prompt"])
        listed = [
            {
                str(i): {"logprob": -0.5, "decoded_token": t},
                "9": {"logprob": -2.0, "decoded_token": "~"},
            }
            for i, t in enumerate(tokens, 10)
        ]
        value["choices"][0]["prompt_logprobs"] = [None, *listed[1:]]
        return await super()._reply(writer, headers, payload, value, fault)


@pytest.mark.parametrize(
    ("server", "changes", "expected"),
    [
        ({"logprobs": None}, {}, "sends no log-probabilities.*--top_logprobs 0"),
        ({"most": 2}, {}, r"400: --top_logprobs is perhaps above.*2 at most, not 3"),
        ({"model": "other"}, {}, "404: .*no such model; its models: other"),
        ({"key": "another"}, {}, "401: the server refuses the key: set OPENAI_API_KEY"),
        ({}, {"max_tokens_total": 10}, "--max_tokens_total allows none"),
        ({}, {"model": None}, r"expected --model \(or OPENAI_BASE_URL"),
        ({}, {"base_url": "localhost"}, "--base_url: expected http"),
        ({}, {"extra_body": "[1]"}, "--extra_body: expected a JSON object"),
        ({}, {"concurrency": 0}, "--concurrency: expected at least 1"),
        ({}, {"prompt": "absent.txt"}, "--prompt: there is no file 'absent.txt'; by name: complex"),
        ({}, {"questions": "absent.jsonl"}, "--questions: there is no file"),
        ({}, {"temperature": 0}, "all 4 samples would be the same"),
        ({}, {"gin_file": "x.gin"}, "--gin_file or a server"),
        ({}, {"out": "gs://bucket/x"}, "a local file; 'gs://bucket/x' is none"),
    ],
)
def test_bad_input_is_said_before_anything_is_spent(flags, capsys, server, changes, expected):
    with Server(**server) as running:
        assert main.main(flags(running, **changes)) == 1
        assert len(running.requests) <= 1
    said = capsys.readouterr().err
    assert re.search(expected, said), said
    assert KEY not in said


def test_questions_without_gold_answers(flags, tmp_path, capsys):
    with Server() as server:
        argv = flags(server)
        with (tmp_path / "questions.jsonl").open("a") as file:
            file.write('{"question": "What is 7 + 7?"}\n')
        assert main.main(argv) == 1
        said = capsys.readouterr().err
        assert re.search(r"1 of 7 questions have no gold answer.*line 7.*--any_answer", said)
        assert not server.requests
        assert main.main([*argv, "--any_answer"]) == 0
    last = [row for row in rows(tmp_path) if row["example_id"] == "questions/6"]
    assert last and all(row["is_correct"] is None and row["gold_answer"] is None for row in last)


def test_what_other_records_lie_there_is_left_alone(flags, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "teacher_info.json").write_text("{}")
    with Server() as server:
        assert main.main(flags(server)) == 1
    assert "holds teacher_records that no server gave" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == ["teacher_info.json"]
