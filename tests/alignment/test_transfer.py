"""The jitted transfer against the plain-Python rule, on made-up and on real records."""

import numpy as np
import pytest

from specialize_jax import alignment
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason
from tests.alignment import transfer_cases as cases


def test_docstring_example():
    teacher = [" $", "12", " every", "thing", ".", "\n"]
    student = ["▁$12", "▁every", "th", "ing", "."]
    listed = [(" every", 0.5), (" a", 0.3), (" every", 0.5), (" ev3ry", 0.1)]
    candidates = [listed if token == " every" else [(token, 0.9)] for token in teacher]
    vocabulary = {"▁$12": 10, "▁every": 11, "▁a": 12, "th": 13, "ing": 14, ".": 15}
    targets = cases.transfer([(teacher, student, candidates)], vocabulary, widths=(6, 6))
    reasons = ["MANY_TEACHER_TOKENS", "NONE", "SHARED_TEACHER_TOKEN", "SHARED_TEACHER_TOKEN"]
    reasons += ["MANY_TEACHER_TOKENS", "END_OF_SEQUENCE"]
    assert [Reason(r).name for r in targets.reason[0]] == reasons
    assert targets.ids[0, 1].tolist() == [11, 12, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(np.exp(targets.logprobs[0, 1, :2]), [0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(np.exp(targets.tail_logprob[0, 1]), 0.2, rtol=1e-6)
    assert targets.ids[0, :, 0].tolist() == [10, 11, 13, 14, 15, cases.EOS]
    table = alignment.transfer.__doc__.split("| student  |")[1].split("Args:")[0]
    for piece, reason in zip([*student, "</s>"], reasons, strict=True):
        row = next(line for line in table.splitlines() if line.strip().startswith(f"| `{piece}`"))
        assert ("transferred" if reason == "NONE" else reason) in row
    assert alignment.align(teacher, student) == [(0, 2), (2, 3), (3, 4), (3, 4), (4, 6)]


def test_equal_to_reference_on_random_examples():
    rng = np.random.default_rng(0)
    strings = [" a", "a", " b", "ab", " ab", "b", ".", "\n", " zz"]
    pieces = ["▁a", "a", "▁b", "ab", "▁ab", "b", "."]
    vocabulary = {piece: number + 2 for number, piece in enumerate(pieces)}
    examples = [cases.random_example(rng, strings, pieces) for _ in range(40)]
    targets = cases.transfer(examples, vocabulary, widths=(9, 10))
    cases.assert_equal_to_reference(targets, examples, vocabulary)
    cases.assert_well_formed(targets)
    others = {Reason.ANSWER_ONLY, Reason.INSIDE_SEGMENT, Reason.NO_MASS}
    assert set(Reason) - set(targets.reason.ravel()) == others


def test_what_exceeds_k_out_goes_to_the_tail_smallest_first():
    listed = [(" a", 0.1), (" b", 0.4), (" c", 0.2), (" d", 0.25)]
    vocabulary = {"▁a": 5, "▁b": 6, "▁c": 7, "▁d": 8}
    example = ([" a"], ["▁a"], [listed])
    targets = cases.transfer([example], vocabulary, widths=(1, 2), k_out=2)
    assert targets.ids[0, 0].tolist() == [6, 8]
    np.testing.assert_allclose(np.exp(targets.logprobs[0, 0]), [0.4, 0.25], rtol=1e-6)
    np.testing.assert_allclose(np.exp(targets.tail_logprob[0, 0]), 0.35, rtol=1e-6)


def test_no_tail_where_the_teacher_listed_everything():
    example = ([" a"], ["▁a"], [[(" a", 0.75), (" b", 0.25)]])
    targets = cases.transfer([example], {"▁a": 5, "▁b": 6}, widths=(1, 2))
    assert targets.tail_logprob[0, 0] == UNUSED_LOGPROB


def test_a_record_without_log_probabilities_is_one_hot_throughout():
    example = ([" a", "b", "c"], ["▁a", "bc"], [[], [], []])
    targets = cases.transfer([example], {"▁a": 5, "bc": 6}, widths=(3, 3))
    assert targets.reason[0].tolist() == [Reason.NO_LOGPROBS] * 2 + [Reason.END_OF_SEQUENCE]


def test_a_target_cut_by_length_has_no_end_row():
    path = alignment.dtw(np.zeros((1, 2, 2), np.int32), np.array([2]), np.array([2]))
    none = alignment.Candidates(
        np.zeros((1, 2), np.int32),
        np.zeros((1, 2), np.float32),
        np.zeros((1, 2, 0), np.int32),
        np.zeros((1, 2, 0), np.float32),
    )
    vocabulary_map = alignment.VocabularyMap(np.array([7], np.int32))
    targets = alignment.transfer(path, none, vocabulary_map, np.array([[7, 7]]))
    assert targets.kind.tolist() == [[Kind.TRANSFERRED] * 2]
    assert targets.ids.shape == (1, 2, 8)


def test_errors_say_what_came():
    path = alignment.dtw(np.zeros((1, 2, 2), np.int32), np.array([2]), np.array([2]))
    arrays = np.zeros((1, 2), np.int32), np.zeros((1, 2, 3), np.int32)
    candidates = alignment.Candidates(arrays[0], arrays[0], arrays[1], arrays[1])
    table = alignment.VocabularyMap(np.array([0], np.int32))
    ids = np.zeros((1, 2), np.int32)
    modes = "one_to_one, soft, marginal"
    with pytest.raises(ValueError, match=f"mode must be one of {modes}, got 'two'"):
        alignment.transfer(path, candidates, table, ids, mode="two")
    with pytest.raises(ValueError, match="mode 'soft' needs a vocabulary map with first_id"):
        alignment.transfer(path, candidates, table, ids, mode="soft")
    with pytest.raises(ValueError, match="k_out must be at least 1, got 0"):
        alignment.transfer(path, candidates, table, ids, k_out=0)
    with pytest.raises(ValueError, match=r"got \(1, 3\) and \(1, 2\)"):
        alignment.transfer(path, candidates, table, np.zeros((1, 3), np.int32))
    with pytest.raises(ValueError, match=r"got token \(1, 2\) and topk \(1, 4, 3\)"):
        wrong = candidates._replace(topk=np.zeros((1, 4, 3), np.int32))
        alignment.transfer(path, wrong, table, ids)


def test_real_records():
    examples, vocabulary = cases.real_examples()
    targets = cases.transfer(examples, vocabulary, widths=(72, 72))
    assert len(examples) == 26
    cases.assert_equal_to_reference(targets, examples, vocabulary)
    cases.assert_well_formed(targets)
    transferred = targets.kind == Kind.TRANSFERRED
    tokens = (targets.kind != Kind.PAD) & (targets.reason != Reason.END_OF_SEQUENCE)
    assert transferred.sum() / tokens.sum() == pytest.approx(0.800, abs=5e-4)


def test_published_example():
    """The first record is the one printed in the authors' notebook: 40 tokens, 6 one-hot."""
    examples, vocabulary = cases.real_examples()
    student = examples[0][1]
    targets = cases.transfer(examples[:1], vocabulary, widths=(72, 72))
    one_hot = targets.kind[0, :40] == Kind.ONE_HOT
    assert len(student) == 40
    assert [student[j] for j in np.flatnonzero(one_hot)] == ["▁If", "/2", ".", "▁In", ".", "▁The"]
    retained = 1 - np.exp(targets.tail_logprob[0, :40][~one_hot])
    assert len(retained) == 34
    assert retained.min() == pytest.approx(0.845, abs=5e-4)
    assert retained.mean() == pytest.approx(0.976, abs=5e-4)
