"""Rows are chosen so that both sides fill, no example waits for ever, and none is lost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax.data import windowed

ROOM = (12, 8)
_sizes = st.lists(st.tuples(st.integers(1, ROOM[0]), st.integers(1, ROOM[1])), max_size=30)


def _by_hand(sizes, room):
    """`choose` in plain Python."""
    chosen, left = [0], [room[side] - sizes[0][side] for side in (0, 1)]
    while True:
        fitting = [
            (sum(((left[side] - size[side]) / room[side]) ** 2 for side in (0, 1)), index)
            for index, size in enumerate(sizes)
            if index not in chosen and all(size[side] <= left[side] for side in (0, 1))
        ]
        if not fitting:
            return sorted(chosen)
        index = min(fitting)[1]
        chosen.append(index)
        left = [left[side] - sizes[index][side] for side in (0, 1)]


@given(_sizes, st.integers(1, 9))
def test_every_example_is_in_one_row_that_holds_it(sizes, window):
    found = list(windowed.groups(sizes, ROOM, window=window))
    assert sorted(index for group in found for index in group) == list(range(len(sizes)))
    for group in found:
        assert all(sum(sizes[index][side] for index in group) <= ROOM[side] for side in (0, 1))
        assert group == sorted(group)


@given(_sizes, st.integers(1, 9))
def test_each_row_holds_the_example_that_waited_longest(sizes, window):
    waiting = list(range(len(sizes)))
    for group in windowed.groups(sizes, ROOM, window=window):
        assert group[0] == waiting[0]
        assert max(group) <= waiting[min(window, len(waiting)) - 1]
        waiting = [index for index in waiting if index not in group]


@given(_sizes.filter(bool))
def test_the_choice_equals_plain_python(sizes):
    assert windowed.choose(np.array(sizes), np.array(ROOM)) == _by_hand(sizes, ROOM)


def test_the_stream_is_read_no_further_than_the_window():
    read = []

    def stream():
        for number in range(100):
            read.append(number)
            yield ROOM

    next(windowed.groups(stream(), ROOM, window=7))
    assert len(read) == 7


def test_lengths_in_proportion_to_the_tokens_fill_both_sides():
    assert windowed.suggestion((3000, 500), (1536, 384), 8) == (1536, 256)
    assert windowed.suggestion((3000, 900), (2048, 128), 8) == (424, 128)
    rng = np.random.default_rng(0)
    sizes = [tuple(pair) for pair in rng.integers((20, 5), (300, 80), (2000, 2)).tolist()]
    tokens = tuple(np.sum(sizes, axis=0).tolist())
    room = windowed.suggestion(tokens, (1536, 1536), 8)
    rows = len(list(windowed.groups(sizes, room, window=256)))
    assert min(count / (rows * length) for count, length in zip(tokens, room, strict=True)) > 0.95
