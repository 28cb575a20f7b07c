"""Specs from names and rules; what optimizer leaves get. Several devices: `multi_device.py`."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from specialize_jax import models
from specialize_jax.training import optimizers, partitioning, train_state

MESH = AbstractMesh((2, 4, 2), partitioning.AXES)
RULES = partitioning.STANDARD_RULES


@pytest.mark.parametrize(
    "shape, names, expected",
    [
        ((8, 6), ("embed", "mlp"), ("fsdp", "model")),
        ((8, 7), ("embed", "mlp"), ("fsdp", None)),  # 2 does not divide 7
        ((6, 6), ("embed", "mlp"), (None, "model")),  # 4 does not divide 6
        ((6, 8), ("heads", "mlp"), ("model", None)),  # an axis is used once
        ((3, 8), ("layers", None), (None, None)),
        ((), (), ()),
    ],
)
def test_partition_spec(shape, names, expected):
    spec = partitioning.partition_spec(shape, names, MESH, RULES)
    assert spec == PartitionSpec(*expected)


def test_rules_can_be_given():
    rules = [("embed", "data"), ("mlp", None)]
    spec = partitioning.partition_spec((8, 6), ("embed", "mlp"), MESH, rules)
    assert spec == PartitionSpec("data", None)


@pytest.mark.parametrize("size", ["flan_t5_small", "t5_small", "gpt2_small"])
def test_every_student_s_parameters_have_a_rule(size):
    model = models.build(size)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    specs = jax.tree.map(
        lambda names, leaf: partitioning.partition_spec(leaf.shape, names, MESH, RULES),
        model.axes(),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    mlp = specs["decoder"]["layers"]["mlp"]
    assert mlp["wo"]["kernel"] == PartitionSpec(None, "model", "fsdp")


def test_partition_spec_errors():
    with pytest.raises(ValueError, match="No rule for the logical axis 'width'.*vocab, mlp"):
        partitioning.partition_spec((8,), ("width",), MESH, RULES)
    with pytest.raises(ValueError, match=r"a name for each dimension of \(8, 8\)"):
        partitioning.partition_spec((8, 8), ("mlp",), MESH, RULES)


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_optimizer_leaves_follow_their_parameter(name):
    axes = {
        "a": {"w": ("embed", "mlp")},
        "w": ("mlp",),
        "deep": ("layers", "embed", "mlp"),
        "square": ("layers", "joined_kv", "embed"),
    }
    shapes = {"a": {"w": (128, 256)}, "w": (8,), "deep": (2, 128, 256), "square": (3, 128, 128)}
    tx = optimizers.build(name, 1e-3, axes=axes)

    def create():
        params = jax.tree.map(np.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
        return train_state.create(jax.tree.map(np.float32, params), tx, seed=0)

    state = jax.eval_shape(create)
    shardings = partitioning.state_shardings(state, axes, MESH)
    found = {}
    for (path, leaf), sharding in zip(
        jax.tree.leaves_with_path(state), jax.tree.leaves(shardings), strict=True
    ):
        sharding.shard_shape(leaf.shape)  # raises where an axis does not divide
        found[jax.tree_util.keystr(path, simple=True, separator="/").split("/", 1)[-1]] = tuple(
            sharding.spec
        )
    assert found["deep"] == (None, "fsdp", "model")
    assert found["square"] == (None, "model", "fsdp")
    assert found["a/w"] == ("fsdp", "model")
    if name == "adamw":
        assert found["0/mu/a/w"] == found["0/nu/a/w"] == ("fsdp", "model")
        assert found["0/mu/w"] == ("model",)
    else:
        assert found["0/v_row/a/w"] == ("fsdp",)  # the mean over columns is left by row
        assert found["0/v_col/a/w"] == ("model",)
        assert found["0/v_row/deep"] == (None, "fsdp")
        # Both have the shape (3, 128): the first is what the mean over the last axis leaves.
        assert found["0/v_row/square"] == (None, "model")
        assert found["0/v_col/square"] == (None, "fsdp")
        assert found["0/v/w"] == ("model",)
        assert found["0/v/a/w"] == (None,)


def test_a_mesh_larger_than_the_devices_names_what_fits():
    assert partitioning.make_mesh().axis_names == partitioning.AXES
    with pytest.raises(ValueError, match="divide the 1 devices .* got 1 x 3 = 3; .* one of 1"):
        partitioning.make_mesh(model=3, devices=jax.devices()[:1])


class _Device:
    """Stands for a device of a slice."""

    platform = "cpu"

    def __init__(self, number, slice_index):
        self.id, self.slice_index = number, slice_index


def test_slices_are_joined_along_data_alone():
    devices = [_Device(number, number % 2) for number in range(16)]
    mesh = partitioning.make_mesh(fsdp=4, model=2, devices=devices)
    assert mesh.devices.shape == (2, 4, 2)
    assert [{d.slice_index for d in part.flat} for part in mesh.devices] == [{0}, {1}]
    with pytest.raises(ValueError, match=r"8 devices of each of 2 slice.* 8 x 2 = 16; 8 x model"):
        partitioning.make_mesh(fsdp=8, model=2, devices=devices)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"batch_rows": 12}, r"12 rows does not divide over 8 shards \(data 2 x fsdp 4\).*: 8, 16"),
        ({"batch_rows": 6}, "the nearest that do: 8"),
        ({"batch_rows": 24, "microbatches": 2}, "in 2 microbatch.*: 16, 32"),
        ({"heads": 5}, "5 attention heads do not divide over a model axis of 2; choices: 1, 5"),
    ],
)
def test_what_does_not_divide_is_named_with_the_nearest_that_does(sizes, message):
    usual = {"batch_rows": 16, "microbatches": 1, "heads": 6}
    partitioning.check_divides(MESH, **usual)
    with pytest.raises(ValueError, match=message):
        partitioning.check_divides(MESH, **(usual | sizes))


def test_batches_are_placed_on_the_mesh():
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    batch = partitioning.shard_batch({"x": np.arange(4)}, mesh)
    assert batch["x"].sharding == partitioning.batch_sharding(mesh)
    np.testing.assert_array_equal(batch["x"], np.arange(4))
