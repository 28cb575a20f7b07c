"""A manifest names whatever became of a file."""

import hashlib
import json

import pytest
from etils import epath

from specialize_jax.schemas import SchemaError
from specialize_jax.training import manifest

FILES = {"params/d/a": b"12345", "params/b": b"", "progress/c": b"{}", "top": b"t"}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    manifest.write(epath.Path(tmp_path))
    return epath.Path(tmp_path)


def test_it_lists_every_file(folder):
    content = json.loads((folder / "manifest.json").read_text())
    # The dull way round.
    expected = [
        {"file": n, "bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()}
        for n, c in sorted(FILES.items())
    ]
    assert content == {"version": 1, "files": expected}
    assert manifest.check(folder)
    assert manifest.check(folder, "params")
    manifest.write(folder)
    assert json.loads((folder / "manifest.json").read_text()) == content


def test_without_one_nothing_is_compared(folder):
    (folder / "manifest.json").unlink()
    (folder / "top").write_bytes(b"other")
    assert not manifest.check(folder)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_watched(folder, name):
    path = folder / name
    for content in (FILES[name] + b"x", FILES[name][:-1] or b"x", FILES[name][:-1] + b"\0"):
        path.write_bytes(content)
        with pytest.raises(SchemaError, match=f"{path}': (expected|SHA-256)"):
            manifest.check(folder)
    path.unlink()
    with pytest.raises(SchemaError, match=f"'{path.parent}': part '{path.name}' is missing"):
        manifest.check(folder)


def test_a_part_is_watched_alone(folder):
    (folder / "progress" / "c").write_bytes(b"[]")
    assert manifest.check(folder, "params")
    with pytest.raises(SchemaError, match="progress/c"):
        manifest.check(folder, "progress")
    with pytest.raises(SchemaError, match="expected files of 'param', it lists none"):
        manifest.check(folder, "param")


def test_files_that_it_does_not_list_are_let_be(folder):
    (folder / "notes.txt").write_text("mine")
    assert manifest.check(folder)


def test_every_flipped_bit_of_its_own_is_noticed_or_harmless(folder):
    """Harmless is what leaves the same content: in the space between its words."""
    path = folder / "manifest.json"
    whole = path.read_bytes()
    noticed = 0
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        path.write_bytes(changed)
        try:
            manifest.check(folder)
        except SchemaError:
            noticed += 1
        else:
            assert json.loads(changed) == json.loads(whole)
    assert noticed > len(whole) / 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected JSON"),
        ('{"version": 1, "files": [', "expected JSON"),
        ("[]", "missing 'version', 'files'"),
        ('{"version": 2, "files": []}', "expected version 1 .*got version 2"),
        ('{"version": 1, "files": {}}', "a list of files, got version 1 and dict"),
        ('{"version": 1, "files": [{"file": "top"}]}', "entry 0: missing 'bytes', 'sha256'"),
        ('{"version": 1, "files": []}', "it lists none"),
        ('{"version": 1, "files": [{"file": 1, "bytes": 1, "sha256": ""}]}', "expected texts"),
    ],
)
def test_a_damaged_manifest_is_named(folder, content, message):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(SchemaError, match=f"'{folder}/manifest.json': .*{message}"):
        manifest.check(folder)
