"""Several processes that train as one: how a process finds the others, and shares their fate.

A run on a TPU slice of several hosts, or on several GPU machines, is the same command started once
on each. Here it is decided whether that is so, before JAX touches a device; who the others are is
mostly JAX's to find out (https://docs.jax.dev/en/latest/multi_process.html). Where a process stands
alone, nothing here does anything.

A process that fails by itself tells the others, and all of them end with its status. One that
vanishes (a kill, a lost machine) is missed by JAX's heartbeats, which end the others by SIGABRT. So
an exit status says whether starting the same command again can help.
"""

import argparse
import atexit
import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from etils import epath
from jax._src import distributed  # its client's keys and barriers have no public name

HEARTBEAT_SECONDS = 60  # silence after which a process counts as lost; its peers end then
_LOOK_SECONDS = 1.0  # between looks for a failure of another process
_FAILED = "specialize_jax/failed"
_MARK = "specialize_jax/model_dir"
_WRITING_MS = 60_000  # longest wait for the first process to write a file
_SHOWN_SECONDS = 30.0  # longest wait for it to be seen elsewhere
_PACKING_MS = 24 * 3600 * 1000  # longest wait for the first process
_FLAGS = {  # of t5x -> the environment variable that says the same
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "process_count": "JAX_NUM_PROCESSES",
    "process_index": "JAX_PROCESS_ID",
}
_COUNTS = {  # of tasks -> another variable without which there is none of the scheduler's steps
    "SLURM_NTASKS": "SLURM_STEP_NODELIST",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
}


# What a collective says when a process has vanished in the middle of it.
_LOST = re.compile(r"Gloo .* failed|Connection (?:reset|closed|refused)|heartbeat timeout")


class Place(NamedTuple):
    """Of this process among several, in JAX's words; None for what JAX finds out.

    Attributes:
      coordinator_address: host and port at which the first process waits for the others.
      num_processes: in all.
      process_id: of this one, from 0.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds t5x's flags for several processes."""
    group = parser.add_argument_group(
        "several processes",
        "Found without flags on TPU slices, under Slurm and under Open MPI; or set "
        f"{', '.join(_FLAGS.values())}.",
    )
    group.add_argument(
        "--multiprocess_gpu",
        action="store_true",
        help="expect others even where nothing tells of them; JAX looks for them",
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="of the first process")
    group.add_argument("--process_count", type=int, metavar="N", help="processes in all")
    group.add_argument("--process_index", type=int, metavar="I", help="of this one, from 0")


def find(args: argparse.Namespace, environ: Mapping[str, str]) -> Place | None:
    """Returns where this process stands among several; None where it is the only one.

    Args:
      args: with the flags of `add_arguments`.
      environ: as `os.environ`.

    Raises:
      ValueError: only some of address, count and index are known, or one is no number.
    """
    flags = {flag: getattr(args, flag) for flag in _FLAGS}
    given = {f: environ.get(_FLAGS[f]) if v is None else v for f, v in flags.items()}
    is_clustered = args.multiprocess_gpu or _tasks(environ) > 1 or tpu_workers(environ) > 1
    known = [flag for flag, value in given.items() if value is not None]
    if not known:
        return Place() if is_clustered else None
    if len(known) < len(_FLAGS) and not is_clustered:
        missing = ", ".join(f"--{f} ({name})" for f, name in _FLAGS.items() if f not in known)
        raise ValueError(f"several processes: {', '.join(known)} given, but not {missing}")
    count, index = (_number(given[flag], flag) for flag in ("process_count", "process_index"))
    if count is not None and count < 1:
        raise ValueError(f"process_count: expected at least 1, got {count}")
    if count is not None and index is not None and not 0 <= index < count:
        raise ValueError(f"process_index: expected 0 to {count - 1}, got {index}")
    address = given["coordinator_address"]
    if address is not None and not re.fullmatch(r".+:\d+", str(address)):
        raise ValueError(f"coordinator_address: expected HOST:PORT, got '{address}'")
    return None if count == 1 else Place(address and str(address), count, index)


def _number(value: Any, name: str) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        raise ValueError(f"{name}: expected a number, got '{value}'") from None


def _tasks(environ: Mapping[str, str]) -> int:
    """Returns how many tasks a scheduler says that it started, this one being of them."""
    counts = [environ.get(n, "1") for n, other in _COUNTS.items() if other in environ]
    return max([int(count) for count in counts if count.isdigit()], default=1)


