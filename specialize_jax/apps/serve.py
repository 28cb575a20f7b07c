"""`specialize-jax serve`: a trained student, or a teacher of our own, behind OpenAI's interface."""

import argparse
import functools
import http.server
import json
import signal
import sys
import threading
import time
import uuid
from typing import Any

from specialize_jax.apps import completions, serving, student

EPILOG = """\
example:
  specialize-jax serve --checkpoint out/quickstart/student --port 8000
  curl localhost:8000/v1/completions -H 'Content-Type: application/json' \\
      -d '{"prompt": "Q: ...", "max_tokens": 64, "logprobs": 5}'
Paths: /v1/completions, /v1/chat/completions, /v1/models, /health. There is no key and no
encryption: keep it on this machine, or behind a server that has both."""

_MOST_BYTES = 16 << 20  # of a request
_MOST_ANSWERS = 128  # of a request
_CHAT = "/v1/chat/completions"
_PATHS = ("/v1/completions", _CHAT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    student.add_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine's)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--name", help="of the model to clients; default: the student's own")
    parser.add_argument(
        "--batch_size", type=int, default=16, metavar="B", help="answers decoded at a time"
    )
    parser.add_argument(
        "--max_logprobs", type=int, default=20, metavar="K", help="candidates a client may ask for"
    )


def main(args: argparse.Namespace) -> int:
    """Serves until it is interrupted or told to end."""
    asked, step = student.named(args)
    decoder = serving.Decoder(
        asked,
        asked.restore(step),
        max_length=args.max_length,
        input_length=asked.input_length(args.input_length, args.max_length),
        batch_size=args.batch_size,
        max_logprobs=args.max_logprobs,
    )
    worker = serving.Worker(decoder)
    try:
        server = Server((args.host, args.port), worker, args.name or asked.config["name"])
    except OSError as error:
        raise ValueError(
            f"cannot listen on {args.host}:{args.port}: {error.strerror}; give another --port"
        ) from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, functools.partial(_stop, server))
    host, port = server.server_address[:2]
    print(f"serving '{server.name}', step {step}: http://{host}:{port}/v1", flush=True)  # type: ignore[str-bytes-safe]
    with worker, server:
        server.serve_forever()
    return 0


def _stop(server: http.server.HTTPServer, *_: Any) -> None:
    # `shutdown` waits for the loop of the thread that this handler interrupts.
    threading.Thread(target=server.shutdown).start()


class Server(http.server.ThreadingHTTPServer):
    """Listens, with a thread for every connection.

    Attributes:
      worker: who answers.
      name: of the model.
      started: seconds since 1970.
    """

    daemon_threads = True
    request_queue_size = 128  # of clients that ask at once, 5 would get through

    def __init__(self, address: tuple[str, int], worker: serving.Worker, name: str):
        self.worker, self.name, self.started = worker, name, int(time.time())
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that left, which is its own affair; else a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Refused(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for every request would drown what matters."""

    def do_GET(self) -> None:  # noqa: N802
        """Says which model there is."""
        model = {"id": self.server.name, "object": "model", "created": self.server.started}
        known: dict[str, Any] = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [{**model, "owned_by": "specialize_jax"}]},
        }
        if self.path in known:
            self._send(200, known[self.path])
        else:
            self._send_error(404, f"no '{self.path}'; choices: {', '.join([*known, *_PATHS])}")

    def do_POST(self) -> None:  # noqa: N802
        """Answers."""
        try:
            body = self._body()
            if self.path not in _PATHS:
                raise _Refused(404, f"no '{self.path}'; choices: {', '.join(_PATHS)}")
            self._send(200, self._answer(body))
        except _Refused as error:
            self._send_error(error.status, str(error))
        except completions.BadRequest as error:
            self._send_error(400, str(error))
        except ConnectionError:  # the client left
            raise
        except Exception as error:  # one request's failure is not the server's
            self._send_error(500, f"{type(error).__name__}: {error}")

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise _Refused(411, "expected a Content-Length")
        if int(length) > _MOST_BYTES:
            self.close_connection = True
            raise _Refused(413, f"expected at most {_MOST_BYTES} bytes, got {length}")
        try:
            return json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise _Refused(400, f"expected JSON: {error}") from error

    def _answer(self, body: Any) -> dict[str, Any]:
        decoder = self.server.worker.decoder
        request = completions.parse(
            body,
            is_chat=self.path == _CHAT,
            max_tokens=decoder.max_length,
            max_logprobs=decoder.max_logprobs,
            max_n=_MOST_ANSWERS,
        )
        if (model := body.get("model")) not in (None, self.server.name):
            raise _Refused(404, f"no model '{model}'; choices: {self.server.name}")
        answers, prompt_tokens = self.server.worker.answer(request)
        return serving.reply(
            request,
            answers,
            prompt_tokens,
            decoder.tokenizer,
            id=f"{'chatcmpl' if request.is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self.server.name,
        )

    def _send_error(self, status: int, message: str) -> None:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": status}
        self._send(status, {"error": error})

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
