"""A place to run `tpu_scripts/` in: a checkout of its own, and a `gcloud` that is a fake."""

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "tpu_scripts"
SLICE = ("--name=slice", "--zone=us-west4-a")
TYPE = "--accelerator_type=v5litepod-16"
QUICK = ("--poll=0s", "--backoff=0s")

NOT_FOUND = {"stderr": "ERROR: (gcloud) NOT_FOUND: Resource 'slice' was not found\n", "status": 1}
REFUSED = {
    "stderr": "ssh: connect to host 10.0.0.1 port 22: Connection refused\n"
    "##### Command execution on worker 1 failed with exit status 255. Continuing.\n",
    "status": 255,
}


def state(name: str) -> dict[str, str]:
    """What `describe --format=value(...)` answers."""
    return {"stdout": f"{name}\n"}


def reports(*statuses: str) -> dict[str, str]:
    """What the workers answer to a question for their status, a text per worker."""
    return {"stdout": "".join(f"worker_status {status} on host\n" for status in statuses)}


class Cloud:
    """A checkout of the scripts in a temporary folder, and the fake `gcloud` that they call."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.checkout = folder / "checkout"
        shutil.copytree(SCRIPTS, self.checkout / "tpu_scripts")
        (self.checkout / "setup.py").write_text("# installs\n")
        (self.checkout / "constraints.txt").write_text("jax==1\n")
        (self.checkout / ".gitignore").write_text("/out/\n")
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--message=all")
        self.commit = self.git("rev-parse", "HEAD").strip()
        fake = pathlib.Path(__file__).with_name("fake_gcloud.py")
        self.program("gcloud", f"exec '{sys.executable}' -I -S '{fake}'")
        # An install writes down what it would do, and makes the folder that `uv venv` would make.
        write_down = 'printf "%s\\n" "$*" >> "$HOME/python.txt"'
        self.program("python3", f'{write_down}; [[ $3 != venv ]] || mkdir -p "${{@: -1}}"; true')
        self.answer()

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", self.checkout, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def program(self, name: str, shell: str) -> None:
        """Puts a program of that name before all others."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/usr/bin/env bash\n{shell} "$@"\n')
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "FAKE_GCLOUD": str(self.folder)}

    def answer(self, **answers: Sequence[dict[str, Any]]) -> None:
        """Says what gcloud answers: `queued_describe=[...]` for "queued-resources describe"."""
        named = {
            key.replace("queued_", "queued-resources ").replace("vm_", "tpu-vm "): value
            for key, value in answers.items()
        }
        (self.folder / "answers.json").write_text(json.dumps(named))
        (self.folder / "calls.jsonl").write_text("")

    def run(
        self, script: str, *flags: str, words: Sequence[str] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script on the slice, as `SCRIPT FLAGS -- WORDS`."""
        command = [str(self.checkout / "tpu_scripts" / script), *SLICE, *flags]
        if words:
            command += ["--", *words]
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=60, **options
        )

    def calls(self) -> list[list[str]]:
        """Returns gcloud's arguments, without the `compute tpus` that all have."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        calls = [json.loads(line) for line in lines]
        assert all(call[:2] == ["compute", "tpus"] for call in calls), calls
        return [call[2:] for call in calls]

    def archived_commit(self) -> str:
        """Returns the commit of the archive that was made last; git writes it into the header."""
        archive = self.checkout / "out" / "tpu_scripts" / "slice.tar.gz"
        text = gzip.decompress(archive.read_bytes())
        done = subprocess.run(
            ["git", "get-tar-commit-id"], input=text, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def pasted(self, text: str) -> list[list[str]]:
        """Returns the calls that come about when a text is pasted into a shell."""
        self.answer(**{verb: [{"again": True}] for verb in _VERBS})
        subprocess.run(["bash", "-ec", text], env=self.environment(), check=True)
        return self.calls()


_VERBS = (
    *("queued_describe", "queued_create", "queued_delete"),
    *("vm_describe", "vm_scp", "vm_ssh"),
)

ZONE = "--zone=us-west4-a"
LOOK = ["queued-resources", "describe", "slice", ZONE, "--format=value(state.state)"]
LOOK_AT_VM = ["tpu-vm", "describe", "slice", ZONE, "--format=value(state)"]
CREATE = [
    *("queued-resources", "create", "slice", ZONE, "--accelerator-type=v5litepod-16"),
    *("--runtime-version=v2-alpha-tpuv5-lite", "--node-id=slice"),
]
DELETE = ["queued-resources", "delete", "slice", ZONE, "--force", "--quiet"]
_WORKER = "bash specialize_jax/tpu_scripts/worker.sh"
_INSTALL = f"{_WORKER} install 3.12"


def ssh(command: str, worker: str = "all") -> list[str]:
    return ["tpu-vm", "ssh", "slice", ZONE, f"--worker={worker}", f"--command={command}"]


def scp(cloud: Cloud) -> list[str]:
    archive = f"{cloud.checkout}/out/tpu_scripts/slice.tar.gz"
    return ["tpu-vm", "scp", archive, "slice:specialize_jax.tar.gz", ZONE, "--worker=all"]


def unpack(fetch: str) -> list[str]:
    return ssh(
        f"if {_WORKER} is_running 2>/dev/null; "
        'then echo "$(hostname): busy, left as it is"; '
        f"else rm -rf specialize_jax && {fetch} && {_INSTALL}; fi"
    )


SETUP = unpack("mkdir specialize_jax && tar -xzf specialize_jax.tar.gz -C specialize_jax")
ASK = ssh(f"{_WORKER} status 2>/dev/null || echo 'worker_status idle'")


def start(words: str, verb: str = "start") -> list[str]:
    return ssh(f"{_WORKER} {verb} {words}")


WORDS = ("specialize-jax", "train", "--gin.MODEL_DIR='gs://b/my run'")
_QUOTED = """specialize-jax train '--gin.MODEL_DIR='\\''gs://b/my run'\\'''"""
START, RESTART = start(_QUOTED), start(_QUOTED, "restart")
