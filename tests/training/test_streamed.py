"""Checkpoints of parameters alone: in pieces, and as good as those of training."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest

from specialize_jax.training import checkpoints, streamed

PARAMS = {
    "a/layers/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 5,
    "a/norm": np.zeros(4, np.float32),  # zeros are stored, too
    "b": np.linspace(0, 1, 6).astype(ml_dtypes.bfloat16),
}
SHAPES = {path: jax.ShapeDtypeStruct(a.shape, a.dtype) for path, a in PARAMS.items()}
NESTED = {
    "a": {"layers": {"kernel": PARAMS["a/layers/kernel"]}, "norm": PARAMS["a/norm"]},
    "b": PARAMS["b"],
}
CONFIG = {"model": {"d": 4}}


def _pieces(shape):
    rest = [slice(0, size) for size in shape[1:]]
    return [(slice(number, number + 1), *rest) for number in range(shape[0])]


def _read(path, index):
    return PARAMS[path][index]


def _write(folder, **changes):
    settings = {"shapes": SHAPES, "read": _read, "pieces": _pieces, "config": CONFIG} | changes
    streamed.write_params(folder, 3, **settings)


def test_is_restored_as_one_of_training(tmp_path):
    asked = []

    def read(path, index):
        asked.append((path, index[0].start))
        return _read(path, index)

    _write(tmp_path / "c", read=read)
    assert sorted(asked) == [(path, n) for path in sorted(PARAMS) for n in range(len(PARAMS[path]))]
    assert checkpoints.all_steps(tmp_path / "c") == [3]
    assert checkpoints.read_config(tmp_path / "c") == CONFIG
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), NESTED)
    found = checkpoints.restore_params(tmp_path / "c", 3, like)
    jax.tree.map(np.testing.assert_array_equal, found, NESTED)
    # Training asks for float32, whatever is stored.
    wide = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), like)
    found = checkpoints.restore_params(tmp_path / "c", 3, wide)
    assert found["b"].dtype == np.float32
    np.testing.assert_array_equal(found["b"], PARAMS["b"].astype(np.float32))
    with pytest.raises(checkpoints.CheckpointError, match="of another model"):
        checkpoints.restore_params(tmp_path / "c", 3, {"b": like["b"]})


@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "in one"])
def test_is_read_in_parts(tmp_path, whole):
    pieces = {"pieces": lambda shape: [tuple(slice(0, n) for n in shape)]} if whole else {}
    _write(tmp_path, **pieces)
    shapes, read = streamed.open_params(tmp_path, 3)
    assert {k: (s.shape, s.dtype) for k, s in shapes.items()} == {
        k: (s.shape, s.dtype) for k, s in SHAPES.items()
    }
    for path, array in PARAMS.items():
        for index in [(), (slice(0, 1),), (slice(1, 2), *[slice(1, 3)] * (array.ndim - 1))]:
            np.testing.assert_array_equal(read(path, index), array[index])


def test_a_checkpoint_of_training_is_read_in_parts(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path, item_names=("params",)) as manager:
        manager.save(1, args=ocp.args.Composite(params=ocp.args.StandardSave(NESTED)))
    shapes, read = streamed.open_params(tmp_path, 1)
    assert shapes.keys() == PARAMS.keys()
    np.testing.assert_array_equal(
        read("a/layers/kernel", (slice(1, 2), slice(0, 3), slice(2, 4))),
        PARAMS["a/layers/kernel"][1:2, :, 2:4],
    )


def test_other_checkpoints_are_not_overwritten(tmp_path):
    _write(tmp_path)
    with pytest.raises(checkpoints.CheckpointError, match=r"holds checkpoints already: \[3\]"):
        _write(tmp_path)


def test_what_is_unfinished_is_no_checkpoint(tmp_path):
    def read(path, index):
        if path == "b":
            raise ValueError("the source was cut")
        return _read(path, index)

    with pytest.raises(ValueError, match="the source was cut"):
        _write(tmp_path, read=read)
    assert checkpoints.all_steps(tmp_path) == []
    with pytest.raises(checkpoints.CheckpointError, match="holds no checkpoints"):
        checkpoints.read_config(tmp_path)


def test_damage_is_named(tmp_path):
    _write(tmp_path)
    with pytest.raises(checkpoints.CheckpointError, match=r"No checkpoint of step 4 .* has \[3\]"):
        streamed.open_params(tmp_path, 4)
    shapes, read = streamed.open_params(tmp_path, 3)
    assert shapes
    for path in (tmp_path / "3" / "params").rglob("d/*"):
        path.unlink()
    with pytest.raises(checkpoints.CheckpointError, match="cannot be read; expected a complete"):
        read("b", ())
    (tmp_path / "3" / "params" / "_METADATA").write_text(json.dumps({}))
    with pytest.raises(checkpoints.CheckpointError, match="cannot be read; expected a complete"):
        streamed.open_params(tmp_path, 3)
