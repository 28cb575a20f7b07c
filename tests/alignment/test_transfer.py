"""The jitted transfer against the plain-Python rule, on made-up and on real records."""

import json
import math

import jax
import numpy as np
import pytest

from specialize_jax import alignment, tokenizers
from specialize_jax.alignment import reference
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason
from tests.real_data import data_dir

EOS = 1


def _encode(examples, vocabulary, widths, k):
    """Turns string examples (teacher, student, candidates) into arrays of fixed widths.

    An example's candidates are, for each teacher token, (string, probability) pairs with the
    sampled one first, as `reference.one_to_one` takes them.
    """
    width_t, width_s = widths
    strings: dict[str, int] = {}
    batch = len(examples)
    token = np.full((batch, width_t), -1, np.int32)
    token_logprob = np.full((batch, width_t), UNUSED_LOGPROB, np.float32)
    topk = np.full((batch, width_t, k), -1, np.int32)
    topk_logprobs = np.full((batch, width_t, k), UNUSED_LOGPROB, np.float32)
    student_ids = np.zeros((batch, width_s), np.int32)
    for b, (teacher, student, candidates) in enumerate(examples):
        student_ids[b, : len(student) + 1] = [*(vocabulary[piece] for piece in student), EOS]
        for i, (string, listed) in enumerate(zip(teacher, candidates, strict=True)):
            token[b, i] = strings.setdefault(string, len(strings))
            if listed:
                token_logprob[b, i] = math.log(listed[0][1])
            for slot, (other, probability) in enumerate(listed[1:]):
                topk[b, i, slot] = strings.setdefault(other, len(strings))
                topk_logprobs[b, i, slot] = math.log(probability)
    student_id = [vocabulary.get(string.replace(" ", "▁"), -1) for string in strings]
    return (
        alignment.Candidates(token, token_logprob, topk, topk_logprobs),
        alignment.VocabularyMap(np.array(student_id, np.int32)),
        student_ids,
        np.array([len(student) + 1 for _, student, _ in examples], np.int32),
    )


def _transfer(examples, vocabulary, *, widths, k=5, k_out=8):
    candidates, vocabulary_map, student_ids, lengths = _encode(examples, vocabulary, widths, k)
    costs = np.zeros((len(examples), *widths), np.int32)
    tokens = [teacher for teacher, _, _ in examples], [student for _, student, _ in examples]
    part = alignment.edit_distance_costs(*tokens)
    costs[:, : part.shape[1], : part.shape[2]] = part
    path = alignment.dtw(costs, np.array([len(t) for t in tokens[0]]), lengths - 1)
    targets = alignment.transfer(
        path,
        candidates,
        vocabulary_map,
        student_ids,
        student_lengths=lengths,
        k_out=k_out,
        eos_id=EOS,
    )
    return jax.tree.map(np.asarray, targets)


def _assert_equal_to_reference(targets, examples, vocabulary):
    for b, (teacher, student, candidates) in enumerate(examples):
        expected = reference.one_to_one(teacher, student, candidates, vocabulary)
        for j, (probabilities, reason) in enumerate(expected):
            assert targets.reason[b, j] == reason
            assert targets.kind[b, j] == (Kind.ONE_HOT if reason else Kind.TRANSFERRED)
            used = targets.logprobs[b, j] > UNUSED_LOGPROB
            got = dict(
                zip(
                    targets.ids[b, j][used].tolist(),
                    np.exp(targets.logprobs[b, j][used]),
                    strict=True,
                )
            )
            assert got == pytest.approx(
                {vocabulary[piece]: p for piece, p in probabilities.items()}, rel=1e-5
            )
            left = 1 - sum(probabilities.values())
            assert np.exp(targets.tail_logprob[b, j]) == pytest.approx(max(left, 0), abs=1e-6)
        end = len(student)
        assert (targets.kind[b, end], targets.reason[b, end]) == (2, Reason.END_OF_SEQUENCE)
        assert targets.ids[b, end, 0] == EOS and targets.logprobs[b, end, 0] == 0
        assert not targets.kind[b, end + 1 :].any() and not targets.reason[b, end + 1 :].any()
        assert np.all(targets.logprobs[b, end + 1 :] == UNUSED_LOGPROB)


def _assert_well_formed(targets):
    """The contract of `SparseTargets`."""
    unused = targets.logprobs == UNUSED_LOGPROB
    assert np.all(targets.ids[unused] == 0)
    assert np.all(np.diff(targets.logprobs, axis=-1) <= 0)
    for position in np.ndindex(targets.kind.shape):
        ids = targets.ids[position][~unused[position]]
        assert len(set(ids)) == len(ids)
    mass = np.exp(targets.logprobs).sum(-1) + np.exp(targets.tail_logprob)
    np.testing.assert_allclose(mass[targets.kind != Kind.PAD], 1, atol=1e-5)


