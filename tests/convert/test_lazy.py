"""Pieces, dtypes and errors of remote folders."""

import jax
import ml_dtypes
import numpy as np
import pytest

from specialize_jax import convert
from specialize_jax.convert import lazy, remote


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 2, 4), (1, 2, 3, 4), (2, 1, 1)])
def test_pieces_cover_an_array_once(shape):
    count = np.zeros(shape, int)
    sizes = []
    for index in lazy.pieces(shape):
        count[index] += 1
        sizes.append(count[index].size)
    assert (count == 1).all()
    assert len(sizes) == (shape[0] if len(shape) > 2 else 1)


def test_one_piece_is_in_memory_at_a_time():
    asked = []

    def read(path, index):
        asked.append((path, index[0]))
        return np.ones([part.stop - part.start for part in index], np.float32)

    shapes = {
        "a/layers/kernel": jax.ShapeDtypeStruct((3, 2, 2), np.dtype("float32")),
        "b": jax.ShapeDtypeStruct((4, 2), np.dtype("float32")),
    }
    loaded = lazy.Lazy(shapes, read).load()
    assert loaded["a"]["layers"]["kernel"].shape == (3, 2, 2)
    assert asked == [("a/layers/kernel", slice(n, n + 1)) for n in range(3)] + [("b", slice(0, 4))]


def test_float16_is_never_used():
    with pytest.raises(ValueError, match="float32, bfloat16, got float16: T5's activations"):
        convert.check_dtype("float16")
    with pytest.raises(ValueError, match="one of float32, bfloat16, got float64"):
        convert.check_dtype(np.float64)
    with pytest.raises(ValueError, match="one of float32, bfloat16, got 'floaty'"):
        convert.check_dtype("floaty")
    assert convert.check_dtype("bfloat16") == ml_dtypes.bfloat16
    stored = lazy.of_params({"a": np.ones(3, np.float16)})
    with pytest.raises(ValueError, match="stored as float16, .* give a dtype"):
        stored.astype(None)
    assert stored.astype("float32").load()["a"].dtype == np.float32


class _StorageError(Exception):
    pass


def _fail(*_):
    raise _StorageError("401: anonymous caller\nmore lines")


def test_remote_errors_say_how_credentials_are_given():
    with pytest.raises(OSError) as caught, remote.explained("gs://bucket/folder"):
        _fail()
    message = str(caught.value)
    assert "Cannot use gs://bucket/folder: _StorageError: 401: anonymous caller." in message
    assert "gcloud auth application-default login" in message
    assert "GOOGLE_APPLICATION_CREDENTIALS" in message
    # tensorstore says it with a ValueError.
    with pytest.raises(remote.RemoteError, match="GOOGLE"), remote.explained("gs://bucket/folder"):
        raise ValueError('PERMISSION_DENIED: Error opening "zarr" driver')


def test_other_errors_pass_as_they_are():
    with pytest.raises(ValueError, match="^shape$"), remote.explained("gs://bucket/folder"):
        raise ValueError("shape")
    with pytest.raises(_StorageError), remote.explained("/local/folder"):
        _fail()
    inner = remote.RemoteError("said once")
    with pytest.raises(OSError, match="^said once$"), remote.explained("gs://bucket/folder"):
        raise inner


def test_loading_from_a_closed_bucket_is_explained(monkeypatch):
    monkeypatch.setattr("etils.epath.gpath._GPath.exists", _fail)
    for load in (convert.load_hf, convert.load_t5x):
        with pytest.raises(OSError, match="Cannot use gs://bucket/model.*GOOGLE_APPLICATION"):
            load("gs://bucket/model")


def test_what_breaks_while_reading_is_explained():
    shapes = {"a": jax.ShapeDtypeStruct((3,), np.dtype("float32"))}
    params = remote.reading("gs://bucket/model", lazy.Lazy(shapes, _fail))
    with pytest.raises(OSError, match="Cannot use gs://bucket/model"):
        params.load()
