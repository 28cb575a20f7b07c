"""wandb gets the lines of a run, and goes on where it stood."""

import sys
import types

import pytest

from specialize_jax.apps.wandb_run import WandbRun
from tests.training import toy


@pytest.fixture
def wandb(monkeypatch):
    """A module that records its calls."""
    calls = []

    def init(**options):
        calls.append(("init", options))
        return types.SimpleNamespace(
            log=lambda values, step: calls.append(("log", step, values)),
            finish=lambda: calls.append(("finish",)),
        )

    fake = types.SimpleNamespace(init=init, calls=calls)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_it_gets_every_line_and_goes_on_with_the_same_id(tmp_path, wandb):
    for steps in (6, 9):
        run = WandbRun(tmp_path, "project", None, {"gin": "A = 1"})
        toy.run(tmp_path, steps, writers=[run])
    inits = [call[1] for call in wandb.calls if call[0] == "init"]
    assert inits[0] == inits[1]
    assert inits[0]["id"] == (tmp_path / "wandb_run_id.txt").read_text() != ""
    assert inits[0]["resume"] == "allow" and inits[0]["dir"] == str(tmp_path)
    assert inits[0]["project"] == "project" and inits[0]["config"] == {"gin": "A = 1"}
    assert [call[0] for call in wandb.calls] == ["init", "log", "log", "finish"] + [
        *("init", "log", "finish")
    ]
    logs = [call for call in wandb.calls if call[0] == "log"]
    assert [step for _, step, _ in logs] == [3, 6, 9]
    assert {"train/loss", "train/grad_norm", "train/learning_rate"} <= logs[0][2].keys()
    assert None not in logs[0][2].values()


def test_another_run_has_another_id(tmp_path, wandb):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        WandbRun(tmp_path / name, "project", name, {})
    first, second = (call[1]["id"] for call in wandb.calls)
    assert first != second


def test_without_wandb_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="WANDB_PROJECT='p' needs wandb.*`pip install wandb`"):
        WandbRun(tmp_path, "p", None, {})


def test_a_start_that_fails_says_so(tmp_path, wandb):
    def init(**options):
        raise RuntimeError("api_key not configured")

    wandb.init = init
    with pytest.raises(ValueError, match="RuntimeError: api_key not configured; WANDB_MODE=off"):
        WandbRun(tmp_path, "p", None, {})


def test_training_goes_on_when_a_line_cannot_be_sent(tmp_path, wandb, capsys):
    run = WandbRun(tmp_path, "p", None, {})

    def log(values, step):
        raise RuntimeError("connection lost")

    run._run.log = log
    assert toy.run(tmp_path, 9, writers=[run]).step == 9
    assert capsys.readouterr().err.count("wandb gets no more lines (RuntimeError: connection") == 1