def test_docstring_example():
    teacher = [" $", "12", " every", "thing", ".", "\n"]
    student = ["▁$12", "▁every", "th", "ing", "."]
    listed = [(" every", 0.5), (" a", 0.3), (" every", 0.5), (" ev3ry", 0.1)]
    candidates = [listed if token == " every" else [(token, 0.9)] for token in teacher]
    vocabulary = {"▁$12": 10, "▁every": 11, "▁a": 12, "th": 13, "ing": 14, ".": 15}
    targets = _transfer([(teacher, student, candidates)], vocabulary, widths=(6, 6))
    reasons = ["MANY_TEACHER_TOKENS", "NONE", "SHARED_TEACHER_TOKEN", "SHARED_TEACHER_TOKEN"]
    reasons += ["MANY_TEACHER_TOKENS", "END_OF_SEQUENCE"]
    assert [Reason(r).name for r in targets.reason[0]] == reasons
    assert targets.ids[0, 1].tolist() == [11, 12, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(np.exp(targets.logprobs[0, 1, :2]), [0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(np.exp(targets.tail_logprob[0, 1]), 0.2, rtol=1e-6)
    assert targets.ids[0, :, 0].tolist() == [10, 11, 13, 14, 15, EOS]
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
    examples = []
    for _ in range(40):
        teacher = rng.choice(strings, size=rng.integers(0, 9)).tolist()
        student = rng.choice(pieces, size=rng.integers(0, 9)).tolist()
        candidates = []
        for token in teacher:
            probabilities = rng.dirichlet(np.ones(5)) * rng.choice([1.0, 0.7])
            others = rng.choice([s for s in strings if s != token], size=4, replace=False)
            listed = list(zip([token, *others.tolist()], probabilities.tolist(), strict=True))
            # The sampled token, first, usually stands again among the top-k.
            again = listed[:1] if rng.random() < 0.8 else []
            candidates.append([] if rng.random() < 0.1 else [*listed, *again])
        examples.append((teacher, student, candidates))
    targets = _transfer(examples, vocabulary, widths=(9, 10))
    _assert_equal_to_reference(targets, examples, vocabulary)
    _assert_well_formed(targets)
    others = {Reason.ANSWER_ONLY, Reason.INSIDE_SEGMENT, Reason.NO_MASS}
    assert set(Reason) - set(targets.reason.ravel()) == others


def test_what_exceeds_k_out_goes_to_the_tail_smallest_first():
    listed = [(" a", 0.1), (" b", 0.4), (" c", 0.2), (" d", 0.25)]
    vocabulary = {"▁a": 5, "▁b": 6, "▁c": 7, "▁d": 8}
    example = ([" a"], ["▁a"], [listed])
    targets = _transfer([example], vocabulary, widths=(1, 2), k_out=2)
    assert targets.ids[0, 0].tolist() == [6, 8]
    np.testing.assert_allclose(np.exp(targets.logprobs[0, 0]), [0.4, 0.25], rtol=1e-6)
    np.testing.assert_allclose(np.exp(targets.tail_logprob[0, 0]), 0.35, rtol=1e-6)


def test_no_tail_where_the_teacher_listed_everything():
    example = ([" a"], ["▁a"], [[(" a", 0.75), (" b", 0.25)]])
    targets = _transfer([example], {"▁a": 5, "▁b": 6}, widths=(1, 2))
    assert targets.tail_logprob[0, 0] == UNUSED_LOGPROB


def test_a_record_without_log_probabilities_is_one_hot_throughout():
    example = ([" a", "b", "c"], ["▁a", "bc"], [[], [], []])
    targets = _transfer([example], {"▁a": 5, "bc": 6}, widths=(3, 3))
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
    with pytest.raises(ValueError, match="mode must be one of one_to_one, marginal, got 'two'"):
        alignment.transfer(path, candidates, table, ids, mode="two")
    with pytest.raises(ValueError, match="k_out must be at least 1, got 0"):
        alignment.transfer(path, candidates, table, ids, k_out=0)
    with pytest.raises(ValueError, match=r"got \(1, 3\) and \(1, 2\)"):
        alignment.transfer(path, candidates, table, np.zeros((1, 3), np.int32))
    with pytest.raises(ValueError, match=r"got token \(1, 2\) and topk \(1, 4, 3\)"):
        wrong = candidates._replace(topk=np.zeros((1, 4, 3), np.int32))
        alignment.transfer(path, wrong, table, ids)


def _real_examples():
    """The 26 published code-davinci-002 records as (teacher, student, candidates)."""
    folder = data_dir()
    student = tokenizers.load(folder / "tokenizer_t5" / "spiece.model")
    vocabulary = {student.pieces([i])[0]: i for i in range(student.vocab_size)}
    examples = []
    with open(folder / "codex_top5_steps" / "codex_top5_steps.jsonl", encoding="utf-8") as lines:
        for line in lines:
            steps = json.loads(line)["steps"][2:]  # ` step` and a newline echo the prompt
            while not steps[-1][0][0].strip("\n"):
                steps.pop()
            teacher = [step[0][0] for step in steps]
            pieces = student.pieces(student.encode("".join(teacher)))
            candidates = [[(t, p) for t, p in step if p > 0] for step in steps]
            examples.append((teacher, pieces, candidates))
    return examples, vocabulary


def test_real_records():
    examples, vocabulary = _real_examples()
    targets = _transfer(examples, vocabulary, widths=(72, 72))
    assert len(examples) == 26
    _assert_equal_to_reference(targets, examples, vocabulary)
    _assert_well_formed(targets)
    transferred = targets.kind == Kind.TRANSFERRED
    tokens = (targets.kind != Kind.PAD) & (targets.reason != Reason.END_OF_SEQUENCE)
    assert transferred.sum() / tokens.sum() == pytest.approx(0.800, abs=5e-4)


def test_published_example():
    """The first record is the one printed in the authors' notebook: 40 tokens, 6 one-hot."""
    examples, vocabulary = _real_examples()
    student = examples[0][1]
    targets = _transfer(examples[:1], vocabulary, widths=(72, 72))
    one_hot = targets.kind[0, :40] == Kind.ONE_HOT
    assert len(student) == 40
    assert [student[j] for j in np.flatnonzero(one_hot)] == ["▁If", "/2", ".", "▁In", ".", "▁The"]
    retained = 1 - np.exp(targets.tail_logprob[0, :40][~one_hot])
    assert len(retained) == 34
    assert retained.min() == pytest.approx(0.845, abs=5e-4)
    assert retained.mean() == pytest.approx(0.976, abs=5e-4)
