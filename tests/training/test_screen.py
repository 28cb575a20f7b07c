"""The line on the screen."""

import types

import pytest

from specialize_jax.training import chips, metrics, screen
from tests.training import test_metrics


def values(**more):
    window = metrics.Window()
    window.add(test_metrics.SUMS | {"grad_norm": 0.75, "learning_rate": 1e-3})
    return window.summary() | more


def test_a_line_says_what_it_knows():
    speed = screen.speed(2.0, 10_000, None)
    assert screen.line(100, 820, values(**speed, mfu=0.345), 2.0) == (
        "step 100/820  loss 1.5000 (kl 0.5000, ce 2.5000)  zscot 1.500  coverage 80.0%  grad 0.75  "
        "lr 0.001  20,000 tokens/s  MFU 34.5%  0:06:00 left"
    )


def test_held_out_losses():
    assert screen.held_out(100, values()) == (
        "validation  step 100  loss 1.5000 (kl 0.5000, ce 2.5000)  zscot 1.500"
    )


def test_a_line_leaves_out_what_it_does_not_know():
    known = {"loss": None, **screen.speed(None, 10, 5)}
    assert screen.line(1, 2, known, None) == "step 1/2  loss -  - tokens/s"


def test_speed_is_a_share_of_the_peak_where_that_is_known(monkeypatch):
    assert screen.speed(2.0, 10, 100) == {"tokens_per_second": 20}
    monkeypatch.setattr(chips, "find", lambda kind: chips.Chip("made up", 1e3, 0, 0, 0))
    assert screen.speed(2.0, 10, 100)["mfu"] == pytest.approx(0.2)


def test_a_clock_counts_only_what_it_ran(monkeypatch):
    now = iter([10.0, 11.0, 20.0, 21.0])
    fake = types.SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr(screen, "time", fake)
    clock = screen.Clock()
    assert clock.steps_per_second() is None
    for _ in range(2):
        clock.start()
        clock.start()
        clock.steps += 2
        clock.stop()
        clock.stop()
    assert clock.steps_per_second() == 2.0
