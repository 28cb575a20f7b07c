"""The banded program: equal to its plain reference, and to full width wherever it is certified."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specialize_jax import alignment
from specialize_jax.alignment import band as band_lib
from specialize_jax.alignment import batch, reference
from tests import simulated_devices

FIELDS = ("total_cost", "teacher_start", "teacher_end")
# One padded size for all drawn examples, so that a band is compiled once.
WIDTH_T, WIDTH_S = 9, 8


def example_of(path, b, student_length):
    """Returns what the reference returns of one example, and checks the padding behind it."""
    start, end = np.asarray(path.teacher_start[b]), np.asarray(path.teacher_end[b])
    assert not start[student_length:].any() and not end[student_length:].any()
    ranges = list(zip(start[:student_length].tolist(), end[:student_length].tolist(), strict=True))
    return reference.Banded(int(path.total_cost[b]), ranges, bool(path.certified[b]))


def assert_sound(banded, whole):
    """Certified examples are those of full width, ranges included."""
    certified = np.asarray(banded.certified)
    for name in FIELDS:
        got, expected = np.asarray(getattr(banded, name)), np.asarray(getattr(whole, name))
        np.testing.assert_array_equal(got[certified], expected[certified])


def assert_equal(path, expected):
    jax.tree.map(np.testing.assert_array_equal, path, expected)


@settings(max_examples=120, deadline=None)
@given(
    st.data(),
    st.integers(0, WIDTH_T),
    st.integers(0, WIDTH_S),
    st.integers(1, 4),
    st.sampled_from([1, 2, 4]),
)
def test_equal_to_the_reference_and_sound(data, n, m, largest, band):
    size = WIDTH_T * WIDTH_S
    values = data.draw(st.lists(st.integers(0, largest), min_size=size, max_size=size))
    costs = np.reshape(values, (1, WIDTH_T, WIDTH_S))
    lengths = np.array([n]), np.array([m])
    path = alignment.dtw(costs, *lengths, band=band)
    assert example_of(path, 0, m) == reference.banded_dtw(costs[0].tolist(), n, m, band)
    assert_sound(path, alignment.dtw(costs, *lengths))


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (2, 30), (30, 2), (25, 25), (20, 31)])
@pytest.mark.parametrize("band", [1, 4])
def test_shapes(shape, band):
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 4, (24, *shape))
    short = np.arange(min(shape))
    costs[8:, short, short] = 0  # so that some are certified
    lengths = [rng.integers(max(0, n - 3), n + 1, 24) for n in shape]
    path = alignment.dtw(costs, *lengths, band=band)
    for b, (n, m) in enumerate(zip(*lengths, strict=True)):
        expected = reference.banded_dtw(costs[b].tolist(), int(n), int(m), band)
        assert example_of(path, b, m) == expected
    assert_sound(path, alignment.dtw(costs, *lengths))


@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 4, 0), (3, 0, 0), (0, 4, 4)])
def test_nothing_to_align_is_certified(shape):
    costs = np.zeros(shape, np.int32)
    lengths = np.full(shape[0], shape[1]), np.full(shape[0], shape[2])
    path = alignment.dtw(costs, *lengths, band=2)
    assert_equal(path, alignment.dtw(costs, *lengths))


def test_a_band_as_wide_as_the_matrix_is_full_width():
    costs = np.random.default_rng(0).integers(0, 3, (40, 7, 11))
    lengths = np.full(40, 7), np.full(40, 11)
    for band in (6, 7, 1000):
        assert_equal(alignment.dtw(costs, *lengths, band=band), alignment.dtw(costs, *lengths))


def test_an_optimum_outside_the_band_is_not_certified():
    costs = np.ones((1, 20, 20), np.int32)
    costs[0, :, 0] = costs[0, -1, :] = 0  # down the first column, then along the last row
    path = alignment.dtw(costs, np.array([20]), np.array([20]), band=3)
    assert path.total_cost[0] > 0
    assert not path.certified[0]


def test_a_tie_outside_the_band_is_not_certified():
    """The total is right, but the tie order prefers a path outside: strictly above is needed."""
    inside = [(0, 0), (1, 1), (2, 2), (3, 3), (3, 4), (3, 5), (4, 6), (5, 7), (6, 7), (7, 7)]
    outside = [(1, 2), (1, 3), (1, 4), (2, 5)]  # from (1, 1) to (3, 5), over the band's edge
    costs = np.full((1, 8, 8), 9)
    costs[0, *np.transpose(inside + outside)] = 0
    costs[0, 3, 4] = costs[0, 1, 3] = 1  # one on either way; (1, 3) is the last cell inside
    lengths = np.array([8]), np.array([8])
    whole = alignment.dtw(costs, *lengths)
    banded = alignment.dtw(costs, *lengths, band=1)
    assert whole.total_cost[0] == banded.total_cost[0]
    assert np.any(np.asarray(whole.teacher_start) != np.asarray(banded.teacher_start))
    assert not banded.certified[0]


def test_bounds_of_the_caller():
    """Weak bounds certify less, and what is certified stays right."""
    rng = np.random.default_rng(1)
    costs = rng.integers(1, 5, (50, 14, 12))
    costs[:, np.arange(12), np.arange(12)] = 1
    lengths = np.full(50, 14), np.full(50, 12)
    none = np.zeros((50, 14), int), np.zeros((50, 12), int)
    run = functools.partial(alignment.dtw, costs, *lengths, band=4)
    own, weak = run(), run(teacher_lower_bounds=none[0], student_lower_bounds=none[1])
    assert own.certified.sum() > weak.certified.sum() > 0
    assert_sound(weak, alignment.dtw(costs, *lengths))
    for b in range(50):
        expected = reference.banded_dtw(costs[b].tolist(), 14, 12, 4, none[0][b], none[1][b])
        assert example_of(weak, b, 12) == expected


def test_jit_and_vmap_agree():
    rng = np.random.default_rng(1)
    costs = jnp.asarray(rng.integers(0, 4, (2, 5, 9, 12)))
    lengths = [jnp.asarray(rng.integers(0, n + 1, (2, 5))) for n in (9, 12)]
    run = functools.partial(alignment.dtw, band=2)
    mapped = jax.jit(jax.vmap(run))(costs, *lengths)
    one_by_one = [run(*arguments) for arguments in zip(costs, *lengths, strict=True)]
    assert_equal(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one))
    assert 0 < mapped.certified.mean() < 1


def test_padding_and_neighbours_change_nothing():
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 3, (6, 12, 12))
    lengths = rng.integers(0, 13, 6), rng.integers(0, 13, 6)
    whole = alignment.dtw(costs, *lengths, band=2)
    for b, (n, m) in enumerate(zip(*lengths, strict=True)):
        junk = rng.integers(0, 1000, (3, 17, 15))
        junk[1, :n, :m] = costs[b, :n, :m]
        path = alignment.dtw(junk, np.array([17, n, 2]), np.array([15, m, 0]), band=2)
        assert example_of(path, 1, m) == example_of(whole, b, m)


def test_one_compilation_per_shape_and_band():
    costs = np.zeros((2, 33, 37), np.int32)  # a shape that no other test uses
    before = band_lib.from_matrix._cache_size()
    for lengths in ([0, 3], [1, 2], [33, 33]):
        alignment.dtw(costs + lengths[0], np.array(lengths), np.array(lengths), band=3)
    assert band_lib.from_matrix._cache_size() == before + 1


def test_centres_of_long_texts_do_not_overflow():
    d = np.arange(0, 999_999, 101)
    for n, m in ((500_000, 500_000), (500_000, 3), (3, 500_000)):
        steps = n + m - 2
        expected = (2 * d * (n - 1) + steps) // (2 * steps)
        got = band_lib.centre(jnp.asarray(d, jnp.int32), jnp.int32(n), jnp.int32(m))
        np.testing.assert_array_equal(np.asarray(got)[d <= steps], expected[d <= steps])


def test_memory_is_linear_in_length():
    """What the compiled program needs beside its arguments, for twice the length: about twice."""

    def temporary(length):
        costs = jax.ShapeDtypeStruct((2 * length - 1, 17, 2), jnp.int8)
        lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
        bounds = jax.ShapeDtypeStruct((2, length), jnp.bool_)
        arguments = (costs, lengths, lengths, bounds, bounds)
        lowered = batch._banded.lower(*arguments, state_dtype=jnp.int16)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(2048) < 2.2 * temporary(1024)


def test_eight_devices_agree_with_one():
    assert simulated_devices.run("tests.alignment.multi_device") == ["equal"]


# Token lists: repeated tokens, few distinct ones, empty surfaces, insertions.
TOKENS = st.sampled_from(["a", " ab", "▁", "", "12", "▁1", "\n", "b" * 40, b" caf\xc3\xa9"])
LISTS = st.lists(TOKENS, max_size=16)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(LISTS, LISTS, st.booleans()), max_size=4),
    st.sampled_from([1, 3]),
    st.integers(0, 16),
    st.booleans(),
)
@example([(["a", "b"] * 8, [], True)], 1, 11, False)
def test_token_lists(examples, band, place, by_pairs):
    """With a band or without; some examples are a text and the same text with an insertion."""
    teacher = [t for t, _, _ in examples]
    student = [t[:place] + s + t[place:] if insert else s for t, s, insert in examples]
    whole = alignment.align_batch(teacher, student)
    with pytest.MonkeyPatch.context() as patch:
        if by_pairs:
            patch.setattr(batch, "_TABLE_PER_CELL", 0)
        banded = alignment.align_band(teacher, student, band=band)
        assert_sound(banded, whole)
        assert_equal(alignment.align_batch(teacher, student, band=band), whole)
    for b, (t, s) in enumerate(zip(teacher, student, strict=True)):
        t_surfaces, s_surfaces = (list(map(reference.surface, side)) for side in (t, s))
        bounds = (
            [int(text not in s_surfaces) for text in t_surfaces],
            [int(text not in t_surfaces) for text in s_surfaces],
        )
        expected = reference.banded_dtw(reference.costs(t, s), len(t), len(s), band, *bounds)
        got = example_of(banded, b, len(s))
        # A slice that is hardly wider than the band runs at full width, and is certified.
        assert got == expected or (got.certified and not expected.certified)


def test_an_insertion_of_thirty_tokens():
    rng = np.random.default_rng(3)
    text = list(map(str, rng.integers(1000, 9999, 120)))
    inserted = text[:60] + ["word"] * 30 + text[60:]
    sides = [text, inserted, text], [inserted, text, text]
    whole = alignment.align_batch(*sides)
    narrow, wide = (alignment.align_band(*sides, band=band) for band in (2, 40))
    assert narrow.certified.tolist() == [False, False, True]
    assert wide.certified.all()
    assert (narrow.total_cost[:2] > whole.total_cost[:2]).all()
    assert_sound(wide, whole)
    assert_equal(alignment.align_batch(*sides, band=2), whole)


def test_rerun_leaves_its_argument_as_it_is():
    teacher, student = [["a", "b"] * 30, ["c"]], [["b", "a"] * 30, ["c"]]
    banded = alignment.align_band(teacher, student, band=1)
    kept = jax.tree.map(np.copy, banded)
    path = alignment.rerun_uncertified(banded, teacher, student)
    assert_equal(banded, kept)
    assert not banded.certified.all() and path.certified.all()
    with pytest.raises(ValueError, match=r"the 1 examples of the token lists, got .* \(2,\)"):
        alignment.rerun_uncertified(banded, teacher[:1], student[:1])


@pytest.mark.parametrize("band", [0, -3, 2.0, "8", True])
def test_no_half_width(band):
    with pytest.raises(ValueError, match=f"integer >= 1, got {band!r}"):
        alignment.dtw(np.zeros((1, 2, 2), int), np.array([2]), np.array([2]), band=band)
    with pytest.raises(ValueError, match=f"integer >= 1, got {band!r}"):
        alignment.align_batch([["a"]], [["a"]], band=band)


@pytest.mark.parametrize("band", [None, 3])
def test_values_that_cannot_be(band):
    costs = np.ones((2, 3, 4), int)
    costs[1, 2, 1] = -7
    full = np.array([3, 3]), np.array([4, 4])
    run = functools.partial(alignment.dtw, band=band)
    with pytest.raises(ValueError, match=r"at least 0 .*, got -7 at \[b, i, j\] = \[1, 2, 1\]"):
        run(costs, *full)
    run(costs, np.array([3, 2]), full[1])  # behind the length it is never read
    with pytest.raises(ValueError, match=r"teacher_lengths must be in \[0, 3\].* 4 in example 1"):
        run(np.abs(costs), np.array([3, 4]), full[1])
    with pytest.raises(ValueError, match=r"student_lengths must be in \[0, 4\].* -1 in example 0"):
        run(np.abs(costs), full[0], np.array([-1, 4]))


def test_bounds_that_cannot_be():
    run = functools.partial(alignment.dtw, np.ones((2, 3, 4), int), np.full(2, 3), np.full(2, 4))
    with pytest.raises(ValueError, match="teacher_lower_bounds serve .* got band=None"):
        run(teacher_lower_bounds=np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"student_lower_bounds must be \(2, 4\), got \(2, 3\)"):
        run(band=2, student_lower_bounds=np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="student_lower_bounds must be at least 0, got -2"):
        run(band=2, student_lower_bounds=np.full((2, 4), -2))
