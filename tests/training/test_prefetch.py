"""Working ahead: order, bounds, errors where they belong, and threads that end."""

import itertools
import subprocess
import sys
import threading
import time

import pytest

from specialize_jax.training.prefetch import Prefetch


def _threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def _wait_until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_items_come_prepared_and_in_order():
    with Prefetch(iter(range(100)), str) as ready:
        assert list(ready) == [str(number) for number in range(100)]
        assert next(ready, "the end, again") == "the end, again"
    assert not _threads()


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_items_are_ready(depth):
    made = []
    with Prefetch(itertools.count(), made.append, depth=depth) as ready:
        for taken in range(3):
            _wait_until(lambda taken=taken: len(made) == taken + depth)
            time.sleep(0.02)
            assert len(made) == taken + depth
            next(ready)


@pytest.mark.parametrize("where", ["source", "prepare"])
def test_an_error_comes_where_the_item_would_have(where):
    def source():
        yield from (0, 1)
        if where == "source":
            raise OSError("disk")
        yield 2

    def prepare(item):
        if item == 2:
            raise OSError("disk")
        return item

    with Prefetch(source(), prepare) as ready:
        assert [next(ready), next(ready)] == [0, 1]
        for _ in range(2):
            with pytest.raises(OSError, match="disk"):
                next(ready)
    assert not _threads()


def test_leaving_early_ends_the_thread():
    with pytest.raises(KeyError), Prefetch(itertools.count(), str) as ready:
        next(ready)
        raise KeyError
    assert not _threads()
    assert next(ready, None) is None


def test_waiting_is_counted():
    def slow():
        yield 1
        time.sleep(0.05)
        yield 2

    with Prefetch(slow(), str) as ready:
        next(ready)
        before = ready.waited
        next(ready)
        assert ready.waited - before > 0.03


def test_an_interpreter_ends_though_nobody_closed():
    code = (
        "import itertools\nfrom specialize_jax.training.prefetch import Prefetch\n"
        "print(next(Prefetch(itertools.count(), str)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.split() == ["0"]


def test_depth_has_to_be_positive():
    with pytest.raises(ValueError, match="Expected depth >= 1, got 0"):
        Prefetch(iter(()), str, depth=0)
