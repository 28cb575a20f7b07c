"""Records as arrays say the same as records in Python, and miss no bad row."""

import math

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from specialize_jax import tokenizers
from specialize_jax.data.aligning import checks, plain
from specialize_jax.data.aligning.columns import Columns
from specialize_jax.schemas import SchemaError, records
from specialize_jax.teacher import importers
from tests.fixtures import world
from tests.real_data import data_dir

_NAN = float("nan")


def table_of(rows):
    return pa.Table.from_pylist(rows, schema=records.ARROW_SCHEMA)


def variants():
    """Records that end in every way, with and without candidates."""
    row = world.record(0)
    end = row["target_token_end"]
    names = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")
    short = row | {name: row[name][:end] for name in names}
    short["completion"] = b"".join(short["token_bytes"]).decode()
    unlisted = world.record(2)
    for names_at, logprobs in zip(unlisted["topk_bytes"], unlisted["topk_logprobs"], strict=True):
        del names_at[0], logprobs[0]
    unlisted["token_logprobs"][3:6] = [-9999.0, -math.inf, 1e-7]
    late = world.record(3)
    late["target_token_start"] = 2
    return [
        row,
        world.record(1, logprobs=False),
        short,
        short | {"terminal_bytes": None, "terminal_logprobs": None},
        short | {"finish_reason": "length", "terminal_bytes": [], "terminal_logprobs": []},
        unlisted,
        late,
    ]


def test_steps_are_what_a_record_says():
    real = importers.SOURCES["codex_top5_steps"].rows(epath.Path(data_dir()))
    rows = [*variants(), *[row for row in real if not isinstance(row, str)][:5]]
    columns = Columns(table_of(rows))
    with_logprobs = [r for r, row in enumerate(rows) if records.has_logprobs(row)]
    assert np.flatnonzero(columns.has_logprobs).tolist() == with_logprobs
    assert columns.targets == [records.target_text(row) for row in rows]
    steps = columns.steps(np.array(with_logprobs))
    float32 = table_of(rows).to_pylist()
    for number, r in enumerate(with_logprobs):
        found, expected = steps.recorded(number), plain.recorded(float32[r])
        assert found[0] == expected[0] and found[3:] == expected[3:]
        pairs = list(zip(found.candidates, expected.candidates, strict=True))
        assert (found.terminal is None) == (expected.terminal is None)
        for mine, theirs in [*pairs, (found.terminal or {}, expected.terminal or {})]:
            assert list(mine) == list(theirs)
            assert mine == pytest.approx(theirs, rel=1e-15)


def _without(name):
    def change(row):
        row[name] = None

    return change


def _set(name, *where_and_value):
    *where, value = where_and_value

    def change(row):
        inner = row
        for key in [name, *where][:-1]:
            inner = inner[key]
        inner[[name, *where][-1]] = value

    return change


BAD = {
    "no question": (_set("question", " \n"), "'question' is blank"),
    "null": (_without("completion"), "'completion' must not be null"),
    "null inside": (_set("token_bytes", 1, None), "'token_bytes' must not hold null"),
    "null candidate": (_set("topk_logprobs", 1, 0, None), "'topk_logprobs' must not hold null"),
    "other text": (_set("completion", "something else"), "are not the completion"),
    "same size": (_set("token_bytes", 0, b"zzz"), "are not the completion"),
    "empty target": (_set("target_token_end", 0), "empty target range"),
    "target outside": (_set("target_token_end", 99), "outside"),
    "fewer steps": (lambda row: row["topk_bytes"].pop(), "'topk_bytes' for"),
    "fewer names": (lambda row: row["topk_bytes"][1].pop(), "2 names, 3 p"),
    "ids": (_set("token_ids", [1]), "1 ids"),
    "twice": (lambda row: row["topk_bytes"].__setitem__(2, [b"a"] * 3), "stands twice"),
    "NaN": (_set("topk_logprobs", 2, 1, _NAN), "got nan for b' the'"),
    "above 0": (_set("topk_logprobs", 2, 1, 0.5), "got 0.5 for b' the'"),
    "not recorded": (_set("topk_logprobs", 2, 1, -9999.0), "got -9999.0 for b' the'"),
    "mass": (_set("topk_logprobs", 2, [-0.1, -0.5, -3.0]), "step 2: candidate mass 1.56.* above 1"),
    "sampled NaN": (_set("token_logprobs", 1, _NAN), "step 1: token_logprobs.* got nan for b"),
    "sampled above 0": (_set("token_logprobs", 1, 0.25), "step 1: token_logprobs.* got 0.25"),
    "terminal mass": (_set("terminal_logprobs", [-0.1, -0.1]), "terminal: candidate mass 1.8"),
    "terminal NaN": (_set("terminal_logprobs", 0, _NAN), "terminal: log-prob.* got nan"),
    "terminal missing": (_without("terminal_logprobs"), "terminal_bytes without logprobs"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_among_good_ones_is_found_named_and_skipped(name):
    change, message = BAD[name]
    rows = [world.record(index) for index in range(4)]
    change(rows[2])
    table = table_of(rows)
    with pytest.raises(SchemaError, match=rf"^here row 2 \(world/0/2/0\): .*{message}"):
        checks.checked(table, "here")
    columns, skipped = checks.checked(table, "here", skip=True)
    assert columns.column("example_id").to_pylist() == [f"world/0/{i}" for i in (0, 1, 3)]
    [one] = skipped
    assert (one["row"], one["example_id"], one["sample_id"]) == (2, "world/0/2", 0)
    assert one["error"].startswith("here row 2 (world/0/2/0): ")


def test_a_cut_character_and_a_blank_target_are_found():
    cut = world.cut_record()
    blank = cut | {"target_token_start": 2, "target_token_end": 3}
    bare = world.record(1, logprobs=False) | {"completion": " \n"}
    good = world.record(2)
    found = checks.suspicious(table_of([cut, good, blank, bare]).combine_chunks())
    assert found.tolist() == [True, False, True, True]
    _, skipped = checks.checked(table_of([cut, good, blank, bare]), "here", skip=True)
    assert [row["row"] for row in skipped] == [0, 2, 3]


def test_good_rows_are_not_even_looked_at():
    assert not checks.suspicious(table_of(variants()).combine_chunks()).any()
    assert len(checks.checked(table_of([]), "here")[0]) == 0


def test_tokens_of_another_tokenizer():
    teacher = tokenizers.load(epath.Path(data_dir()) / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    real = importers.SOURCES["codex_top5_steps"].rows(epath.Path(data_dir()))
    row = next(row for row in real if not isinstance(row, str))
    other = world.record(0, token_bytes=[b"zzzzqqqq", b"\n"], completion="zzzzqqqq\n")
    other |= {"token_logprobs": [0.0] * 2, "topk_bytes": [[], []], "topk_logprobs": [[], []]}
    other["target_token_end"] = 1
    table = table_of([row, other])
    with pytest.raises(SchemaError, match=r"row 1 .*token 0, b'zzzzqqqq', is no token of 'p50k"):
        checks.checked(table, "here", teacher)
    assert len(checks.checked(table.slice(0, 1), "here", teacher)[0]) == 1
