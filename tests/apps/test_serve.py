"""Serving a student: over a real socket, with the answers of `generate`'s own way."""

import concurrent.futures
import contextlib
import http.client
import json
import threading

import jax
import numpy as np
import pytest

from specialize_jax.apps import answering, serve, serving, student
from tests.apps import students

PROMPTS = ["Q: Ada has 3 apples. A:", "Q: How many? A:", "Q: Tom buys 4 more apples and eats 2. A:"]
LIMITS = {"max_length": 6, "input_length": 48}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = students.write(tmp_path_factory.mktemp("student"), (2,))
    found = student.read(folder)
    return found, found.restore(2)


@pytest.fixture(scope="module")
def post(asked):
    """Returns a function that sends a body to a path and gives status and reply."""
    found, params = asked
    worker = serving.Worker(serving.Decoder(found, params, batch_size=2, max_logprobs=4, **LIMITS))
    server = serve.Server(("127.0.0.1", 0), worker, "ours")
    thread = threading.Thread(target=server.serve_forever)

    def send(body, path="/v1/completions", method="POST"):
        connection = http.client.HTTPConnection(*server.server_address, timeout=60)
        with contextlib.closing(connection):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    with worker, server:
        thread.start()
        yield send
        server.shutdown()
        thread.join()


def texts(reply):
    status, body = reply
    assert status == 200, body
    return [choice["text"] for choice in body["choices"]]


def test_answers_are_those_of_the_student(post, asked):
    found, params = asked
    settings = answering.Settings(max_length=LIMITS["max_length"])
    answerer = answering.answerer(
        found.model, found.tokenizer, settings, batch_size=3, input_length=48
    )
    expected = dict(answerer.stream(params, PROMPTS, range(3)))
    reply = post({"prompt": PROMPTS, "temperature": 0, "n": 2})
    assert texts(reply) == [text for place in range(3) for text in expected[place] * 2]
    assert [choice["index"] for choice in reply[1]["choices"]] == list(range(6))
    usage = reply[1]["usage"]
    assert usage["prompt_tokens"] == sum(map(answerer.length, PROMPTS))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_log_probabilities_are_those_of_one_parallel_pass(post, asked):
    found, params = asked
    body = {"prompt": PROMPTS[0], "seed": 1, "logprobs": 3, "return_tokens_as_token_ids": True}
    [choice] = post(body)[1]["choices"]
    ids = [int(name.removeprefix("token_id:")) for name in choice["logprobs"]["tokens"]]
    inputs = [*found.tokenizer.encode(PROMPTS[0]), found.tokenizer.eos_id]
    batch = {
        "encoder_input_tokens": np.array([inputs], np.int32),
        "decoder_input_tokens": np.array([[0, *ids[:-1]]], np.int32),
    }
    expected = np.asarray(jax.nn.log_softmax(jax.jit(found.model.logits)(params, batch)[0]))
    own = expected[np.arange(len(ids)), ids]
    np.testing.assert_allclose(choice["logprobs"]["token_logprobs"], own, rtol=1e-3, atol=1e-4)
    for step, top in enumerate(choice["logprobs"]["top_logprobs"]):
        best = -np.sort(-expected[step])[:3]
        np.testing.assert_allclose(list(top.values()), best, rtol=1e-3, atol=1e-4)


def test_a_seed_draws_the_same_whoever_else_asks(post):
    def ask(seed):
        return texts(post({"prompt": PROMPTS[seed % 3], "seed": seed, "n": 2}))

    alone = [ask(seed) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == alone
    assert len({text for answers in alone for text in answers}) > 3


def test_chat_and_what_there_is(post):
    messages = [{"role": "user", "content": PROMPTS[0]}]
    status, body = post(
        {"messages": messages, "temperature": 0, "model": "ours"}, "/v1/chat/completions"
    )
    assert status == 200 and body["object"] == "chat.completion"
    same = texts(post({"prompt": PROMPTS[0], "temperature": 0}))
    assert [choice["message"]["content"] for choice in body["choices"]] == same
    assert post(b"", "/v1/models", "GET")[1]["data"][0]["id"] == "ours"
    assert post(b"", "/health", "GET") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("body", "path", "status", "message"),
    [
        (b"{", "/v1/completions", 400, "expected JSON"),
        ({"prompt": 5}, "/v1/completions", 400, "a text or a list of texts"),
        ({"prompt": "a " * 60}, "/v1/completions", 400, "at most 48 can be read"),
        (
            {"prompt": "a", "model": "theirs"},
            "/v1/completions",
            404,
            "choices: ours",
        ),
        ({"prompt": "a"}, "/v1/embeddings", 404, "choices: /v1/completions"),
        ({"prompt": "a", "logprobs": 5}, "/v1/completions", 400, "expected 0 to 4"),
    ],
)
def test_what_cannot_be_served_is_said(post, body, path, status, message):
    got, reply = post(body, path)
    assert got == status
    assert message in reply["error"]["message"]
    assert len(texts(post({"prompt": PROMPTS[0]}))) == 1  # and the server goes on


def test_a_failure_is_told_to_those_who_asked(asked, monkeypatch):
    found, params = asked
    worker = serving.Worker(serving.Decoder(found, params, batch_size=2, max_logprobs=4, **LIMITS))
    request = serve.completions.parse(
        {"prompt": "a"}, is_chat=False, max_tokens=6, max_logprobs=4, max_n=1
    )
    with worker:
        monkeypatch.setattr(worker.decoder, "answers", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            worker.answer(request)
        monkeypatch.undo()
        assert len(worker.answer(request)[0]) == 1
