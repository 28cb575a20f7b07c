"""Parts of a remote folder, copied once to this machine and kept.

ArrayRecord reads at random, which a bucket is slow at, and writes to this machine alone. A copy is
named by the SHA-256 that the info file vouches for and is checked when it is made, so it serves
every run on the same rows.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from specialize_jax.schemas import SchemaError, folders

VARIABLE = "SPECIALIZE_JAX_CACHE"
_BLOCK = 1 << 24


def checked(folder: epath.PathLike, entry: dict[str, Any]) -> epath.Path:
    """Returns where a part can be read on this machine; its hash has been compared.

    Args:
      folder: local, or of a bucket: then the part is copied, unless a copy is there.
      entry: of the part, in the info file.

    Raises:
      SchemaError: the part is missing or changed, or there is no room for the copy.
    """
    path = epath.Path(folder) / entry["file"]
    if not folders.is_remote(path):
        folders.check_hash(path, entry)
        return path
    copy = cache_folder(os.environ) / entry["sha256"]
    # What is there was checked when it got its name; disks that change files are not looked for.
    if not copy.exists():
        _copy(path, copy, entry)
    return epath.Path(copy)


@contextlib.contextmanager
def written(path: epath.Path) -> Iterator[epath.Path]:
    """Gives a path on this machine to write to; afterwards the whole file is at `path`.

    What is written when an exception leaves it is removed.
    """
    with contextlib.ExitStack() as stack:
        folder = path.parent
        if folders.is_remote(path):
            folder = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        temporary = folder / f".{path.name}.tmp"
        try:
            yield temporary
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if folders.is_remote(path):
            with temporary.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
        else:
            temporary.replace(path)


def cache_folder(environ: Mapping[str, str]) -> pathlib.Path:
    """Returns where copies lie: SPECIALIZE_JAX_CACHE, or a folder in the user's cache."""
    if given := environ.get(VARIABLE):
        return pathlib.Path(given).expanduser()
    return pathlib.Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "specialize_jax"


def _copy(path: epath.Path, copy: pathlib.Path, entry: dict[str, Any]) -> None:
    if not path.exists():
        raise SchemaError(f"'{path.parent}': part '{path.name}' is missing")
    # Processes that share a machine may copy at the same time; the last rename wins.
    temporary = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}.tmp")
    size = path.stat().length
    digest = hashlib.sha256()
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, temporary.open("wb") as target:
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
        if digest.hexdigest() != entry["sha256"]:
            raise folders.hash_mismatch(path, entry, digest.hexdigest())
        temporary.replace(copy)
    except OSError as error:
        existing = next(p for p in (copy.parent, *copy.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        raise SchemaError(
            f"cannot copy '{path}' ({size / 1e9:.1f} GB) to '{copy.parent}', which has "
            f"{free / 1e9:.1f} GB free: {error}; {VARIABLE} names another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
