"""The line on the screen."""

import types

import pytest

from specialize_jax.training import chips, metrics, screen
from tests.training import test_metrics


def values(**more):
    window = metrics.Window()
    window.add(test_metrics.SUMS | {"grad_norm": 0.75, "learning_rate": 1e-3})
    return window.summary() | more


def shown(capsys, step, train_steps, split, values):
    screen.Screen(train_steps, metrics.FORMATS).write(step, split, values)
    return capsys.readouterr().err


def test_a_line_says_what_it_knows(capsys):
    speed = screen.speed(2.0, 10_000, None)
    assert shown(capsys, 100, 820, "train", values(**speed, mfu=0.345)) == (
        "step 100/820  loss 1.5000 (kl 0.5000, ce 2.5000)  zscot 1.500  coverage 80.0%  grad 0.75  "
        "lr 0.001  20,000 tokens/s  MFU 34.5%  0:06:00 left\n"
    )


def test_a_line_leaves_out_what_it_does_not_know(capsys):
    known = {"loss": None, **screen.speed(None, 10, 5)}
    assert shown(capsys, 1, 2, "train", known) == "step 1/2  loss -  - tokens/s\n"


def test_a_line_says_that_data_was_waited_for(capsys):
    known = {"loss": None, **screen.speed(None, 10, 5)}
    assert "waited" not in shown(capsys, 1, 2, "train", known | {"data_wait": 0.04})
    line = shown(capsys, 1, 2, "train", known | {"data_wait": 0.31})
    assert line.endswith("waited for data 31%\n")


def test_a_held_out_line(capsys):
    known = values() | {"accuracy/zero_shot_chain_of_thought": 0.5}
    assert shown(capsys, 1, 2, "validation", known) == (
        "step 1/2  held-out  loss 1.5000 (kl 0.5000, ce 2.5000)  zscot 1.500  "
        "accuracy zscot 50.0%\n"
    )


def test_other_hosts_keep_quiet(capsys):
    screen.Screen(2, (), write=False).write(1, "train", {"loss": 1.0, **screen.speed(1.0, 1, 1)})
    assert capsys.readouterr().err == ""


def test_speed_is_a_share_of_the_peak_where_that_is_known(monkeypatch):
    assert screen.speed(2.0, 10, 100) == {"steps_per_second": 2, "tokens_per_second": 20}
    monkeypatch.setattr(chips, "find", lambda kind: chips.Chip("made up", 1e3, 0, 0, 0))
    assert screen.speed(2.0, 10, 100)["mfu"] == pytest.approx(0.2)


def test_a_clock_counts_only_what_it_ran(monkeypatch):
    now = iter([10.0, 11.0, 20.0, 21.0])
    fake = types.SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr(screen, "time", fake)
    clock = screen.Clock()
    assert clock.steps_per_second() is None
    assert clock.share_waited() is None
    for waited in (5.0, 8.0):
        clock.start(waited)
        clock.start(7.0)
        clock.steps += 2
        clock.stop(waited + 0.25)
        clock.stop(100.0)
    assert clock.steps_per_second() == 2.0
    assert clock.share_waited() == 0.25
