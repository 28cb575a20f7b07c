"""A server of the OpenAI form that answers sums, and misbehaves where it is told to. Stdlib alone.

It knows questions `What is A + B?`; what it answers is a function of the question, the seed and the
number of the choice. Some answers are wrong, some are cut, some go on behind the answer.
"""

import asyncio
import collections
import contextlib
import email.utils
import json
import math
import random
import re
import threading
import time

_QUESTION = re.compile(r"What is (\d+) \+ (\d+)\?")
_TOKEN = re.compile(r" ?\w+|\s|[^\w\s]")

# What may go wrong with a reply; `Server(faults=...)` names some of these.
FAULTS = (
    *("limited", "limited_until", "error", "hangs", "slow", "cut_body", "short_length"),
    *("broken_json", "no_choices", "twice", "fewer_choices", "too_many"),
)


def texts(prompt, seed, n):
    """Returns n answers to the last question of a prompt."""
    a, b = map(int, _QUESTION.findall(prompt)[-1])
    rng = random.Random(f"{a} {b} {seed}")
    return [_text(rng, a, b) for _ in range(n)]


def _text(rng, a, b):
    total = a + b + rng.choice([0, 0, 0, 1])
    word = rng.choice(
        ["So", "Then", "Thus", "We see", "Add", "Sum \u00d7 1:", "Caf\u00e9 \U0001f600:"]
    )
    number = rng.randrange(10_000)
    rest = rng.choice(["", "\nQuestion: What next?", "\n\nWell"])
    return f"\n{word} {a} + {b} = {total}, step {number}.\nThe answer is {total}{rest}"


def pieces(text):
    """Returns tokens as bytes; what is beyond ASCII is a token a byte or two."""
    found = []
    for token in _TOKEN.findall(text):
        raw = token.encode()
        if token.isascii():
            found.append(raw)
        else:
            cut = next(i for i, byte in enumerate(raw) if byte >= 0x80) + 1
            found += [raw[:cut], raw[cut:]]
    return found


