"""What holds of every path and of every transfer, whatever the input."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment
from specialize_jax.alignment import Candidates, VocabularyMap, reference
from specialize_jax.alignment.transfer import MODES
from specialize_jax.schemas import UNUSED_LOGPROB, Kind

# Repeated tokens, equal surfaces of different tokens, surfaces without a character.
TOKENS = st.sampled_from(["a", " a", "ab", "▁", "", "12", "▁1", "\n", b" caf\xc3\xa9"])
LISTS = st.lists(TOKENS, max_size=12)
PAIRS = st.lists(st.tuples(LISTS, LISTS), min_size=1, max_size=4)


def sides(pairs):
    return [teacher for teacher, _ in pairs], [student for _, student in pairs]


def example(path, b, student):
    """Returns what the reference returns of one example, and checks the padding behind it."""
    ranges = list(zip(path.teacher_start[b].tolist(), path.teacher_end[b].tolist(), strict=True))
    assert not any(map(any, ranges[len(student) :]))
    return int(path.total_cost[b]), ranges[: len(student)]


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_token_lists_equal_the_reference(pairs):
    path = alignment.align_batch(*sides(pairs))
    for b, (teacher, student) in enumerate(pairs):
        costs = reference.costs(teacher, student)
        assert example(path, b, student) == reference.dtw(costs, len(teacher), len(student))


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from([None, 1, 4]))
def test_ranges_are_monotone_gap_free_and_not_empty(pairs, band):
    path = alignment.align_batch(*sides(pairs), band=band)
    for b, (teacher, student) in enumerate(pairs):
        if not teacher or not student:
            continue
        starts = path.teacher_start[b, : len(student)]
        ends = path.teacher_end[b, : len(student)]
        assert starts[0] == 0 and ends[-1] == len(teacher)
        assert np.all(starts < ends)
        assert np.all(np.diff(starts) >= 0) and np.all(np.diff(ends) >= 0)
        # The next token begins in the last teacher token of this one, or in the one behind it.
        assert np.all((starts[1:] == ends[:-1]) | (starts[1:] == ends[:-1] - 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(LISTS, min_size=1, max_size=4), st.sampled_from([None, 1, 4]))
def test_equal_tokenisations_give_the_identity(lists, band):
    path = alignment.align_batch(lists, lists, band=band)
    assert not path.total_cost.any()
    for b, tokens in enumerate(lists):
        assert path.teacher_start[b, : len(tokens)].tolist() == list(range(len(tokens)))
        assert path.teacher_end[b, : len(tokens)].tolist() == list(range(1, len(tokens) + 1))


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.permutations(range(4)))
def test_neighbours_in_a_batch_change_nothing(pairs, order):
    whole = alignment.align_batch(*sides(pairs))
    order = [b for b in order if b < len(pairs)]
    shuffled = alignment.align_batch(*sides([pairs[b] for b in order]))
    for place, b in enumerate(order):
        student = pairs[b][1]
        alone = example(alignment.align_batch(*sides(pairs[b : b + 1])), 0, student)
        assert example(whole, b, student) == alone == example(shuffled, place, student)


# ---- transfer by a path: the widths are fixed, so that each mode is compiled once ----

T, S, K, K_OUT = 5, 6, 3, 3
STRINGS = [" a", "a", "ab", " b", "."]
PIECES = ["</s>", "▁a", "a", "ab", "."]


@st.composite
def recorded(draw):
    """Draws an example: tokens, a distribution at each, pieces; and their numbers of tokens."""
    teacher = draw(st.lists(st.integers(0, len(STRINGS) - 1), max_size=T))
    student = draw(st.lists(st.integers(1, len(PIECES) - 1), max_size=S - 1))
    weights = draw(st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), min_size=T))
    return teacher, student, np.array(weights[:T], float)


def arrays(examples, junk=0):
    """Returns what `transfer` takes; `junk` more teacher and student tokens are padding."""
    shape = len(examples), T + junk
    token = np.full(shape, -1, np.int32)
    logprob = np.full(shape, UNUSED_LOGPROB, np.float32)
    topk, topk_logprobs = np.full((*shape, K), -1, np.int32), np.full((*shape, K), UNUSED_LOGPROB)
    ids = np.full((len(examples), S + junk), 0, np.int32)
    for b, (teacher, student, weights) in enumerate(examples):
        # Of the mass of a step a tenth lies on no string; strings without weight are not recorded.
        mass = 0.9 * weights / np.maximum(weights.sum(-1, keepdims=True), 1)
        logs = np.where(mass > 0, np.log(np.maximum(mass, 1e-9)), UNUSED_LOGPROB)
        ids[b, : len(student)] = student
        token[b, : len(teacher)] = teacher
        for i, string in enumerate(teacher):
            logprob[b, i] = logs[i, string]
            best = [n for n in np.argsort(-mass[i], kind="stable")[:K] if mass[i, n] > 0]
            topk[b, i, : len(best)] = best
            topk_logprobs[b, i, : len(best)] = logs[i, best]
    return Candidates(token, logprob, topk, topk_logprobs.astype(np.float32)), ids


def transfer(examples, mode, junk=0):
    candidates, ids = arrays(examples, junk)
    texts = [
        ([STRINGS[n] for n in teacher], [PIECES[n] for n in student])
        for teacher, student, _ in examples
    ]
    costs = np.zeros((len(examples), T + junk, S + junk), np.int32)
    for b, (teacher, student) in enumerate(texts):
        costs[b, : len(teacher), : len(student)] = np.reshape(
            reference.costs(teacher, student), (len(teacher), len(student))
        )
    lengths = np.array([[len(teacher), len(student)] for teacher, student in texts]).T
    path = alignment.dtw(costs, *lengths)
    if mode == "soft":
        table = alignment.SoftMap(PIECES)(STRINGS)
    else:
        named = [string.replace(" ", "▁") for string in STRINGS]
        table = VocabularyMap(np.array([PIECES.index(n) if n in PIECES else -1 for n in named]))
    targets = alignment.transfer(
        path, candidates, table, ids, mode=mode, k_out=K_OUT, student_lengths=lengths[1] + 1
    )
    return jax.tree.map(np.asarray, targets)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "marginal"])
@settings(max_examples=50, deadline=None)
@given(st.lists(recorded(), min_size=2, max_size=2))
def test_mass_is_one_at_most_and_neighbours_and_padding_change_nothing(mode, examples):
    targets = transfer(examples, mode)
    inside = targets.kind != Kind.PAD
    listed = np.exp(targets.logprobs).sum(-1)
    assert np.all(listed <= 1 + 1e-6)
    np.testing.assert_allclose((listed + np.exp(targets.tail_logprob))[inside], 1, atol=1e-6)
    # A transferred distribution keeps no more than the nine tenths that are recorded.
    assert np.all(listed[targets.kind == Kind.TRANSFERRED] <= 0.9 + 1e-6)
    padded = transfer(examples[::-1], mode, junk=2)
    for one, other in zip(targets, padded, strict=True):
        np.testing.assert_array_equal(one, other[::-1, :S])
