"""What `transfer` refuses, and that what is traced is let through."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax import alignment
from specialize_jax.alignment import Candidates, Path, VocabularyMap, Votes

ALIGNED = Path(np.zeros(2, int), np.array([[0, 1]] * 2), np.array([[1, 2]] * 2), np.ones(2, bool))
HALF = math.log(0.5)
# Two examples of two tokens; the sampled token stands again among the two most probable ones.
GOOD = Candidates(
    token=np.zeros((2, 2), np.int32),
    token_logprob=np.full((2, 2), HALF),
    topk=np.array([[[1, 0]] * 2] * 2, np.int32),
    topk_logprobs=np.full((2, 2, 2), HALF),
)
VOTES = Votes(
    ids=np.zeros((2, 2, 1), np.int32),
    mass=np.full((2, 2, 1), 0.5),
    tail=np.full((2, 2), 0.5),
    dropped=np.zeros((2, 2)),
    reason=np.zeros((2, 2), np.int32),
)


def transfer(candidates=GOOD, path=ALIGNED, strings=2, **options):
    table = VocabularyMap(np.arange(strings))
    return alignment.transfer(path, candidates, table, np.zeros((2, 2), int), **options)


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def test_good_ones_pass():
    assert np.all(transfer().kind == 1)
    lengths = np.array([2, 0])
    assert transfer(student_lengths=lengths).kind.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("token_logprob", (1, 0), 0.2, r"token_logprob must be at most 0.* 0.2 at \[b, t\] = \[1"),
        ("token_logprob", (0, 1), math.nan, r"not NaN, got nan at \[b, t\] = \[0, 1\]"),
        (
            "topk_logprobs",
            (0, 1, 1),
            math.nan,
            r"topk_logprobs must .* nan at \[b, t, k\] = \[0, 1, 1\]",
        ),
        ("topk_logprobs", (1, 1, 0), 3.0, r"got 3.0 at \[b, t, k\] = \[1, 1, 0\]"),
        ("topk_logprobs", (1, 1, 0), math.log(0.6), r"mass of at most 1, got 1.1.*= \[1, 1\]"),
        ("topk", (1, 1, 1), 7, r"topk must be below 2, .* got 7 at \[b, t, k\] = \[1, 1, 1\]"),
        ("token", (0, 1), 2, r"token must be below 2, .* got 2 at \[b, t\] = \[0, 1\]"),
    ],
)
def test_candidates_that_cannot_be(name, place, value, message):
    wrong = GOOD._replace(**{name: changed(getattr(GOOD, name), place, value)})
    with pytest.raises(ValueError, match=message):
        transfer(wrong)


def test_a_string_listed_twice_counts_once_and_rounding_is_let_through():
    twice = GOOD._replace(topk=np.ones((2, 2, 2), np.int32))
    transfer(twice)
    other = GOOD._replace(topk=np.full((2, 2, 2), [1, 2], np.int32))
    with pytest.raises(ValueError, match=r"mass of at most 1, got 1.5 at \[b, t\] = \[0, 0\]"):
        transfer(other, strings=3)
    transfer(GOOD._replace(topk_logprobs=np.full((2, 2, 2), math.log(0.5004))))
    transfer(GOOD._replace(token_logprob=np.full((2, 2), 1e-7), topk=np.full((2, 2, 2), -1)))


def test_shapes_and_lengths_that_do_not_fit():
    with pytest.raises(ValueError, match="log-probabilities must have the shape of their tokens"):
        transfer(GOOD._replace(topk_logprobs=np.zeros((2, 2, 1))))
    with pytest.raises(ValueError, match=r"student_lengths must be \[B\] = \(2,\), got \(3,\)"):
        transfer(student_lengths=np.zeros(3, int))
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=rf"in \[0, 2\], got {wrong} at \[b\] = \[1\]"):
            transfer(student_lengths=np.array([2, wrong]))
    links = ALIGNED.total_cost, ALIGNED.teacher_start
    beyond = Path(*links, changed(ALIGNED.teacher_end, (1, 1), 3), ALIGNED.certified)
    with pytest.raises(ValueError, match=r"teacher_end must be at most 2, .* got 3 at \[b, s\] ="):
        transfer(path=beyond)


@pytest.mark.parametrize(
    ("name", "place", "other"),
    [
        ("mass", (1, 0, 0), ("tail", (1, 0))),
        ("tail", (1, 0), ("mass", (1, 0, 0))),
        ("dropped", (1, 0), ("mass", (1, 0, 0))),
    ],
)
def test_negative_votes(name, place, other):
    """One other part makes up for it, so that only the sign is wrong."""
    left = VOTES.tail[1, 0] if name == "dropped" else 0.0
    wrong = VOTES._replace(**{name: changed(getattr(VOTES, name), place, -0.25)})
    wrong = wrong._replace(**{other[0]: changed(getattr(VOTES, other[0]), other[1], 1.25 - left)})
    arguments = None, wrong, None, np.zeros((2, 2), int)
    with pytest.raises(
        ValueError, match=rf"votes.{name} must be at least 0, got -0.25 at .* = \[1"
    ):
        alignment.transfer(*arguments, mode="marginal")
    # Behind the end of an example nothing is read.
    found = alignment.transfer(*arguments, mode="marginal", student_lengths=np.array([2, 0]))
    assert found.kind.tolist() == [[1, 1], [0, 0]]


def test_what_is_on_a_device_or_traced_is_not_looked_at():
    wrong = GOOD._replace(token_logprob=np.full((2, 2), 0.5), topk=np.full((2, 2, 2), 9))
    on_device = Candidates(*map(jnp.asarray, wrong))
    eager = transfer(on_device, student_lengths=jnp.array([9, 9]))
    jitted = jax.jit(transfer)(wrong, student_lengths=np.array([9, 9]))
    jax.tree.map(np.testing.assert_array_equal, eager, jitted)
