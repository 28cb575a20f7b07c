"""Aligned examples round-trip through Arrow, and every rule of the contract is enforced."""

import numpy as np
import pyarrow as pa
import pytest

from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason, SchemaError, SparseTargets, aligned


def example():
    """Three tokens: transferred, one-hot, end of sequence."""
    targets = np.array([5, 9, 1], np.int32)
    unused = [0, UNUSED_LOGPROB]
    soft = SparseTargets(
        ids=np.array([[5, 0, 0], [9, 0, 0], [1, 0, 0]], np.int32),
        logprobs=np.array(
            [[np.log(0.5), np.log(0.25), unused[1]], [0, *[unused[1]] * 2], [0, *[unused[1]] * 2]],
            np.float32,
        ),
        tail_logprob=np.array([np.log(0.25), UNUSED_LOGPROB, UNUSED_LOGPROB], np.float32),
        kind=np.array([Kind.TRANSFERRED, Kind.ONE_HOT, Kind.ONE_HOT], np.int32),
        reason=np.array([0, Reason.DIFFERENT_STRING, Reason.END_OF_SEQUENCE], np.int32),
    )
    return targets, soft


TEXT = {
    "example_id": "a/0",
    "sample_id": 3,
    "question": "?",
    "gold_answer": None,
    "targets_pretokenized": "x",
}


@pytest.mark.parametrize(("vocab_size", "id_type"), [(32100, pa.uint16()), (70000, pa.uint32())])
def test_round_trip(vocab_size, id_type):
    targets, soft = example()
    schema = aligned.arrow_schema(3, vocab_size)
    assert schema.field("soft_ids").type.value_type.value_type == id_type
    empty = (np.zeros(0, np.int32), SparseTargets(*(value[:0] for value in soft)))
    table = aligned.to_table(
        [TEXT] * 3, [targets, empty[0], targets], [soft, empty[1], soft], schema
    )
    rows = aligned.to_rows(table)
    assert [len(row["targets"]) for row in rows] == [3, 0, 3]
    for row in (rows[0], rows[2]):
        assert row["example_id"] == "a/0" and row["gold_answer"] is None
        np.testing.assert_array_equal(row["targets"], targets)
        for name, value in soft._asdict().items():
            tolerance = 1e-3 if "logprob" in name else 0
            np.testing.assert_allclose(getattr(row["soft"], name), value, rtol=tolerance)
        aligned.check_soft(row["soft"], row["targets"], "here")


def test_a_slice_of_a_table_reads_as_its_rows():
    targets, soft = example()
    schema = aligned.arrow_schema(3, 100)
    table = aligned.to_table([TEXT] * 4, [targets + i for i in range(4)], [soft] * 4, schema)
    rows = aligned.to_rows(table.slice(2, 2))
    assert [row["targets"].tolist() for row in rows] == [[7, 11, 3], [8, 12, 4]]


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("kind", 0, 9, "unknown kind"),
        ("kind", 0, 0, "padding inside a target"),
        ("kind", 0, 2, "kind without reason"),
        ("reason", 1, 99, "unknown reason"),
        ("ids", (0, 2), 4, "an unused slot holds an id"),
        ("ids", (0, 1), 5, "an id stands twice"),
        ("logprobs", (0, 0), 0.0, "do not sum to 1"),
        ("tail_logprob", 1, -1.0, "do not sum to 1"),
        ("ids", (1, 0), 8, "one-hot on another id"),
    ],
)
def test_broken_targets_are_named(field, index, value, message):
    targets, soft = example()
    getattr(soft, field)[index] = value
    position = index if isinstance(index, int) else index[0]
    with pytest.raises(SchemaError, match=f"here, position {position}: .*{message}"):
        aligned.check_soft(soft, targets, "here")


def test_lengths_must_agree():
    targets, soft = example()
    with pytest.raises(SchemaError, match="here: 3 ids for 2 targets"):
        aligned.check_soft(soft, targets[:2], "here")
