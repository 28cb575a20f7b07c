"""The checked-in folder of every schema is what the program writes today, and it verifies."""

import pytest

from specialize_jax.apps import main
from tests.fixtures import make, world


@pytest.mark.parametrize("name", make.FOLDERS)
def test_fixtures_verify(name, capsys):
    assert main.main(["verify", str(world.HERE / name)]) == 0
    assert capsys.readouterr().out.strip().endswith(f"ok: {world.HERE / name}")


def test_fixtures_are_what_is_written_today(tmp_path):
    """Another byte here means another format: raise the version, and make the fixtures again."""
    make.make(tmp_path)
    for name in ("teacher_records", "aligned_examples", "packed_rows"):
        for path in sorted((world.HERE / name).iterdir()):
            if path.suffix in (".parquet", ".array_record"):
                assert (tmp_path / name / path.name).read_bytes() == path.read_bytes(), path.name
