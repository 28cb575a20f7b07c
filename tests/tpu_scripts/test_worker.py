"""What happens on the workers, really done: in a home folder per worker, on this machine."""

import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.tpu_scripts.cloud import NOT_FOUND, QUICK, TYPE, Cloud, state

pytestmark = pytest.mark.skipif(
    shutil.which("setsid") is None, reason="worker.sh runs on the Linux of a TPU VM: no setsid here"
)


class Worker:
    """A home folder with the checkout in it, as setup.sh leaves it."""

    def __init__(self, cloud: Cloud, name: str):
        self.home = cloud.folder / name
        self.home.mkdir()
        self.environment = cloud.environment() | {"HOME": str(self.home)}
        (self.home / "specialize_jax").symlink_to(cloud.checkout)

    def do(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "specialize_jax/tpu_scripts/worker.sh", *words],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def status(self) -> str:
        return self.do("status").stdout.split(" on ")[0].removeprefix("worker_status ")

    def log(self) -> str:
        return (self.home / "specialize_jax_run" / "log").read_text()


@pytest.fixture
def worker(cloud: Cloud) -> Iterator[Worker]:
    made = Worker(cloud, "worker_0")
    yield made
    made.do("stop")


def _wait(until: Callable[[], bool]) -> None:
    for _ in range(300):
        if until():
            return
        time.sleep(0.05)
    raise AssertionError("waited 15 seconds in vain")


# Says what it was given, then works until SIGTERM, upon which it saves.
_TRAINER = """
import signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("given", sys.argv[1:], flush=True)
time.sleep(60)
"""


def _train(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", _TRAINER, *words)


def test_a_command_runs_in_the_background_and_its_end_is_written_down(worker: Worker) -> None:
    assert worker.status() == "idle"
    words = ("it's", 'a "b" $HOME', "")
    assert worker.do("start", "printf", "<%s>", *words).stdout.endswith(": started\n")
    _wait(lambda: worker.status() == "exited 0")
    assert '<it\'s><a "b" $HOME><>' in worker.log()
    worker.do("start", "false")
    _wait(lambda: worker.status() == "exited 1")


def test_the_environment_comes_first_and_a_tpu_is_demanded(worker: Worker) -> None:
    program = worker.home / "specialize_jax_venv" / "bin" / "specialize-jax"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho $JAX_PLATFORMS in $PWD\n")
    program.chmod(0o755)
    worker.environment.pop("JAX_PLATFORMS", None)
    worker.do("start", "specialize-jax")
    _wait(lambda: worker.status() == "exited 0")
    assert f"tpu,cpu in {worker.home}/specialize_jax\n" in worker.log()


def test_the_same_command_is_not_started_twice(worker: Worker) -> None:
    worker.do("start", *_train("a b"))
    _wait(lambda: "given ['a b']" in worker.log())
    assert worker.status() == "running"
    assert worker.do("start", *_train("a b")).stdout.endswith(": runs it already\n")
    other = worker.do("start", *_train("a", "b"))
    assert other.returncode == 1
    assert "runs another command" in other.stderr
    assert worker.log().count("\ngiven") == 1


def test_restart_lets_it_save_first(worker: Worker) -> None:
    worker.do("start", *_train("one"))
    _wait(lambda: "given ['one']" in worker.log())
    assert worker.do("restart", *_train("two")).returncode == 0
    _wait(lambda: "given ['two']" in worker.log())
    assert worker.log().index("saved") < worker.log().index("given ['two']")
    assert worker.status() == "running"
    worker.do("stop")
    assert worker.status() == "exited 143"


def test_a_vm_that_went_down_is_told_from_a_command_that_ended(worker: Worker) -> None:
    worker.do("start", *_train())
    _wait(lambda: "given []" in worker.log())
    os.killpg(int((worker.home / "specialize_jax_run" / "pid").read_text()), 9)
    _wait(lambda: worker.status() == "died")


def test_another_process_with_the_old_number_is_not_ours(worker: Worker) -> None:
    folder = worker.home / "specialize_jax_run"
    folder.mkdir()
    (folder / "pid").write_text(f"{os.getpid()}\n")
    (folder / "command").write_text("train ")
    assert worker.status() == "died"
    assert worker.do("stop").returncode == 0


def test_install_once_for_each_set_of_requirements(cloud: Cloud, worker: Worker) -> None:
    venv = worker.home / "specialize_jax_venv"
    first = [
        "-m pip install --quiet --user uv",
        f"-m uv venv --quiet --clear --python 3.12 {venv}",
        f"-m uv pip install --quiet --python {venv}/bin/python -c constraints.txt -e .[tpu]",
    ]
    calls = worker.home / "python.txt"
    for _ in range(2):
        assert worker.do("install", "3.12").returncode == 0
        assert calls.read_text().splitlines() == first
    (cloud.checkout / "constraints.txt").write_text("jax==2\n")
    worker.do("install", "3.12")
    assert calls.read_text().splitlines() == first * 2


def test_an_install_that_fails_is_not_taken_for_done(cloud: Cloud, worker: Worker) -> None:
    cloud.program("python3", '[[ $3 == venv ]] && mkdir -p "${@: -1}"; [[ $4 != install ]];')
    for _ in range(2):
        assert worker.do("install", "3.12").returncode != 0


def test_unknown_verb(worker: Worker) -> None:
    done = worker.do("begin")
    assert done.returncode == 2
    assert "got 'begin'" in done.stderr


def test_a_whole_run_on_two_workers(cloud: Cloud) -> None:
    """run.sh with everything behind gcloud done for real, except the install."""
    homes = [cloud.folder / f"worker_{n}" for n in range(2)]
    for home in homes:
        home.mkdir()
    on_workers = {"workers": True, "again": True}
    cloud.answer(
        queued_describe=[NOT_FOUND, state("ACTIVE") | {"again": True}],
        vm_describe=[NOT_FOUND],
        queued_create=[{}],
        vm_scp=[on_workers],
        vm_ssh=[on_workers],
        queued_delete=[{}],
    )
    words = ("sh", "-c", 'cat constraints.txt; echo "<$0>"; sleep 0.5', "it's $HOME")
    done = cloud.run("run.sh", TYPE, *QUICK, "--delete_when_done", words=words)
    assert done.returncode == 0, done.stderr
    for home in homes:
        log = (home / "specialize_jax_run" / "log").read_text()
        assert "jax==1\n<it's $HOME>\n" in log
        assert (home / "specialize_jax" / "tpu_scripts" / "worker.sh").exists()
        assert "uv pip install" in (home / "python.txt").read_text()
    assert cloud.calls()[-1][:2] == ["queued-resources", "delete"]


def test_setup_leaves_a_running_worker_alone(cloud: Cloud, worker: Worker) -> None:
    worker.do("start", *_train())
    _wait(lambda: "given []" in worker.log())
    cloud.answer(vm_scp=[{"workers": True}], vm_ssh=[{"workers": True}])
    done = cloud.run("setup.sh")
    assert done.returncode == 0, done.stderr
    assert "busy, left as it is" in done.stdout
    assert pathlib.Path(worker.home / "specialize_jax").is_symlink()
