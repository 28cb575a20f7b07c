"""Which device holds what: a mesh, logical axis rules, and the shardings they give.

The mesh has three axes. Rows of a batch are split along `data` and `fsdp` together. Parameters and
optimizer state are split along `model` (tensor parallelism) and along `fsdp` (fully sharded: each
is gathered where it is used), and repeated along `data`. Several slices of a pod are joined along
`data`, over which only gradients travel. A model names the dimensions of its parameters and
activations; rules send names to mesh axes. Everything here also holds on one device, with a mesh of
1 x 1 x 1.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax.training import layers
from specialize_jax.training.train_state import TrainState

Tree = TypeVar("Tree")

AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")

Rules = Sequence[tuple[str, str | None]]
"""(logical name, mesh axis or None for "not split") pairs."""

STANDARD_RULES: Rules = (
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("embed", "fsdp"),
    ("kv", None),
    ("layers", None),
    ("length", None),
    ("relpos_buckets", None),
    ("abspos_buckets", None),
)
"""Of parameters and optimizer state; the names are t5x's."""


ACTIVATION_RULES = {
    "batch": BATCH_AXES,
    "length": None,
    "activation_embed": None,
    "heads": "model",
    "kv": None,
}
"""Of activations: rows where the batch lies, heads where their parameters are."""


