"""String examples for `transfer`, and their comparison with the plain-Python rules."""

import json
import math

import jax
import numpy as np
import pytest

from specialize_jax import alignment, tokenizers
from specialize_jax.alignment import reference_transfer
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason
from tests.real_data import data_dir

EOS = 1


def encode(examples, vocabulary, widths, k):
    """Turns string examples (teacher, student, candidates) into arrays of fixed widths.

    An example's candidates are, for each teacher token, (string, probability) pairs with the
    sampled one first, as `reference_transfer.one_to_one` takes them.
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
    return (
        alignment.Candidates(token, token_logprob, topk, topk_logprobs),
        list(strings),
        student_ids,
        np.array([len(student) + 1 for _, student, _ in examples], np.int32),
    )


def vocabulary_map(strings, vocabulary, mode):
    """The exact map, or for `soft` that of a vocabulary whose ids count from 0."""
    if mode == "soft":
        assert [*vocabulary.values()] == [*range(len(vocabulary))]
        return alignment.SoftMap(list(vocabulary))(strings)
    student_id = [vocabulary.get(string.replace(" ", "▁"), -1) for string in strings]
    return alignment.VocabularyMap(np.array(student_id, np.int32))


def transfer(examples, vocabulary, *, widths, k=5, k_out=8, mode="one_to_one"):
    """Aligns string examples at full width and carries their candidates over."""
    candidates, strings, student_ids, lengths = encode(examples, vocabulary, widths, k)
    costs = np.zeros((len(examples), *widths), np.int32)
    tokens = [teacher for teacher, _, _ in examples], [student for _, student, _ in examples]
    part = alignment.edit_distance_costs(*tokens)
    costs[:, : part.shape[1], : part.shape[2]] = part
    path = alignment.dtw(costs, np.array([len(t) for t in tokens[0]]), lengths - 1)
    targets = alignment.transfer(
        path,
        candidates,
        vocabulary_map(strings, vocabulary, mode),
        student_ids,
        mode=mode,
        student_lengths=lengths,
        k_out=k_out,
        eos_id=EOS,
    )
    return jax.tree.map(np.asarray, targets)


def random_example(rng, strings, pieces):
    """Tokens and pieces at random, with candidates; some tokens have none."""
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
    return teacher, student, candidates


def assert_equal_to_reference(targets, examples, vocabulary, rule=reference_transfer.one_to_one):
    """Compares every field with a rule of `reference_transfer`."""
    for b, (teacher, student, candidates) in enumerate(examples):
        expected = rule(teacher, student, candidates, vocabulary)
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


def assert_well_formed(targets):
    """The contract of `SparseTargets`."""
    unused = targets.logprobs == UNUSED_LOGPROB
    assert np.all(targets.ids[unused] == 0)
    assert np.all(np.diff(targets.logprobs, axis=-1) <= 0)
    for position in np.ndindex(targets.kind.shape):
        ids = targets.ids[position][~unused[position]]
        assert len(set(ids)) == len(ids)
    mass = np.exp(targets.logprobs).sum(-1) + np.exp(targets.tail_logprob)
    np.testing.assert_allclose(mass[targets.kind != Kind.PAD], 1, atol=1e-5)


def real_examples():
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
