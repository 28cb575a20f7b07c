"""Packed rows on disk: order is a pure function, hosts share a batch, damage is named."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specialize_jax.data import packed, packing
from specialize_jax.data.packing import Example, Lengths
from specialize_jax.schemas import Format, Kind, Reason, SchemaError, SparseTargets, batches

LENGTHS = Lengths(4, 4)
K = 2
SIZES = {"train": [5, 7], "validation": [3]}


def example(value):
    targets = np.full(3, value, np.int32)
    soft = packing.one_hot(targets, K, Kind.ONE_HOT, Reason.NO_LOGPROBS)
    return Example(np.full(2, value, np.int32), targets, soft, Format.ZERO_SHOT_ANSWER_ONLY)


def row(value):
    return packing.build_row([example(value)], LENGTHS, K)


@pytest.fixture
def folder(tmp_path):
    """Two packed epochs of 5 and 7 rows, and a validation split; every row has its own token."""
    layout = batches.fields(*LENGTHS, K, 100)
    shards, counts, value = [], packed.Counts(), 1
    for split, sizes in SIZES.items():
        for epoch, size in enumerate(sizes):
            path = tmp_path / f"{split}-{epoch:05d}.array_record"
            rows = [row(value + i) for i in range(size)]
            value += size
            entry = packed.write_part(path, rows, layout, counts)
            shards.append({**entry, "split": split, "epoch": epoch})
    lengths = LENGTHS._asdict()
    packed.write_info(tmp_path, lengths=lengths, k=K, vocab_size=100, shards=shards, splits={})
    return tmp_path


def tokens(batch):
    return batch["decoder_target_tokens"][:, 0].tolist()


def test_each_epoch_shows_every_row_once(folder):
    rows = packed.PackedRows(folder, "train", batch_rows=1, seed=3)
    assert len(rows) == 12
    assert sorted(tokens(rows.batch(range(5)))) == [1, 2, 3, 4, 5]
    assert sorted(tokens(rows.batch(range(5, 12)))) == [6, 7, 8, 9, 10, 11, 12]
    again = tokens(rows.batch(range(12, 17)))
    assert sorted(again) == [1, 2, 3, 4, 5]
    assert [rows.locate(i)[0] for i in (0, 4, 5, 11, 12, 17, 24)] == [0, 0, 1, 1, 2, 3, 4]


def test_order_is_a_function_of_seed_epoch_and_index(folder):
    def read(seed):
        rows = packed.PackedRows(folder, "train", batch_rows=1, seed=seed)
        return [tokens(rows.batch([index]))[0] for index in range(36)]

    assert read(3) == read(3)
    assert read(3) != read(4)
    assert read(3)[:5] != read(3)[12:17] or read(3)[5:12] != read(3)[17:24]


def test_resuming_and_hosts_read_the_same_rows(folder):
    whole = packed.PackedRows(folder, "train", batch_rows=4)
    stream = whole.batches_from(0)
    batches_seen = [tokens(next(stream)) for _ in range(7)]
    resumed = whole.batches_from(5 * 4)
    assert [tokens(next(resumed)) for _ in range(2)] == batches_seen[5:]
    halves = [whole.batches_from(0, rows=rows) for rows in ([0, 1], [2, 3])]
    for expected in batches_seen:
        assert [t for half in halves for t in tokens(next(half))] == expected


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_number_of_hosts_from_any_batch_on_reads_the_rows_of_one(folder, data):
    """However the rows of a batch lie on hosts, and wherever a run goes on."""
    batch_rows = data.draw(st.integers(1, 6))
    host_of_row = data.draw(st.lists(st.integers(0, 3), min_size=batch_rows, max_size=batch_rows))
    first = data.draw(st.integers(0, 9)) * batch_rows
    plain = packed.PackedRows(folder, "train", batch_rows=1, seed=5)
    expected = [tokens(plain.batch([first + i]))[0] for i in range(2 * batch_rows)]
    found = [0] * (2 * batch_rows)
    for host in set(host_of_row):
        rows = [row for row, owner in enumerate(host_of_row) if owner == host]
        own = packed.PackedRows(folder, "train", batch_rows=batch_rows, seed=5)
        for number, batch in zip(range(2), own.batches_from(first, rows=rows), strict=False):
            for row, token in zip(rows, tokens(batch), strict=True):
                found[number * batch_rows + row] = token
    assert found == expected


def test_data_state(folder):
    rows = packed.PackedRows(folder, "train", batch_rows=4, seed=3)
    assert rows.data_state(12) == {"seed": 3, "epoch": 2, "index": 12}


def test_in_order_reads_once_and_pads_with_rows_that_do_not_count(folder):
    rows = packed.PackedRows(folder, "validation", batch_rows=2)
    first, second = rows.in_order()
    assert tokens(first) == [13, 14] and tokens(second) == [15, 0]
    assert second["decoder_loss_weights"][1].sum() == 0
    assert (second["decoder_soft_kind"][1] == Kind.PAD).all()
    assert len(list(rows.in_order(limit=1))) == 1


def test_damage_is_named(folder):
    part = folder / "train-00001.array_record"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SchemaError, match="train-00001.array_record': SHA-256 mismatch"):
        packed.PackedRows(folder, "train", batch_rows=1)
    part.write_bytes(b"")
    with pytest.raises(SchemaError, match=r"SHA-256 mismatch.*\(0 bytes\)"):
        packed.PackedRows(folder, "train", batch_rows=1)


def test_an_unknown_split_names_the_choices(folder):
    with pytest.raises(SchemaError, match="no split 'test'; choices: train, validation"):
        packed.PackedRows(folder, "test", batch_rows=1)


def test_a_record_of_another_layout_is_named():
    layout = batches.fields(*LENGTHS, K, 100)
    with pytest.raises(SchemaError, match="expected .* bytes, got 3"):
        batches.decode_rows([b"abc"], layout)


def test_counts(folder):
    counts = packed.Counts()
    for value in (1, 2):
        counts.add(row(value))
    summary = counts.summary(LENGTHS)
    assert summary["examples"] == 2 and summary["formats"] == {"zero_shot_answer_only": 2}
    assert summary["encoder_fill"] == 0.5 and summary["decoder_fill"] == 0.75
    assert summary["coverage"] == 0


def packed_with_ids(folder, ids):
    """A split of rows whose examples have these ids; None for a row without."""
    layout, counts = batches.fields(*LENGTHS, K, 100), packed.Counts()
    rows = []
    for value, names in enumerate(ids, 1):
        one = example(value)
        both = one._replace(inputs=one.inputs[:1], targets=one.targets[:1])
        both = both._replace(soft=SparseTargets(*(part[:1] for part in one.soft)))
        rows.append(packing.build_row([both._replace(id=name) for name in names], LENGTHS, K))
    entry = packed.write_part(folder / "train-00000.array_record", rows, layout, counts)
    shards = [{**entry, "split": "train", "epoch": 0}]
    lengths = LENGTHS._asdict()
    packed.write_info(folder, lengths=lengths, k=K, vocab_size=100, shards=shards, splits={})
    return packed.PackedRows(folder, "train", batch_rows=1, seed=5)


def test_examples_are_named_by_id_whatever_the_order(tmp_path):
    names = [["set/1"], ["set/2", "a\u2028b/ü"], ["set/1", "set/4"]]
    rows = packed_with_ids(tmp_path, names)
    label = Format.ZERO_SHOT_ANSWER_ONLY.label
    for index in range(7):
        [value] = tokens(rows.batch([index]))
        assert rows.example_ids(index) == names[value - 1]
        assert rows.describe(index) == [f"{name} ({label})" for name in names[value - 1]]


def test_ids_change_no_byte_of_the_rows(tmp_path):
    for name, ids in (("with", ["x"]), ("without", [None])):
        (tmp_path / name).mkdir()
        packed_with_ids(tmp_path / name, [ids] * 2)
    both = [packed.PackedRows(tmp_path / n, "train", batch_rows=1) for n in ("with", "without")]
    assert both[0].digest == both[1].digest
    assert "examples" in both[0].info["shards"][0]
    assert both[1].info["shards"][0].keys() == {"file", "rows", "sha256", "split", "epoch"}


def test_rows_without_ids_are_named_by_their_place(tmp_path):
    rows = packed_with_ids(tmp_path, [["set/1"], [None, "set/2"]])
    assert rows.example_ids(0) is None and not list(tmp_path.glob("*.jsonl"))
    places = sorted(line for index in range(2) for line in rows.describe(index))
    where = "of row {} of train-00000.array_record (zero_shot_answer_only)"
    assert places == [
        "example 0 " + where.format(0),
        "example 0 " + where.format(1),
        "example 1 " + where.format(1),
    ]


def test_changed_ids_are_named(tmp_path):
    rows = packed_with_ids(tmp_path, [["set/1"]])
    (tmp_path / "train-00000.examples.jsonl").write_text('["set/2"]\n')
    with pytest.raises(SchemaError, match="train-00000.examples.jsonl': SHA-256 mismatch"):
        rows.describe(0)
