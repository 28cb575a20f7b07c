"""Folders on a disk, and a disk that is full or cannot be written any more, said in words."""

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator

import jax
from etils import epath

from specialize_jax.schemas import SchemaError, folders


class CheckpointError(OSError):
    """What a run leaves cannot be written, or holds nothing that can be restored."""


# What the system says, and what it means. Tensorstore passes on the words alone.
_REASONS = {
    errno.ENOSPC: ("No space left on device", "the disk is full"),
    errno.EDQUOT: ("Disk quota exceeded", "the quota is used up"),
    errno.EROFS: ("Read-only file system", "the disk cannot be written any more"),
    errno.EFBIG: ("File too large", "files may not grow so large (ulimit -f?)"),
}


@contextlib.contextmanager
def writing(what: str, path: epath.PathLike, *, needed: int | None = None) -> Iterator[None]:
    """What fails inside is raised as one error that says what could not be written, and why.

    Args:
      what: is written, as "the checkpoint of step 8".
      path: where to.
      needed: bytes of the values in it, uncompressed, where known.

    Raises:
      CheckpointError: instead of any other exception. One from inside passes as it is.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # tensorstore and Orbax raise what they like
        said = reason(error)
        size = "" if needed is None else f"; it has {needed:,} bytes of values"
        free = "" if said is None else f"; {_free(path)} are free there"
        why = said or f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        raise CheckpointError(
            f"Cannot write {what} to {path}: {why}{size}{free}. What was complete before is kept: "
            "mend this, and the same command goes on from there."
        ) from error


def reason(error: BaseException | None) -> str | None:
    """What is wrong with the disk, if that is why an error or one before it was raised."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for number, (words, meaning) in _REASONS.items():
            if getattr(error, "errno", None) == number or words in str(error):
                return f"{meaning} ({words})"
        error = error.__cause__ or error.__context__
    return None


def _free(path: epath.PathLike) -> str:
    try:
        return f"{shutil.disk_usage(path).free:,} bytes"
    except OSError:  # in a bucket, or not there
        return "an unknown number of bytes"


def absolute(folder: epath.PathLike) -> epath.Path:
    """The folder from the root; a relative one is taken from the working folder."""
    folder = epath.Path(folder)
    return folder if folders.is_remote(folder) else folder.expanduser().absolute()


def prepare(folder: epath.PathLike) -> epath.Path:
    """Makes the folder, and finds out now, not at the first save, whether it can be written.

    Args:
      folder: of checkpoints; a relative path is taken from the working folder.

    Returns:
      Its absolute path.

    Raises:
      CheckpointError: it cannot be written.
    """
    folder = absolute(folder)
    if jax.process_index() == 0:
        try:
            folders.make_folder(folder)
        except SchemaError as error:
            raise CheckpointError(f"Cannot write checkpoints to {folder}: {error}") from error
    return folder


def remove(path: epath.Path) -> None:
    """Removes a folder that others may still be writing to; if it stays, the next run does."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)
