"""The mode `soft` against the plain-Python rule, and each of its peculiarities by hand."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import alignment
from specialize_jax.alignment import reference_transfer
from specialize_jax.schemas import UNUSED_LOGPROB, Reason
from tests.alignment import transfer_cases as cases


def _vocabulary(*pieces):
    return {piece: number for number, piece in enumerate(["<pad>", "</s>", *pieces])}


def _assert_equal_to_reference(targets, examples, vocabulary):
    cases.assert_equal_to_reference(targets, examples, vocabulary, rule=reference_transfer.soft)
    cases.assert_well_formed(targets)


def _soft(teacher, student, candidates, vocabulary):
    """One example, compared with the reference: a {piece: probability} or a reason per token."""
    examples = [(teacher, student, candidates)]
    widths = len(teacher), len(student) + 1
    targets = cases.transfer(examples, vocabulary, widths=widths, mode="soft")
    _assert_equal_to_reference(targets, examples, vocabulary)
    pieces, found = list(vocabulary), []
    for ids, logprobs, reason in zip(
        targets.ids[0], targets.logprobs[0], targets.reason[0], strict=True
    ):
        used = logprobs > UNUSED_LOGPROB
        masses = np.exp(np.float64(logprobs[used])).round(6).tolist()
        entries = dict(zip([pieces[i] for i in ids[used]], masses, strict=True))
        found.append(Reason(reason).name if reason else entries)
    return found, np.exp(np.float64(targets.tail_logprob[0])).round(6).tolist()


def test_docstring_example():
    teacher = ["If", " every", "thing", ".", "\n"]
    student = ["▁If", "▁every", "th", "ing", "."]
    candidates = [
        [("If", 0.6), ("In", 0.3)],
        [(" every", 0.5), (" a", 0.3), (" ev3ry", 0.1)],
        [("thing", 0.9), ("day", 0.05)],
        [(".", 1.0)],
        [("\n", 1.0)],
    ]
    vocabulary = _vocabulary("▁If", "▁In", "▁every", "▁a", "th", "ing", "If", ".")
    found, tails = _soft(teacher, student, candidates, vocabulary)
    ranges = alignment.align(teacher, student)
    table = alignment.transfer.__doc__.split("| student  |")[2].splitlines()[2:]
    for j, piece in enumerate([*student, "</s>"]):
        cells = [cell.strip() for cell in table[j].strip().strip("|").split("|")]
        linked = [token.strip("\n") for token in teacher[slice(*ranges[j])]] if j < 5 else []
        names = [f"`{token}`" if token else "newline" for token in linked]
        entries = found[j]
        if isinstance(entries, str):
            target = f"one-hot, {entries}"
        else:
            listed = ", ".join(f"`{name}` {mass:g}" for name, mass in entries.items())
            target = f"{listed}, tail {tails[j]:g}; transferred"
        assert cells == [f"`{piece}`", " ".join(names), target]


_STRINGS = [" a", "a", " b", "ab", " ab", "b", ".", "\n", " zz"]
_PIECES = ["▁a", "a", "▁b", "ab", "▁ab", "b", "."]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(_PIECES))
def test_equal_to_reference_on_random_examples(seed, pieces):
    rng = np.random.default_rng(seed)
    vocabulary = _vocabulary(*pieces)
    examples = [cases.random_example(rng, _STRINGS, pieces) for _ in range(16)]
    targets = cases.transfer(examples, vocabulary, widths=(9, 10), mode="soft")
    _assert_equal_to_reference(targets, examples, vocabulary)


def test_real_records():
    """With the pieces of three records for a vocabulary, so that the plain search is quick."""
    examples, _ = cases.real_examples()
    examples = examples[:3]
    pieces = sorted({piece for _, student, _ in examples for piece in student})
    vocabulary = _vocabulary(*pieces)
    targets = cases.transfer(examples, vocabulary, widths=(72, 72), mode="soft")
    _assert_equal_to_reference(targets, examples, vocabulary)


def test_a_marker_is_put_before_the_first_teacher_token_alone():
    vocabulary = _vocabulary("▁If", "If")
    listed = [[("If", 0.9)]] * 2
    found, _ = _soft(["If", "If"], ["▁If", "▁If"], listed, vocabulary)
    # Not before its candidates: the student token itself is not among them.
    assert found == [{"If": 0.9}, "DIFFERENT_STRING", "END_OF_SEQUENCE"]


def test_a_first_student_token_without_a_marker_is_compared_as_it_is():
    vocabulary = _vocabulary("▁If", "If")
    found, _ = _soft(["If"], ["If"], [[("If", 0.9)]], vocabulary)
    assert found[0] == {"If": 0.9}
    found, _ = _soft([" If"], ["If"], [[(" If", 0.9)]], vocabulary)
    assert found[0] == "DIFFERENT_STRING"


def test_the_most_probable_of_several_candidates_for_one_token_counts():
    listed = [(" a", 0.1), (" ax", 0.3), (" a", 0.1), (" b", 0.2)]
    found, tails = _soft([" a"], ["▁a"], [listed], _vocabulary("▁a", "▁b"))
    assert found[0] == {"▁a": 0.3, "▁b": 0.2}
    assert tails[0] == 0.5


def test_a_teacher_token_is_taken_for_the_nearest_student_token():
    vocabulary = _vocabulary("▁a", "▁color", "▁colors")
    teacher, student = [" a", " colour"], ["▁a", "▁color"]
    found, _ = _soft(teacher, student, [[(" a", 1.0)], [(" colour", 0.8)]], vocabulary)
    assert found[1] == {"▁color": 0.8}
    # As near, and earlier in the vocabulary: another one.
    vocabulary = _vocabulary("▁a", "▁colours", "▁color")
    found, _ = _soft(teacher, student, [[(" a", 1.0)], [(" colour", 0.8)]], vocabulary)
    assert found[1] == "DIFFERENT_STRING"


def test_a_candidate_can_be_taken_for_a_control_piece():
    found, _ = _soft(["a"], ["a"], [[("a", 0.7), ("<s>", 0.2)]], _vocabulary("a"))
    assert found[0] == {"a": 0.7, "</s>": 0.2}


def test_a_record_without_log_probabilities_is_one_hot_throughout():
    found, _ = _soft([" a", "b"], ["▁a", "b"], [[], []], _vocabulary("▁a", "b"))
    assert found == ["NO_LOGPROBS", "NO_LOGPROBS", "END_OF_SEQUENCE"]
