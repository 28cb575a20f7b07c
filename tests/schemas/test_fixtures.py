"""The checked-in folder of every schema is what the program writes today, and it verifies."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from specialize_jax.apps import main
from specialize_jax.data import packed
from tests.fixtures import make, world


@pytest.mark.parametrize("name", make.FOLDERS)
def test_fixtures_verify(name, capsys):
    assert main.main(["verify", str(world.HERE / name)]) == 0
    assert capsys.readouterr().out.strip().endswith(f"ok: {world.HERE / name}")


def test_fixtures_are_what_is_written_today(tmp_path):
    """A difference here is another format: raise the version, and make the fixtures again."""
    make.make(tmp_path)
    parts = [path for name in make.FOLDERS[:2] for path in (world.HERE / name).glob("*.parquet")]
    assert len(parts) == 4
    for path in parts:
        # Values: the bytes and the metadata also say which Parquet writer made them.
        kept, today = (
            pq.read_table(folder / path.parent.name / path.name)
            for folder in (world.HERE, tmp_path)
        )
        assert today.equals(kept), path
    for split in ("train", "validation"):
        kept, today = (
            packed.PackedRows(folder / "packed_rows", split, batch_rows=1)
            for folder in (world.HERE, tmp_path)
        )
        assert len(kept) == len(today)
        for name, value in kept.batch(range(len(kept))).items():
            np.testing.assert_array_equal(today.batch(range(len(kept)))[name], value)