class Server:
    """Runs in a thread of its own; `with Server() as server` gives its `url`.

    Args:
      faults: of `FAULTS`; each reply draws one of them with probability `rate`.
      rate: how often something goes wrong.
      seed: of what goes wrong.
      most: candidates at a step at most; asked for more, it refuses.
      logprobs: "before" or "after" the temperature, or None for none.
      key: what it accepts; None accepts everything.
      model: the one that it knows.
      delay: seconds before each reply.
    """

    def __init__(
        self, faults=(), rate=0.3, seed=0, most=20, logprobs="before", key=None, model="m", delay=0
    ):
        self.faults, self.rate, self.most, self.logprobs = tuple(faults), rate, most, logprobs
        self.key, self.model, self.delay = key, model, delay
        self.requests = []  # (path, payload, what became of it)
        self.done = collections.Counter()  # (question, seed) of replies that were sent whole
        self.headers = []
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self):
        self._stop = asyncio.Event()
        self._tasks = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(
            asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
        ):
            while await self._exchange(reader, writer):
                pass
        self._tasks.discard(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def _exchange(self, reader, writer):
        """Answers one request; returns whether the connection is still good."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (h.partition(": ") for h in rest)}
        self.headers.append(headers)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = line.split(" ")
        refusal = self._refusal(method, path, headers)
        if refusal:
            return await self._send(writer, *refusal)
        if method == "GET":
            return await self._send(writer, 200, {"data": [{"id": self.model}]})
        payload = json.loads(body)
        if payload["model"] != self.model:
            return await self._send(writer, 404, {"error": {"message": "no such model"}})
        asked = payload.get("top_logprobs") or payload.get("logprobs") or 0
        if asked > self.most:
            said = f"logprobs may be {self.most} at most, not {asked}"
            return await self._send(writer, 400, {"error": {"message": said}})
        await asyncio.sleep(self.delay)
        fault = self._rng.choice(self.faults) if self.faults else None
        fault = fault if self._rng.random() < self.rate else None
        self.requests.append((path, payload, fault))
        return await self._reply(writer, headers, payload, reply(self, path, payload), fault)

    def _refusal(self, method, path, headers):
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": f"wrong key {headers.get('authorization')}"}}
        known = {"/v1/completions", "/v1/chat/completions", "/v1/models"}
        return None if path in known else (404, {"detail": "Not Found"})

    async def _reply(self, writer, headers, payload, value, fault):
        # The key comes back in errors and in replies, as careless servers do it.
        said = {"error": {"message": f"trouble with {headers.get('authorization')}"}}
        value = {**value, "debug": headers.get("authorization")}
        if fault == "limited":
            return await self._send(writer, 429, said, {"Retry-After": "0.02"})
        if fault == "limited_until":
            soon = email.utils.formatdate(time.time() - 1, usegmt=True)
            return await self._send(writer, 503, said, {"Retry-After": soon})
        if fault == "error":
            return await self._send(writer, 500, said)
        if fault == "hangs":
            await asyncio.sleep(60)
        if fault == "no_choices":
            return await self._send(writer, 200, {"choices": []})
        if fault == "twice":
            value["choices"] = [c for choice in value["choices"] for c in (choice, choice)]
        if fault == "fewer_choices":
            value["choices"] = value["choices"][: max(1, len(value["choices"]) - 1)]
        if fault == "too_many":
            extra = [{**value["choices"][0], "index": 100}]
            value["choices"] = value["choices"] + extra
        content = json.dumps(value).encode()
        if fault == "broken_json":
            content = content[: len(content) // 2]
        if fault in ("cut_body", "short_length"):
            length = len(content) + (50 if fault == "cut_body" else -50)
            writer.write(_head(200, length) + content)
            await writer.drain()
            return False
        if fault == "slow":
            writer.write(_head(200, len(content)))
            for start in range(0, len(content), len(content) // 4):
                writer.write(content[start : start + len(content) // 4])
                await writer.drain()
                await asyncio.sleep(0.01)
        else:
            writer.write(_head(200, len(content)) + content)
            await writer.drain()
        if fault != "broken_json":
            self.done[payload.get("prompt", ""), payload.get("seed")] += 1
        return True

    async def _send(self, writer, status, value, headers=None):
        content = json.dumps(value).encode()
        writer.write(_head(status, len(content), headers) + content)
        await writer.drain()
        return True


def _head(status, length, headers=None):
    lines = {"Content-Type": "application/json", "Content-Length": length, **(headers or {})}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{text}\r\n".encode()


def reply(server, path, payload):
    """Returns the reply to a good request, its oddities included."""
    is_chat = path.endswith("chat/completions")
    prompt = payload["messages"][-1]["content"] if is_chat else payload["prompt"]
    found = texts(prompt, payload.get("seed", 0), payload.get("n", 1))
    scale = 1.0
    if server.logprobs == "after" and payload["temperature"]:
        scale = 1 / payload["temperature"]
    choices, completion = [], 0
    for index, text in enumerate(found):
        tokens = pieces(text)[: payload["max_tokens"]]
        length = payload["max_tokens"] < len(pieces(text))
        completion += len(tokens)
        choice = {
            "index": index,
            "finish_reason": "length" if length else "stop",
            "logprobs": None,
        }
        text = b"".join(tokens).decode(errors="replace")
        choice |= {"message": {"content": text}} if is_chat else {"text": text}
        if server.logprobs and payload.get("logprobs"):
            form = _chat if is_chat else _completions
            choice["logprobs"] = form(tokens, payload, scale)
        choices.append(choice)
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": completion}
    return {"choices": choices, "usage": usage}


def steps(tokens, most, scale):
    """Returns (token, log-probability, candidates) of each step.

    Every fifth sampled token is not among the candidates; every seventh step has fewer; a sentinel
    stands for what has no mass.
    """
    for place, token in enumerate(tokens):
        names = [token, b" ~", b"\xc3", b"7", b"or", b"and", b"if", b"so", b"x", b"y"][:most]
        weights = [0.5**rank for rank in range(1, len(names) + 1)]
        total = sum(w**scale for w in weights) + 0.5 ** (scale * len(names))
        own = [w**scale / total for w in weights]
        pairs = list(zip(names, map(math.log, own), strict=True))
        if place % 7 == 6:
            pairs = pairs[:2]
        if place % 11 == 10:
            pairs[-1] = pairs[-1][0], -9999.0
        logprob = pairs[0][1]
        if place % 5 == 4:
            pairs, logprob = pairs[1:], math.log(own[-1] / 2)
        yield token, logprob, pairs


def _string(token):
    return token.decode(errors="replace")


def _completions(tokens, payload, scale):
    found = list(steps(tokens, payload["logprobs"], scale))
    return {
        "tokens": [_string(token) for token, _, _ in found],
        "token_logprobs": [logprob for _, logprob, _ in found],
        "top_logprobs": [{_string(name): p for name, p in pairs} for _, _, pairs in found],
    }


def _chat(tokens, payload, scale):
    def entry(name, logprob):
        return {"token": _string(name), "bytes": list(name), "logprob": logprob}

    return {
        "content": [
            {**entry(token, logprob), "top_logprobs": [entry(*pair) for pair in pairs]}
            for token, logprob, pairs in steps(tokens, payload.get("top_logprobs", 0), scale)
        ]
    }
