"""Errors of remote folders, said so that a person knows what to do."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from specialize_jax.convert.lazy import Index, Lazy


class RemoteError(OSError):
    """A remote folder cannot be used; the message says what to do."""


_KNOWN = (RemoteError, ValueError, TypeError, FileNotFoundError, FileExistsError)


@contextlib.contextmanager
def explained(path: Any) -> Iterator[None]:
    """Turns what a storage library raises about a `gs://` path into an error that explains it.

    The libraries (TensorFlow, gcsfs, tensorstore) have exceptions of their own for a network that
    is not there, credentials that are missing, and buckets that are closed.

    Args:
      path: the folder; where it is local, errors pass as they are.

    Raises:
      RemoteError: naming the path, the reason, and how credentials are given.
    """
    try:
        yield
    except _KNOWN as error:
        if not _is_remote(path) or not _is_of_storage(error):
            raise
        raise _explanation(path, error) from error
    except Exception as error:
        if not _is_remote(path):
            raise
        raise _explanation(path, error) from error


def reading(path: Any, params: Lazy) -> Lazy:
    """The same parameters; what goes wrong when they are read is `explained`."""

    def read(name: str, index: Index) -> np.ndarray:
        with explained(path):
            return params.read(name, index)

    return Lazy(params.shapes, read)


def _is_remote(path: Any) -> bool:
    return "://" in str(path)


def _is_of_storage(error: Exception) -> bool:
    """Tensorstore says with a ValueError that credentials or network are missing."""
    return any(word in str(error) for word in ("HTTP", "PERMISSION_DENIED", "UNAUTHENTICATED"))


def _explanation(path: Any, error: Exception) -> RemoteError:
    reason = (str(error).splitlines() or [""])[0][:300]
    return RemoteError(
        f"Cannot use {path}: {type(error).__name__}: {reason}. A bucket needs the network and, "
        "unless it is public, Google Cloud credentials: `gcloud auth application-default login`, "
        "or GOOGLE_APPLICATION_CREDENTIALS with the path of a key file."
    )
