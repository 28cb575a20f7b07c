"""TensorBoard's events: they say what metrics.jsonl says, and nothing that fails stops training."""

import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from specialize_jax.apps.tensorboard import EventsWriter
from specialize_jax.training import metrics
from tests.training import toy


def python(code):
    return [sys.executable, "-c", code]


def read_events(folder, monkeypatch):
    """{(step, name): value} of all event files, read by TensorBoard, here without TensorFlow."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    read = event_accumulator.EventAccumulator(str(folder), {event_accumulator.TENSORS: 0})
    read.Reload()
    return {
        (event.step, tag): tensor_util.make_ndarray(event.tensor_proto).tolist()
        for tag in read.Tags()["tensors"]
        for event in read.Tensors(tag)
    }


@pytest.mark.slow
def test_events_are_the_lines_of_metrics_jsonl_also_over_a_restart(tmp_path, monkeypatch):
    for steps in (6, 9):
        writer = EventsWriter(tmp_path / "events", {"gin": "    A = 1"})
        toy.run(tmp_path, steps, writers=[writer])
    assert len(list((tmp_path / "events").iterdir())) == 2
    found = read_events(tmp_path / "events", monkeypatch)
    assert {found.pop((step, "gin")) for step in (3, 9)} == {b"    A = 1"}
    expected = {
        (line["step"], f"{line['split']}/{name}"): value
        for line in metrics.read(tmp_path / "metrics.jsonl")
        for name, value in line.items()
        if name not in ("step", "split", "time") and value is not None
    }
    assert {step for step, _ in expected} == {3, 6, 9}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, err_msg=str(key))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no TensorFlow here')", "ImportError: no TensorFlow here"),
        ("import sys; sys.stdin.readline(); sys.exit(3)", "the writer ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "the writer ended with status -9"),
    ],
)
def test_training_goes_on_without_it(tmp_path, capsys, code, reason):
    writer = EventsWriter(tmp_path, command=python(code))
    expected = toy.run(tmp_path / "plain", 9)
    state = toy.run(tmp_path / "run", 9, writers=[writer], log_period=1)
    np.testing.assert_array_equal(state.params["embed"], expected.params["embed"])
    said = [line for line in capsys.readouterr().err.splitlines() if "TensorBoard" in line]
    assert said == [
        f"TensorBoard gets no more events ({reason}); training goes on, and metrics.jsonl has "
        "every line"
    ]


def test_a_process_that_hangs_is_not_waited_for(tmp_path, capsys):
    writer = EventsWriter(tmp_path, command=python("import time; time.sleep(600)"))
    values = {f"loss/{number}": 1.0 for number in range(1000)}
    start = time.monotonic()
    for step in range(400):  # some 8 MB, of which a pipe takes 64 kB
        writer.write(step, "train", values)
    writer.close()
    assert time.monotonic() - start < 30
    assert writer._process.returncode == -signal.SIGKILL
    assert "TensorBoard gets no more events" in capsys.readouterr().err


def test_a_process_that_is_slow_to_start_gets_every_line(tmp_path):
    got = tmp_path / "got"
    code = "import sys, time; time.sleep(1); lines = sys.stdin.read()"
    code = f"{code}; open({str(got)!r}, 'w').write(lines)"
    writer = EventsWriter(tmp_path, command=python(code))
    for step in range(3000):  # more than a pipe takes
        writer.write(step, "train", {"loss": 1.0, "kl_loss": None})
    writer.close()
    lines = got.read_text().splitlines()
    assert lines[0] == '{"step": 0, "texts": {}}'
    assert lines[1:] == [
        f'{{"step": {step}, "scalars": {{"train/loss": 1.0}}}}' for step in range(3000)
    ]


def test_no_line_no_process(tmp_path):
    EventsWriter(tmp_path, command=["/no/such/program"]).close()


def test_it_ends_when_the_sender_is_killed(tmp_path):
    child = "import os, sys; print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True)"
    child = f"{child}; sys.stdin.read()"
    program = (
        "import sys, time\n"
        "from specialize_jax.apps.tensorboard import EventsWriter\n"
        f"writer = EventsWriter('-', command=[sys.executable, '-c', {child!r}, sys.argv[1]])\n"
        "writer.write(1, 'train', {'loss': 1.0})\n"
        "time.sleep(600)\n"
    )
    path = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", program, str(path)]) as sender:
        wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
        child_pid = int(path.read_text())
        os.kill(child_pid, 0)
        sender.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{child_pid}") or is_gone(child_pid))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(pid):
    """Whether a process ended, or only waits for its new parent to notice that."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
