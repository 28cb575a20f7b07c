"""How a process finds out whether it is one of several."""

import argparse
import http.server
import signal
import subprocess
import sys
import threading

import pytest

from specialize_jax.apps import processes, train
from specialize_jax.apps.processes import Place
from tests.apps.line import gin, run

SLURM = {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-4]"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
JAX = {
    "JAX_COORDINATOR_ADDRESS": "host:1",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "0",
}
KUBERNETES = {"JAX_PLATFORMS": "tpu,cpu", "TPU_WORKER_HOSTNAMES": "a,b"}


def find(environ, *flags):
    parser = argparse.ArgumentParser()
    processes.add_arguments(parser)
    return processes.find(parser.parse_args(flags), environ)


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, [], None),
        (SLURM, [], Place()),
        (SLURM | {"SLURM_NTASKS": "1"}, [], None),
        ({"SLURM_NTASKS": "4"}, [], None),  # in the script of a job, outside of its steps
        (OPEN_MPI, [], Place()),
        ({}, ["--multiprocess_gpu"], Place()),
        (JAX, [], Place("host:1", 2, 0)),
        (JAX | {"JAX_NUM_PROCESSES": "1"}, [], None),
        (JAX, ["--process_index=1", "--coordinator_address=other:2"], Place("other:2", 2, 1)),
        (JAX | {"JAX_PROCESS_ID": "1"}, ["--process_index=0"], Place("host:1", 2, 0)),
        (SLURM, ["--coordinator_address=host:1"], Place("host:1", None, None)),
        (KUBERNETES, [], Place()),
        (KUBERNETES | {"JAX_PLATFORMS": "cpu"}, [], None),
        (KUBERNETES | {"TPU_WORKER_HOSTNAMES": "localhost"}, [], None),
    ],
)
def test_the_place_is_found(environ, flags, expected):
    assert find(environ, *flags) == expected


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({}, ["--process_count=2"], r"process_count given, but not --coordinator_address \(JAX_C"),
        (JAX | {"JAX_PROCESS_ID": "2"}, [], "process_index: expected 0 to 1, got 2"),
        (JAX | {"JAX_NUM_PROCESSES": "two"}, [], "process_count: expected a number, got 'two'"),
    ],
)
def test_what_is_not_whole_is_named(environ, flags, message):
    with pytest.raises(ValueError, match=message):
        find(environ, *flags)


class _Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as a Google machine does, from the server's `attributes`."""

    def do_GET(self):
        name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
        value = self.server.attributes.get(name)
        known = value is not None and self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write((value or "").encode())

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"worker-network-endpoints": "unknown:unknown:10.0.0.1", "tpu-env": "ZONE: 'a'"}, 1),
        ({"worker-network-endpoints": "a:b:10.0.0.1,a:b:10.0.0.2"}, 2),
        (
            {
                "worker-network-endpoints": "10.0.0.1,10.0.0.2",
                "tpu-env": "ZONE: 'a'\nMEGASCALE_NUM_SLICES: '3'\n",
            },
            6,
        ),
        ({}, 1),  # a TPU, but not on Google's machines
    ],
)
def test_a_tpu_machine_says_how_many_workers_there_are(monkeypatch, attributes, expected):
    monkeypatch.setattr(processes, "_has_tpu", lambda: True)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = http.server.HTTPServer(("127.0.0.1", 0), _Metadata)
    server.attributes = attributes
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        environ = {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}
        assert processes.tpu_workers(environ) == expected
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    # Nothing listens there any more.
    assert processes.tpu_workers(environ) == 1


def test_alone_nothing_is_joined_and_this_process_is_the_first():
    parser = argparse.ArgumentParser()
    processes.add_arguments(parser)
    done = []
    with processes.joined(parser.parse_args([])):
        processes.first_alone(lambda: done.append(processes.is_first()), "name")
    assert done == [True]


def test_others_that_are_not_there_are_named(tmp_path, monkeypatch):
    for name in ("KUBERNETES_SERVICE_HOST", "SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)
    # In a process of its own: here JAX has devices already, and joins nobody any more.
    command = [sys.executable, "-m", "specialize_jax.apps.main", "train", "--multiprocess_gpu"]
    command += ["--gin_file=testing/tiny.gin", gin("MODEL_DIR", str(tmp_path / "m"))]
    found = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 1
    assert "Give --coordinator_address" in found.stderr
    assert not list(tmp_path.iterdir())


def test_evaluate_is_for_one_process(monkeypatch, capsys):
    for name, value in JAX.items():
        monkeypatch.setenv(name, value)
    assert run("evaluate", "--gin_file=testing/tiny.gin") == 1
    assert "'evaluate' runs in a single process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "raised", "message"),
    [
        (0, None, ""),
        (1, ValueError, "packing into 'out' failed with status 1"),
        (-signal.SIGTERM, SystemExit, "143"),
    ],
)
def test_packing_is_kept_off_the_accelerator(monkeypatch, status, raised, message):
    started = []

    def start(command, env):
        started.append((command[-1], env["JAX_PLATFORMS"]))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    monkeypatch.setattr(subprocess, "run", start)
    if raised is None:
        train._pack([], "out")
    else:
        with pytest.raises(raised, match=message):
            train._pack([], "out")
    assert started == [("--out=out", "cpu")]
