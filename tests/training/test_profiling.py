"""A trace on request changes nothing but that it is there."""

import jax
import numpy as np
import pytest

from specialize_jax.training import metrics, profiling
from tests.training import toy


@pytest.fixture
def calls(monkeypatch):
    """Starts and stops of the profiler, which itself is left out: it takes seconds."""
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: found.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


def test_a_trace_appears_and_training_does_not_change(tmp_path):
    plain = toy.run(tmp_path / "plain", 7)
    traced = toy.run(tmp_path / "traced", 7, profile_steps=(3, 2))
    jax.tree.map(np.testing.assert_array_equal, traced, plain)
    [found] = (tmp_path / "traced" / "profile").rglob("*.xplane.pb")
    assert found.parent.parent == tmp_path / "traced" / "profile" / "plugins" / "profile"
    assert found.stat().st_size > 1000
    lines, expected = (metrics.read(tmp_path / n / "metrics.jsonl") for n in ("traced", "plain"))
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
    assert not (tmp_path / "plain" / "profile").exists()


@pytest.mark.parametrize(
    ("steps", "first", "traced"),
    [
        ((3, 2), 1, [3, 4]),
        ((1, 3), 1, [2, 3]),  # the first step compiles
        ((5, 2), 5, [6]),  # so does the first after a restart
        ((1, 1), 1, []),
        ((3, 2), 5, []),  # done by an earlier start
        ((8, 9), 1, [8, 9]),  # the run ends in between
        (None, 1, []),
    ],
)
def test_which_steps_are_traced(tmp_path, calls, steps, first, traced):
    found = []
    with profiling.Trace(tmp_path, steps) as trace:
        for step in range(first, 10):
            trace.before(step, ())
            if calls.count("start") > calls.count("stop"):
                found.append(step)
            trace.after(step, ())
    assert found == traced
    assert calls == ["start", "stop"] * bool(traced)


def test_a_trace_ends_with_a_run_that_fails(tmp_path, calls):
    with pytest.raises(ValueError, match="data ended after step 4"):
        batches = [toy.batch_at(i) for i in range(4)]
        toy.run(tmp_path, 9, profile_steps=(3, 5), batches=lambda start: iter(batches))
    assert calls == ["start", "stop"]


@pytest.mark.parametrize("steps", [(0, 1), (3, 0), (3,), (1.5, 2)])
def test_bad_steps(tmp_path, steps):
    with pytest.raises(ValueError, match=r"Expected PROFILE_STEPS \(first step >= 1, count >= 1\)"):
        profiling.Trace(tmp_path, steps)
