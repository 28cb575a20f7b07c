"""Specs from names and rules; what optimizer leaves get. Several devices: `multi_device.py`."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from specialize_jax import models
from specialize_jax.training import optimizers, partitioning, train_state

MESH = AbstractMesh((4, 2), ("data", "model"))
STANDARD, FULL = partitioning.STANDARD_RULES, partitioning.FULLY_SHARDED_RULES


@pytest.mark.parametrize(
    "shape, names, rules, expected",
    [
        ((8, 6), ("embed", "mlp"), STANDARD, (None, "model")),
        ((8, 6), ("embed", "mlp"), FULL, ("data", "model")),
        ((8, 7), ("embed", "mlp"), STANDARD, (None, None)),  # 2 does not divide 7
        ((6, 8), ("heads", "mlp"), STANDARD, ("model", None)),  # an axis is used once
        ((3, 8), ("layers", None), STANDARD, (None, None)),
        ((), (), STANDARD, ()),
    ],
)
def test_partition_spec(shape, names, rules, expected):
    spec = partitioning.partition_spec(shape, names, MESH, rules)
    assert spec == PartitionSpec(*expected)


@pytest.mark.parametrize("size", ["flan_t5_small", "t5_small", "gpt2_small"])
def test_every_student_s_parameters_have_a_rule(size):
    model = models.build(size)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    specs = jax.tree.map(
        lambda names, leaf: partitioning.partition_spec(leaf.shape, names, MESH, FULL),
        model.axes(),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    mlp = specs["decoder"]["layers"]["mlp"]
    assert mlp["wo"]["kernel"] == PartitionSpec(None, "model", "data")


def test_partition_spec_errors():
    with pytest.raises(ValueError, match="No rule for the logical axis 'width'.*batch, vocab"):
        partitioning.partition_spec((8,), ("width",), MESH, STANDARD)
    with pytest.raises(ValueError, match=r"a name for each dimension of \(8, 8\)"):
        partitioning.partition_spec((8, 8), ("mlp",), MESH, STANDARD)


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_optimizer_leaves_follow_their_parameter(name):
    axes = {"a": {"w": ("embed", "mlp")}, "w": ("mlp",), "layers": ("layers", "embed", "mlp")}
    shapes = {"a": {"w": (128, 256)}, "w": (8,), "layers": (2, 128, 256)}
    tx = optimizers.build(name, 1e-3)

    def create():
        params = jax.tree.map(np.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
        return train_state.create(jax.tree.map(np.float32, params), tx, seed=0)

    state = jax.eval_shape(create)
    shardings = partitioning.state_shardings(state, axes, MESH, FULL)
    found = {}
    for (path, leaf), sharding in zip(
        jax.tree.leaves_with_path(state), jax.tree.leaves(shardings), strict=True
    ):
        sharding.shard_shape(leaf.shape)  # raises where an axis does not divide
        found[jax.tree_util.keystr(path, simple=True, separator="/").split("/", 1)[-1]] = tuple(
            sharding.spec
        )
    assert found["layers"] == (None, "data", "model")
    assert found["a/w"] == ("data", "model")
    if name == "adamw":
        assert found["0/mu/a/w"] == found["0/nu/a/w"] == ("data", "model")
        assert found["0/mu/w"] == ("model",)
    else:
        assert found["0/v_row/a/w"] == ("data",)  # the mean over columns is left by row
        assert found["0/v_col/a/w"] == ("model",)
        assert found["0/v_row/layers"] == (None, "data")
        assert found["0/v/w"] == ("model",)
        assert found["0/v/a/w"] == ()


def test_model_axis_has_to_divide_the_devices():
    assert partitioning.make_mesh().axis_names == ("data", "model")
    with pytest.raises(ValueError, match="Expected model to divide .* got model=3"):
        partitioning.make_mesh(model=3, devices=jax.devices()[:1])


def test_batches_are_placed_on_the_mesh():
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    batch = partitioning.shard_batch({"x": np.arange(4)}, mesh)
    assert batch["x"].sharding == partitioning.batch_sharding(mesh)
    np.testing.assert_array_equal(batch["x"], np.arange(4))