def make_mesh(
    *, fsdp: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh ("data", "fsdp", "model") over all devices of all hosts.

    Devices that share a copy of the parameters (`fsdp` times `model` of them) belong to one slice;
    within a slice the order of TPU devices follows their wiring where JAX knows a way.

    Args:
      fsdp: parts that parameters are split into, each gathered where it is used.
      model: parts that each matrix product is split into.
      devices: which devices; None for all.

    Returns:
      The mesh. Its axes are Auto: the compiler propagates.

    Raises:
      ValueError: `fsdp` times `model` does not divide the devices of a slice.
    """
    devices = jax.devices() if devices is None else devices
    by_slice = sorted(devices, key=_slice_of)
    slices = [list(group) for _, group in itertools.groupby(by_slice, key=_slice_of)]
    each = len(devices) // len(slices)
    if min(fsdp, model) < 1 or each % (fsdp * model) or any(len(s) != each for s in slices):
        choices = [n for n in _divisors(each) if fsdp >= 1 and n % fsdp == 0]
        raise ValueError(
            f"Expected fsdp times model to divide the {each} devices of each of {len(slices)} "
            f"slice(s), got {fsdp} x {model} = {fsdp * model}; {fsdp if choices else 'fsdp'} x "
            f"model may be one of {', '.join(map(str, choices or _divisors(each)))}."
        )
    shape = (each // (fsdp * model), fsdp, model)
    return Mesh(np.concatenate([_ordered(part, shape) for part in slices]), AXES)


def _slice_of(device: jax.Device) -> int:
    return getattr(device, "slice_index", None) or 0


def _ordered(devices: Sequence[jax.Device], shape: tuple[int, ...]) -> np.ndarray:
    if devices[0].platform == "tpu":
        try:
            return mesh_utils.create_device_mesh(shape, devices)
        except (NotImplementedError, ValueError, AssertionError):
            pass  # a shape that the wiring does not have: any order is right, if not the fastest
    return np.asarray(devices).reshape(shape)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def batch_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_divides(mesh: Mesh, *, batch_rows: int, microbatches: int, heads: int) -> None:
    """Checks that a batch and a model can be split over a mesh.

    Args:
      mesh: the mesh.
      batch_rows: of the global batch.
      microbatches: parts that are worked one after the other.
      heads: attention heads of the model.

    Raises:
      ValueError: they cannot; the nearest choices that can are named.
    """
    if min(batch_rows, microbatches) < 1:
        raise ValueError(
            f"Expected at least one row in at least one microbatch, got {batch_rows} row(s) in "
            f"{microbatches}."
        )
    shards, model = batch_shards(mesh), mesh.shape["model"]
    step = shards * microbatches
    if batch_rows % step:
        below = batch_rows // step * step
        nearest = [str(rows) for rows in (below, below + step) if rows]
        raise ValueError(
            f"A batch of {batch_rows} rows does not divide over {shards} shards (data "
            f"{mesh.shape['data']} x fsdp {mesh.shape['fsdp']}) in {microbatches} microbatch(es); "
            f"the nearest that do: {', '.join(nearest)}."
        )
    if heads % model:
        raise ValueError(
            f"{heads} attention heads do not divide over a model axis of {model}; choices: "
            f"{', '.join(map(str, _divisors(heads)))}."
        )


def check_rules(rules: Rules, axes: Any, mesh: Mesh) -> None:
    """Checks logical axis rules as a user writes them.

    Args:
      rules: see `Rules`.
      axes: the tree of the params with a tuple of logical names per leaf.
      mesh: the mesh.

    Raises:
      ValueError: one is no such pair, or names an axis that the model or the mesh does not have,
        or an axis of the model has none; the message lists the choices.
    """
    where = "logical axis rules"
    for rule in rules:
        if not isinstance(rule, (list, tuple)) or len(rule) != 2 or not isinstance(rule[0], str):
            raise ValueError(f"{where}: expected pairs as ('embed', 'fsdp'), got {rule!r}.")
    leaves = jax.tree.leaves(axes, is_leaf=lambda node: isinstance(node, tuple))
    own = {name for names in leaves for name in names if name is not None}
    known = own | {name for name, _ in STANDARD_RULES}
    if unknown := sorted({name for name, _ in rules} - known):
        raise ValueError(
            f"{where}: unknown logical axis {', '.join(unknown)}; choices: "
            f"{', '.join(sorted(known))}."
        )
    for name, axis in rules:
        if axis is not None and axis not in mesh.axis_names:
            raise ValueError(
                f"{where}: '{name}' goes to unknown mesh axis {axis!r}; choices: None, "
                f"{', '.join(map(repr, mesh.axis_names))}."
            )
    if missing := sorted(own - {name for name, _ in rules}):
        raise ValueError(
            f"{where}: no rule for {', '.join(missing)} of this model; each needs one, "
            f"('{missing[0]}', None) for \"not split\"."
        )


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


def param_shardings(params: Any, axes: Any, mesh: Mesh, rules: Rules = STANDARD_RULES) -> Any:
    """Where every parameter lies; see `state_shardings`."""

    def placed(leaf: Any, names: tuple[str | None, ...]) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(leaf.shape, names, mesh, rules))

    return jax.tree.map(placed, params, axes)


def state_shardings(
    state: TrainState, axes: Any, mesh: Mesh, rules: Rules = STANDARD_RULES
) -> TrainState:
    """Where every leaf of the state lies.

    Optimizer leaves lie as the parameter that they follow, see `layers.state_axes`; counters are
    whole on every device.

    Args:
      state: shapes, as `jax.eval_shape(lambda: train_state.create(...))` gives them.
      axes: the tree of the params with a tuple of logical names per leaf.
      mesh: the mesh.
      rules: see `Rules`.

    Returns:
      The state with a NamedSharding in place of every leaf.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    opt_axes = layers.state_axes(state.opt_state, state.params, axes)
    return TrainState(
        step=whole,
        params=param_shardings(state.params, axes, mesh, rules),
        opt_state=param_shardings(state.opt_state, opt_axes, mesh, rules),
        rng=whole,
    )


def with_shardings(state: Tree, shardings: Tree) -> Tree:
    """Shapes and shardings joined: what a checkpoint, or its parameters, are restored like."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch along `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


@functools.lru_cache(maxsize=16)  # asked for every field of every batch
def local_rows(mesh: Mesh, batch_rows: int) -> np.ndarray:
    """Which rows of a global batch this host's devices hold.

    Hosts whose devices differ along `model` alone hold the same rows.

    Args:
      mesh: the mesh.
      batch_rows: of the global batch.

    Returns:
      [R] int64, ascending.
    """
    placed = batch_sharding(mesh).addressable_devices_indices_map((batch_rows,))
    return np.unique(np.concatenate([np.arange(batch_rows)[index] for index in placed.values()]))


def shard_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, *, batch_rows: int | None = None
) -> dict[str, jax.Array]:
    """This host's rows to their devices.

    Args:
      batch: name -> [rows, ...]; the rows of the global batch that `local_rows` names.
      mesh: the mesh.
      batch_rows: rows of the global batch; None where `batch` has all of them, on every host.

    Returns:
      Global arrays, split along the batch axes.

    Raises:
      ValueError: the rows cannot be split evenly, or are not as many as this host's devices hold.
    """
    sharding, shards = batch_sharding(mesh), batch_shards(mesh)
    placed = {}
    for name, value in batch.items():
        total = len(value) if batch_rows is None else batch_rows
        if total % shards:
            raise ValueError(f"Expected rows that {shards} shards divide, got {name} with {total}.")
        rows = np.arange(total) if batch_rows is None else local_rows(mesh, total)
        if len(value) != len(rows):
            raise ValueError(
                f"Expected {len(rows)} of {total} rows on this host, got {name} with {len(value)}."
            )
        placed[name] = _global_array(np.asarray(value), rows, total, sharding)
    return placed


def place(
    batch: Mapping[str, np.ndarray], mesh: Mesh | None, batch_rows: int | None = None
) -> dict[str, jax.Array]:
    """A batch on its devices; `shard_batch` where there is a mesh, else the default device.

    Explicitly, so that a guard against hidden transfers can be on.
    """
    if mesh is None:
        return jax.device_put(dict(batch))
    return shard_batch(batch, mesh, batch_rows=batch_rows)


def _global_array(
    value: np.ndarray, rows: np.ndarray, total: int, sharding: NamedSharding
) -> jax.Array:
    """`value[i]` is row `rows[i]` of `total`."""

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        first, last, _ = (index or (slice(None),))[0].indices(total)
        begin = int(np.searchsorted(rows, first))
        return value[begin : begin + last - first]

    # A transfer that is meant; JAX's guard against hidden ones does not see that by itself.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_callback((total, *value.shape[1:]), sharding, part)
