"""Which device holds what: a mesh, logical axis rules, and the shardings they give.

The mesh has two axes. Batches are split along `data`, and parameters along `model` (and, with
`FULLY_SHARDED_RULES`, along `data` too). A model names the dimensions of its parameters; rules
send names to mesh axes. Everything here also holds on one device, with a mesh of 1 x 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax.training.train_state import TrainState

Rules = Sequence[tuple[str, str | None]]
"""(logical name, mesh axis or None for "not split") pairs."""

STANDARD_RULES: Rules = (
    ("batch", "data"),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("embed", None),
    ("kv", None),
    ("layers", None),
    ("length", None),
    ("relpos_buckets", None),
    ("abspos_buckets", None),
)
"""Parameters are whole on every row of `data`; the names are t5x's."""

FULLY_SHARDED_RULES: Rules = tuple(
    (name, "data" if name == "embed" else axis) for name, axis in STANDARD_RULES
)
"""Parameters and optimizer state are split along both axes (FSDP, t5x's "2D"), gathered as used."""


def make_mesh(*, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh ("data", "model") over all devices of all hosts.

    Args:
      model: devices that share one copy of the parameters' `model` dimensions.
      devices: which devices; None for all.

    Returns:
      The mesh, of shape (devices / model, model). Its axes are Auto: the compiler propagates.

    Raises:
      ValueError: `model` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if model < 1 or len(devices) % model:
        raise ValueError(f"Expected model to divide {len(devices)} devices, got model={model}.")
    return Mesh(np.asarray(devices).reshape(-1, model), ("data", "model"))


def partition_spec(
    shape: Sequence[int], names: Sequence[str | None], mesh: Mesh, rules: Rules
) -> PartitionSpec:
    """The dimensions of one array to mesh axes.

    A dimension stays whole where its rule says so, where an earlier dimension has taken the mesh
    axis, or where the axis does not divide its size.

    Args:
      shape: of the array.
      names: the logical name of each dimension; None for "not split".
      mesh: the mesh.
      rules: see `Rules`.

    Returns:
      The spec, one entry a dimension.

    Raises:
      ValueError: names and shape differ in length, or a name has no rule.
    """
    if len(names) != len(shape):
        raise ValueError(f"Expected a name for each dimension of {tuple(shape)}, got {names}.")
    axis_of: Mapping[str, str | None] = dict(rules)
    spec: list[str | None] = []
    for size, name in zip(shape, names, strict=True):
        if name is not None and name not in axis_of:
            known = ", ".join(axis_of)
            raise ValueError(f"No rule for the logical axis {name!r}; the rules know: {known}.")
        axis = None if name is None else axis_of[name]
        if axis in spec or (axis is not None and size % mesh.shape[axis]):
            axis = None
        spec.append(axis)
    return PartitionSpec(*spec)


def state_shardings(
    state: TrainState, axes: Any, mesh: Mesh, rules: Rules = STANDARD_RULES
) -> TrainState:
    """Where every leaf of the state lies.

    Optimizer leaves follow the parameter whose path ends theirs: of the same shape, its spec; of
    the shape less one dimension (Adafactor's row and column moments), the spec less that entry;
    anything else (counters) is whole on every device.

    Args:
      state: shapes, as `jax.eval_shape(lambda: train_state.create(...))` gives them.
      axes: the tree of the params with a tuple of logical names per leaf.
      mesh: the mesh.
      rules: see `Rules`.

    Returns:
      The state with a NamedSharding in place of every leaf.
    """
    specs = jax.tree.map(
        lambda names, leaf: partition_spec(leaf.shape, names, mesh, rules),
        axes,
        state.params,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    known = {
        _names(path): (leaf.shape, spec)
        for (path, leaf), spec in zip(
            jax.tree.leaves_with_path(state.params),
            jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, PartitionSpec)),
            strict=True,
        )
    }

    def follow(path: Any, leaf: Any) -> PartitionSpec:
        names = _names(path)
        for start in range(len(names)):
            if names[start:] in known:
                return _reduced_spec(leaf.shape, *known[names[start:]])
        return PartitionSpec()

    whole = PartitionSpec()
    placed = TrainState(
        step=whole,
        params=specs,
        opt_state=jax.tree.map_with_path(follow, state.opt_state),
        rng=whole,
    )
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        placed,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def _names(path: Any) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _reduced_spec(shape: Sequence[int], whole: Sequence[int], spec: PartitionSpec) -> PartitionSpec:
    """The spec of an array that is a parameter, or a parameter reduced over one dimension."""
    if tuple(shape) == tuple(whole):
        return spec
    for axis in range(len(whole)):
        if tuple(shape) == (*whole[:axis], *whole[axis + 1 :]):
            return PartitionSpec(*spec[:axis], *spec[axis + 1 :])
    return PartitionSpec()


def with_shardings(state: TrainState, shardings: TrainState) -> TrainState:
    """Shapes and shardings joined: what a checkpoint is restored like."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch along `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's rows to their devices.

    Args:
      batch: name -> [rows, ...]; this host's share of the global batch, in order of hosts.
      mesh: the mesh.

    Returns:
      Global arrays, split along `data`.

    Raises:
      ValueError: the rows of a field cannot be split evenly.
    """
    sharding = batch_sharding(mesh)
    shards = mesh.shape["data"]
    placed = {}
    for name, rows in batch.items():
        if len(rows) * jax.process_count() % shards:
            raise ValueError(
                f"Expected a batch that {shards} data shards divide, got {name} with {len(rows)} "
                f"rows on each of {jax.process_count()} hosts."
            )
        placed[name] = jax.make_array_from_process_local_data(sharding, np.asarray(rows))
    return placed