def tpu_workers(environ: Mapping[str, str]) -> int:
    """Returns how many workers the TPU slices of this machine have; 1 where there is no TPU.

    Kubernetes names them in the environment, a TPU VM in its metadata.
    """
    platforms = environ.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms.split(","):
        return 1
    names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    slices = environ.get("MEGASCALE_NUM_SLICES")
    if names is None:
        if not _has_tpu():
            return 1
        host = environ.get("GCE_METADATA_IP", "metadata.google.internal")
        names = _metadata(host, "worker-network-endpoints")
        found = re.search(r"^MEGASCALE_NUM_SLICES:\s*'?(\d+)", _metadata(host, "tpu-env"), re.M)
        slices = slices or (found and found[1])
    return len(names.split(",")) * int(slices or 1)


def _has_tpu() -> bool:
    chips = [*pathlib.Path("/dev").glob("accel[0-9]*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _metadata(host: str, name: str) -> str:
    """Returns an attribute of a Google machine; empty where it has none, or is another's."""
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def check_alone(command: str) -> None:
    """Checks that a command which is no use on several processes is not started on several.

    Raises:
      ValueError: it is.
    """
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    if find(parser.parse_args([]), os.environ) is not None:
        raise ValueError(
            f"'{command}' runs in a single process, and this is one of several: start it on one "
            "machine, or on a TPU slice of one host"
        )


@contextlib.contextmanager
def joined(args: argparse.Namespace) -> Iterator[None]:
    """Within it, this process is one of all, and only the first prints to the standard output.

    To be entered before anything touches a device.

    Raises:
      ValueError: see `find`; or JAX finds no others.
    """
    place = find(args, os.environ)
    if place is not None and not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize(
                **place._asdict(), heartbeat_timeout_seconds=HEARTBEAT_SECONDS
            )
        except ValueError as error:  # JAX's words name no flag
            names = ", ".join(f"--{flag}" for flag in _FLAGS)
            raise ValueError(
                f"several processes are expected, but JAX does not find them: {error} Give {names}"
            ) from error
    if not jax.distributed.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(_shared_fate())
        yield


def is_first() -> bool:
    """Returns whether this process is the one that writes files for all."""
    return not jax.distributed.is_initialized() or distributed.global_state.process_id == 0


def check_shared(folder: epath.PathLike) -> None:
    """Checks that a folder is the same one for all processes.

    Raises:
      ValueError: this process does not see what the first has just written into it.
    """
    if not jax.distributed.is_initialized():
        return
    path = epath.Path(folder) / ".seen_by_all_processes"
    if is_first():
        mark = uuid.uuid4().hex
        path.write_text(mark)
        _client().key_value_set(_MARK, mark)
    mark = _client().blocking_key_value_get(_MARK, _WRITING_MS)
    # Shared folders may show a file a little later elsewhere.
    deadline = time.monotonic() + _SHOWN_SECONDS
    while not (path.exists() and path.read_text() == mark):
        if time.monotonic() > deadline:
            raise ValueError(
                f"'{folder}' is not the same folder for all processes: the first one has written "
                f"'{path.name}' into its own; give one that all machines share, or a bucket"
            )
        time.sleep(0.1)


def first_alone(work: Callable[[], None], name: str) -> None:
    """Lets the first process work while the others wait. If it fails, all of them do.

    Args:
      work: what the first does.
      name: of the wait; once a run.
    """
    if is_first():
        work()
    if jax.distributed.is_initialized():
        _client().wait_at_barrier(name, _PACKING_MS)


def _client() -> Any:
    return distributed.global_state.client


@contextlib.contextmanager
def _shared_fate() -> Iterator[None]:
    """Ends this process when another fails, and the others when this one does."""
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(over,), name="other processes", daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        # Before the others are told, or this process would hear itself.
        over.set()
        watch.join()
        _tell(error)
        # Not at once: what went wrong is still to be printed.
        atexit.register(_leave, _status(error))
        raise
    finally:
        over.set()
        watch.join()


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(str(error)):
        return 128 + signal.SIGABRT  # as where JAX's heartbeats find it first
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _tell(error: BaseException) -> None:
    words = (str(error).splitlines() or [""])[0][:500]
    message = f"process {distributed.global_state.process_id}: {type(error).__name__}: {words}"
    # The service may be what failed; another process may have been first to tell.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(_FAILED, message)


def _watch(over: threading.Event) -> None:
    # Looks rather than waits: a thread that waits inside JAX's client aborts the interpreter's end.
    while not over.wait(_LOOK_SECONDS):
        try:
            message = _client().key_value_try_get(_FAILED)
        except jax.errors.JaxRuntimeError:  # nobody has failed
            continue
        print(f"specialize-jax: ended, for another failed: {message}", file=sys.stderr)
        _leave(1)


def _leave(status: int) -> None:
    """Ends this process without JAX's own end, which would wait for those that have failed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Until the others have heard, who would else say that a connection broke. The first goes last,
    # for in it they read what happened.
    time.sleep((3 if is_first() else 2) * _LOOK_SECONDS)
    os._exit(status)
