"""TensorBoard's event files, written by a small process of their own.

CLU writes them through TensorFlow, which has no business in a process that trains: it takes seconds
and memory to load, and may hold an accelerator. So training sends each line, as JSON, to

    python -m specialize_jax.apps.tensorboard LOGDIR

which ends where its input ends, also when the sender was killed. Training never waits for it and
does not need it: `metrics.jsonl` has every line.
"""

import collections
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

_BACKLOG = 4 << 20  # bytes; hours of lines
_PATIENCE = 60.0  # seconds; most of it the import of TensorFlow after a very short run


class EventsWriter:
    """A `training.metrics.Writer` of event files; the process starts at the first line.

    Args:
      folder: gets the events. Another start of the run adds a file.
      texts: shown under TensorBoard's "Text", by name.
      command: what reads the lines; for tests.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        texts: Mapping[str, str] | None = None,
        *,
        command: Iterable[str] | None = None,
    ):
        self._command = list(command or (sys.executable, "-m", __name__, os.fspath(folder)))
        self._texts = dict(texts or {})
        self._waiting: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Sends a line as `<split>/<name>`, as far as the process takes it now; never waits."""
        scalars = {f"{split}/{name}": v for name, v in values.items() if v is not None}
        self._send({"step": step, "scalars": scalars})

    def close(self) -> None:
        """Sends what is left and waits, not long, for the process to end."""
        if self._process is None or self._given_up:
            return
        stdin = self._process.stdin
        assert stdin is not None
        deadline = time.monotonic() + _PATIENCE
        try:
            while self._waiting and not self._given_up and time.monotonic() < deadline:
                with selectors.DefaultSelector() as writable:
                    writable.register(stdin, selectors.EVENT_WRITE)
                    writable.select(max(0.0, deadline - time.monotonic()))
                self._push()
            if self._given_up:
                return
            stdin.close()
            if self._process.wait(max(0.0, deadline - time.monotonic())):
                self._give_up()
        except subprocess.TimeoutExpired:
            self._give_up()
        finally:
            self._said.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._given_up:
            return
        if self._process is None:
            self._start()
            self._send({"step": message["step"], "texts": self._texts})
        line = json.dumps(message).encode() + b"\n"
        if self._size + len(line) > _BACKLOG:  # it hangs
            self._give_up()
            return
        self._waiting.append(line)
        self._size += len(line)
        self._push()

    def _start(self) -> None:
        # To a file: a pipe that nobody reads would fill and block it.
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            # No accelerator for it; and what stops training by a signal to the whole group must
            # not stop it before the last lines.
            env=os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def _push(self) -> None:
        """Writes as much as the pipe takes."""
        assert self._process is not None and self._process.stdin is not None
        try:
            while self._waiting and not self._given_up:
                line = self._waiting[0]
                # None where the pipe is full.
                taken = self._process.stdin.write(line) or 0
                self._size -= taken
                self._waiting[0] = line[taken:]
                if taken < len(line):
                    return
                self._waiting.popleft()
        except OSError:  # it has ended
            self._give_up()

    def _give_up(self) -> None:
        """Ends the process if it still runs, and says so once."""
        assert self._process is not None and self._process.stdin is not None
        self._given_up = True
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.close()
        reason = said[-1] if said else f"the writer ended with status {self._process.returncode}"
        print(
            f"TensorBoard gets no more events ({reason}); training goes on, and metrics.jsonl has "
            "every line",
            file=sys.stderr,
        )


def main(folder: str) -> None:
    """Writes the lines of standard input as events, each flushed, until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    from clu import metric_writers

    writer = metric_writers.SummaryWriter(folder)
    for line in sys.stdin:
        message = json.loads(line)
        writer.write_scalars(message["step"], message.get("scalars", {}))
        writer.write_texts(message["step"], message.get("texts", {}))
        writer.flush()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
