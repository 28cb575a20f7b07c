"""Packed rows in a bucket: copied once, checked, named by their hash; and packed into one."""

import pytest
from etils import epath
from etils.epath import backend, gpath
from fsspec.implementations.memory import MemoryFileSystem

from specialize_jax.data import local_copies, packed
from specialize_jax.schemas import SchemaError, batches, folders
from tests.data import test_packed
from tests.fixtures import world

BUCKET = epath.Path("gs://bucket/packed")


class _Bucket(MemoryFileSystem):
    """A bucket in memory, which counts how often each file is opened."""

    protocol = ("gcs", "gs")
    store: dict = {}
    pseudo_dirs = [""]
    opened: list[str] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://"))

    def _open(self, path, mode="rb", **options):
        self.opened.append(f"{mode} {path.rsplit('/', 1)[-1]}")
        return super()._open(path, mode, **options)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """The fixture rows, in a bucket; the cache of this machine is empty."""
    monkeypatch.setattr(backend._FileSystemSpecBackend, "fs", lambda self, path: _Bucket())
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setenv(local_copies.VARIABLE, str(tmp_path / "cache"))
    _Bucket.store.clear()
    for path in epath.Path(world.HERE / "packed_rows").iterdir():
        (BUCKET / path.name).write_bytes(path.read_bytes())
    _Bucket.opened.clear()
    return _Bucket


def _read():
    return packed.PackedRows(BUCKET, "train", batch_rows=4, seed=3)


def test_rows_in_a_bucket_are_those_of_the_folder(bucket, tmp_path):
    ours, local = (
        _read(),
        packed.PackedRows(world.HERE / "packed_rows", "train", batch_rows=4, seed=3),
    )
    assert ours.digest == local.digest
    for name, value in ours.batch(range(30)).items():
        assert (value == local.batch(range(30))[name]).all()
    parts = [entry for entry in ours.info["shards"] if entry["split"] == "train"]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {e["sha256"] for e in parts}


def test_parts_are_copied_once(bucket):
    _read()
    copied = [name for name in bucket.opened if "array_record" in name]
    assert sorted(copied) == ["rb train-00000.array_record", "rb train-00001.array_record"]
    bucket.opened.clear()
    _read()
    assert not [name for name in bucket.opened if "array_record" in name]


def test_a_changed_part_is_named_and_not_kept(bucket, tmp_path):
    (BUCKET / "train-00001.array_record").write_bytes(b"cut")
    with pytest.raises(SchemaError, match=r"gs://bucket/.*train-00001.*SHA-256 mis.*\(3 bytes\)"):
        _read()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    (BUCKET / "train-00001.array_record").unlink()
    with pytest.raises(
        SchemaError, match="'gs://bucket/packed': part 'train-00001.array_record' is"
    ):
        _read()


def test_a_folder_that_takes_no_copy_says_what_is_needed_and_where(bucket, tmp_path):
    (tmp_path / "cache").write_text("no folder: nothing can be written below it")
    message = (
        r"cannot copy 'gs://.*' \(0.0 GB\) to .*cache', which has [\d.]+ GB free.*_CACHE names"
    )
    with pytest.raises(SchemaError, match=message):
        _read()


def test_where_copies_lie():
    assert str(local_copies.cache_folder({"SPECIALIZE_JAX_CACHE": "/a"})) == "/a"
    assert str(local_copies.cache_folder({"XDG_CACHE_HOME": "/b"})) == "/b/specialize_jax"
    assert str(local_copies.cache_folder({})).endswith("/.cache/specialize_jax")


def test_parts_are_written_into_a_bucket_whole_or_not_at_all(bucket):
    lengths = test_packed.LENGTHS
    layout = batches.fields(*lengths, test_packed.K, 100)
    rows = [test_packed.row(value) for value in (1, 2, 3)]
    path = epath.Path("gs://bucket/own/train-00000.array_record")
    entry = packed.write_part(path, rows, layout, packed.Counts())
    assert entry == {"file": path.name, "rows": 3, "sha256": folders.sha256(path)}

    def broken():
        yield rows[0]
        raise KeyError

    with pytest.raises(KeyError):
        packed.write_part(path.parent / "other", broken(), layout, packed.Counts())
    assert [p.name for p in path.parent.iterdir()] == [path.name]
