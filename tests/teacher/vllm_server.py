"""vLLM's own server, in a Python environment of its own, for as long as a test asks it."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

# Names the Python of an environment that has vLLM; `make test-server` makes one.
VARIABLE = "SPECIALIZE_JAX_VLLM"
MODEL = "tiny"
_STARTUP = 600  # seconds; it imports torch in three processes
_ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # gigabytes; by itself it takes half of the memory
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@contextlib.contextmanager
def serve(folder: pathlib.Path, log: pathlib.Path, *flags: str) -> Iterator[str]:
    """Serves a folder as `MODEL`; gives the base URL."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [os.environ[VARIABLE], "-m", "vllm.entrypoints.openai.api_server"]
    command += [f"--model={folder}", f"--served-model-name={MODEL}", "--enforce-eager"]
    command += ["--host=127.0.0.1", f"--port={port}", "--dtype=float32", *flags]
    # Prompts are never cut in two: on a CPU, vLLM 0.32 dies where one with a seed is.
    command.append("--max-num-batched-tokens=32768")
    # Not this checkout's packages, which would be found before its own.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            cwd=log.parent,
            env=environment | _ENVIRONMENT,
            start_new_session=True,  # it has processes of its own, which end with it
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen, url: str, log: pathlib.Path) -> None:
    deadline = time.monotonic() + _STARTUP
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(f"vLLM did not start; the end of its log:\n{log.read_text()[-4000:]}")
