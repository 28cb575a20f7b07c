"""kill -9 at random moments: what comes out at the end is what comes out of one run."""

import pathlib

import jax
import pytest

from tests.training import kills, toy


def _kill_and_compare(
    folder: pathlib.Path, count: int, train_steps: int, most_lines: int
) -> list[kills.Kill]:
    killed, whole = folder / "killed", folder / "whole"
    command = ("tests.training.toy", killed, train_steps)
    found = kills.kill_often(killed, command, count, most_lines)
    ours, expected = (jax.device_get(toy.full_run(run, train_steps)) for run in (killed, whole))
    assert ours.step == train_steps
    toy.assert_equal(ours, expected)  # parameters, optimizer state, step and key
    kills.assert_came_through(killed, whole)
    return [kill for kill in found if kill.was_running and 0 < kill.reached < train_steps]


def test_three_kills(tmp_path):
    assert _kill_and_compare(tmp_path, count=3, train_steps=60, most_lines=6)


@pytest.mark.long
def test_twenty_kills(tmp_path):
    in_the_middle = _kill_and_compare(tmp_path, count=20, train_steps=600, most_lines=16)
    assert len(in_the_middle) >= 15
    assert len({kill.reached for kill in in_the_middle}) >= 10
    assert sum(kill.was_saving for kill in in_the_middle) >= 3
