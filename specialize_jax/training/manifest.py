"""Which files a checkpoint consists of: their sizes and SHA-256.

`<step>/manifest.json` is written when everything else in the folder is, and says

    {"version": 1, "files": [{"file": "params/manifest.ocdbt", "bytes": 114, "sha256": "..."}, ...]}

What reads a checkpoint compares first, so that a flipped byte is an error and no parameter.
A checkpoint without a manifest is not wrong: the run was killed between Orbax's last rename and
ours, or it is of an earlier version, or lies in a bucket, which has checksums of its own.

The price: every byte is read once more, after writing and before reading, at the speed of SHA-256
(about 2 GB/s for a thread where the processor has instructions for it, a quarter of that
elsewhere), by up to four threads and in pieces, so that memory does not grow. After writing it
happens while training goes on, mostly from the system's cache. Of several hosts, the first does it
for all.
"""

import concurrent.futures
import pathlib
from typing import Any

from etils import epath

from specialize_jax.schemas import SchemaError, folders

NAME = "manifest.json"
_VERSION = 1
_THREADS = 4


def is_for(folder: epath.PathLike) -> bool:
    """Whether checkpoints in such a place have manifests: on disks, not in buckets."""
    return not folders.is_remote(folder)


def write(step_folder: epath.Path) -> None:
    """Writes the manifest of a complete checkpoint; it is there whole or not at all.

    Args:
      step_folder: `<folder>/<step>`.

    Raises:
      SchemaError: it cannot be written.
      OSError: a file cannot be read.
    """
    root = pathlib.Path(step_folder)
    found = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    names = sorted(set(found) - {NAME})

    def entry(name: str) -> dict[str, Any]:
        path = step_folder / name
        return {"file": name, "bytes": path.stat().length, "sha256": folders.sha256(path)}

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        files = list(threads.map(entry, names))
    folders.write_json(step_folder / NAME, {"version": _VERSION, "files": files})


def check(step_folder: epath.Path, part: str = "") -> bool:
    """Compares the files of a checkpoint with its manifest.

    Files that it does not list are let be: nothing reads them.

    Args:
      step_folder: `<folder>/<step>`.
      part: "params" for what lies in that folder alone; "" for all.

    Returns:
      False where there is no manifest, so that nothing could be compared.

    Raises:
      SchemaError: a file is missing, longer or shorter, or has other bytes, or the manifest itself
        is damaged; the message names the file.
    """
    if not is_for(step_folder) or not (step_folder / NAME).exists():
        return False
    entries = [e for e in _read(step_folder / NAME) if e["file"].startswith(part and f"{part}/")]
    if not entries:
        raise SchemaError(f"'{step_folder / NAME}': expected files of '{part}', it lists none")
    # Sizes first, for that is quick: what is missing or cut needs no hash.
    for entry in entries:
        _check_size(step_folder / entry["file"], entry["bytes"])
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        # A list, so that what a thread raised comes out here.
        list(threads.map(lambda e: folders.check_hash(step_folder / e["file"], e), entries))
    return True


def _check_size(path: epath.Path, size: int) -> None:
    if path.exists() and path.stat().length != size:
        raise SchemaError(
            f"'{path}': expected {size} bytes, got {path.stat().length}: the file was changed or "
            "cut after it was written"
        )


def _read(path: epath.Path) -> list[dict[str, Any]]:
    content = folders.parse_json(path.read_bytes(), f"'{path}'")
    folders.check_keys(content, ("version", "files"), f"'{path}'")
    if content["version"] != _VERSION or not isinstance(content["files"], list):
        raise SchemaError(
            f"'{path}': expected version {_VERSION} and a list of files, got version "
            f"{content['version']!r} and {type(content['files']).__name__}"
        )
    for number, entry in enumerate(content["files"]):
        folders.check_keys(entry, ("file", "bytes", "sha256"), f"'{path}': entry {number}")
        if not isinstance(entry["file"], str) or not isinstance(entry["sha256"], str):
            raise SchemaError(f"'{path}': entry {number}: expected texts, got {entry}")
    return content["files"]
