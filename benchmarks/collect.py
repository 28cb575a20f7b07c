"""How fast `collect` asks a server that answers at once, and what share of a core that takes.

    python benchmarks/collect.py

A server in a process of its own sends the same reply of GSM8K's size (120 tokens an answer with the
five most probable candidates of each) as soon as it is asked. So what is measured is the client:
HTTP, reading the reply, judging it, the journal; and apart from it the writing of records. Beside
it stand the requests of the HTTP library alone, which read nothing.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import pathlib
import platform
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import httpx2

from specialize_jax.apps import main as program
from specialize_jax.apps import served_records


def main() -> None:
    """Prints rates and shares for some numbers of requests at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--samples", type=int, default=8, help="answers in a reply")
    parser.add_argument("--tokens", type=int, default=120, help="of an answer")
    flags = parser.parse_args()
    body = _reply(flags.samples, flags.tokens)
    print(
        f"python {platform.python_version()}, httpx2 {httpx2.__version__}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; {flags.questions} requests of {flags.samples} answers of "
        f"{flags.tokens} tokens, replies of {len(body) / 1000:.0f} kB"
    )
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(there, body), daemon=True
    )
    server.start()
    url = here.recv()
    for concurrency in (1, 8, 32):
        bare, share = _bare(url, flags.questions, concurrency)
        print(
            f"{concurrency:3d} at a time: library alone {bare:7.1f} requests/s, {share:4.0%} core"
        )
        _ours(url, flags, concurrency, bare)
    server.terminate()


def _ours(url: str, flags: argparse.Namespace, concurrency: int, bare: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        rows = [{"question": f"What is {i} + 1?", "answer": "18"} for i in range(flags.questions)]
        (path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (path / "p.txt").write_text("Question: {question}\n")
        argv = ["collect", "--base_url", url, "--model", "m", "--questions", f"{path}/q.jsonl"]
        argv += ["--prompt", f"{path}/p.txt", "--samples", str(flags.samples), "--out", f"{path}/r"]
        argv += ["--samples_per_request", str(flags.samples), "--concurrency", str(concurrency)]
        argv += ["--logprobs_temperature=unknown"]
        written = []
        real = served_records.write

        def write(*args: Any) -> None:
            asked = time.perf_counter(), time.process_time()
            real(*args)
            written.append((asked, time.process_time() - asked[1]))

        start = time.perf_counter(), time.process_time()
        with mock.patch.object(served_records, "write", write):
            assert program.main(argv) == 0
        (asked, seconds), *_ = written
        wall, core = asked[0] - start[0], asked[1] - start[1]
        rate = flags.questions / wall
        size = (path / "r/requests/journal.jsonl").stat().st_size
        answers = flags.questions * flags.samples
        print(
            f"{concurrency:3d} at a time: collect       {rate:7.1f} requests/s, {core / wall:4.0%} "
            f"core ({flags.questions / core:.0f} requests a second of a core), "
            f"{rate * flags.samples * flags.tokens:,.0f} tokens/s, {rate / bare:.2f}x the library; "
            f"journal {size / answers:.0f} bytes an answer; records {answers / seconds:,.0f} "
            "answers a second of a core"
        )


def _bare(url: str, count: int, concurrency: int) -> tuple[float, float]:
    """Returns requests a second of the library alone, and its share of a core."""

    async def run() -> None:
        limits = httpx2.Limits(max_connections=concurrency)
        async with httpx2.AsyncClient(limits=limits, timeout=60) as client:
            waiting = iter(range(count))

            async def work() -> None:
                for _ in waiting:
                    reply = await client.post(f"{url}/completions", content=b"{}")
                    assert reply.status_code == 200

            await asyncio.gather(*(work() for _ in range(concurrency)))

    start = time.perf_counter(), time.process_time()
    asyncio.run(run())
    wall = time.perf_counter() - start[0]
    return count / wall, (time.process_time() - start[1]) / wall


def _reply(samples: int, tokens: int) -> bytes:
    """Returns a reply whose answers are right and differ from each other."""
    choices = []
    for index in range(samples):
        words = [f" w{index}{place}" for place in range(tokens - 5)]
        words += ["\nThe", " answer", " is", " 18", "\n"]
        top = [
            {word: -0.2, **{f" c{place}{rank}": -3.0 - rank for rank in range(4)}}
            for place, word in enumerate(words)
        ]
        logprobs = {"tokens": words, "token_logprobs": [-0.2] * tokens, "top_logprobs": top}
        choices.append(
            {"index": index, "text": "".join(words), "finish_reason": "stop", "logprobs": logprobs}
        )
    usage = {"prompt_tokens": 20, "completion_tokens": samples * tokens}
    return json.dumps({"choices": choices, "usage": usage}).encode()


def _serve(pipe: Connection, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(asked.partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(size)
                writer.write(head + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
