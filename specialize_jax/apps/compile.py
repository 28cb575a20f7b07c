"""`specialize-jax compile`: the real training step for a TPU slice, compiled without a TPU.

The compiler is the one that runs on the slice (libtpu, extra `tpu`); memory and what moves between
chips are its own figures. FLOPs are counted from shapes, and the time is an estimate: the largest
of what arithmetic, memory and links would take alone.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from specialize_jax import losses
from specialize_jax.apps import gin_setup, program, train
from specialize_jax.models import Model
from specialize_jax.schemas import batches
from specialize_jax.training import chips, hlo, partitioning

EPILOG = """\
example:
  specialize-jax compile --gin_file=experiments/flan_t5_xxl_gsm8k.gin --topology v5e:8x8 \\
      --gin.FSDP_PARTITIONS=16 --gin.MODEL_PARTITIONS=4 --gin.BATCH_SIZE=128"""

# What a run's settings do not say, or what no step depends on.
_NOT_READ = {"model_dir": "-", "packed_dir": None, "initial_checkpoint_path": None}
_OF_A_STEP = (
    *("train_steps", "objective", "optimizer", "learning_rate", "optimizer_settings"),
    *("schedule", "schedule_steps", "warmup_steps", "weight_decay", "clip"),
    *("microbatches", "loss_chunk", "logical_axis_rules", "seed"),
)
_GIB = 2**30
# On a ring of chips an array passes each chip's links this often; others once.
_PASSES = {"all-reduce": 2}


@dataclasses.dataclass(frozen=True)
class Found:
    """What the compiler says, and what follows.

    Attributes:
      chips: number of chips.
      seconds: of compiling.
      state_bytes: arguments of the step on a chip: state and batch.
      peak_bytes: most memory that a chip uses at a time.
      flops: of a step on all chips: forward and backward, nothing recomputed.
      traffic: kind of collective -> [count, bytes per chip] in a step.
      estimate: what arithmetic, memory and links would take alone, seconds.
    """

    chips: int
    seconds: float
    state_bytes: int
    peak_bytes: int
    flops: int
    traffic: dict[str, hlo.Traffic]
    estimate: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="a slice's chips, as v4:4x4x4, v5e:8x8, v5p:4x4x4, v6e:16x16",
    )
    parser.add_argument("--num_slices", type=int, default=1, help="slices of this topology")
    parser.add_argument(
        "--chip_config",
        default="default",
        help="'megacore' joins the two cores of a v4 chip, as training does",
    )
    parser.add_argument(
        "--lengths",
        metavar="INPUTS,TARGETS",
        help="of a row; left out, TASK_FEATURE_LENGTHS of the gin files",
    )
    parser.add_argument("--k_out", type=int, default=8, help="entries per target token")
    parser.add_argument("--json", metavar="FILE", help="also writes the numbers to this file")


def main(args: argparse.Namespace) -> int:
    """Compiles and prints; 1 where the program does not fit."""
    import gin

    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")  # libtpu only compiles
    gin_setup.configured(args, train.run, **_NOT_READ)
    settings = {**_defaults(), **gin.get_bindings(train.run)}
    lengths = _lengths(args.lengths)
    devices = topology(args.topology, args.num_slices, args.chip_config)
    kind = devices[0].device_kind
    mesh = partitioning.make_mesh(
        fsdp=settings["fsdp_partitions"], model=settings["model_partitions"], devices=devices
    )
    model = settings["model"]
    partitioning.check_divides(
        mesh,
        batch_rows=settings["batch_size"],
        microbatches=settings["microbatches"],
        heads=model.config.num_heads,
    )
    print(
        f"{model.name}, {settings['optimizer']}, {settings['batch_size']} rows of "
        f"{lengths[0]} + {lengths[1]} tokens on {len(devices)} {kind} ({args.topology} x "
        f"{args.num_slices}): data {mesh.shape['data']}, fsdp {mesh.shape['fsdp']}, model "
        f"{mesh.shape['model']}",
        flush=True,
    )
    try:
        found = compile_step(model, mesh, settings, lengths, args.k_out)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"does not fit: {' '.join(str(error).split())[:600]}")
        return 1
    show(found, chips.find(kind))
    if args.json:
        epath.Path(args.json).write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
    return 0


def topology(name: str, num_slices: int, chip_config: str) -> list[jax.Device]:
    """Returns the devices of slices that need not exist.

    Args:
      name: generation and shape.
      num_slices: slices of it.
      chip_config: "default", or a name that libtpu knows, as "megacore".

    Raises:
      ValueError: no libtpu here, or it knows no such topology.
    """
    from jax.experimental import topologies

    # libtpu asks a metadata server who it is, unless it is told.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Several may compile at a time: no chip is taken.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"num_slices": num_slices} if num_slices > 1 else {}
    if chip_config != "default":
        options |= {"chip_config_name": chip_config, "chips_per_host_bounds": (2, 2, 1)}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # libtpu and JAX raise several kinds
        hint = "" if _has_libtpu() else "; libtpu is not installed: pip install '.[tpu]'"
        raise ValueError(
            f"--topology: cannot describe '{name}' ({' '.join(str(error).split())[:300]}); "
            "expected a name as v5e:8x8, v4:4x4x4 (with --chip_config megacore), v5p:4x4x4, "
            f"v6e:16x16{hint}"
        ) from error
    return list(found.devices)


def _has_libtpu() -> bool:
    import importlib.util

    return importlib.util.find_spec("libtpu") is not None


def compile_step(
    model: Model,
    mesh: jax.sharding.Mesh,
    settings: Mapping[str, Any],
    lengths: tuple[int, int],
    k_out: int,
) -> Found:
    """Compiles the training step.

    Args:
      model: the student.
      mesh: of a topology's devices.
      settings: arguments of `train.run`.
      lengths: encoder and decoder tokens of a row.
      k_out: entries per target token.

    Returns:
      What was found. Raises what the compiler raises where memory does not suffice.
    """
    rule = losses.Rule(*(settings[n] for n in ("divergence", "tail", "temperature", "beta")))
    made = program.from_settings(model, mesh, rule=rule, **{n: settings[n] for n in _OF_A_STEP})
    rows = settings["batch_size"]
    vocabulary = model.config.vocab_size
    fields = batches.fields(*lengths, k_out, vocabulary)
    if model.decoder_only:
        fields = batches.decoder_only_fields(sum(lengths), k_out, vocabulary)
    sharding = partitioning.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((rows, *field.shape), field.dtype, sharding=sharding)
        for name, field in fields.items()
    }
    start = time.perf_counter()
    step: Any = made.train_step
    compiled = step.lower(made.like, batch).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    traffic = hlo.collectives(compiled.as_text())
    # A backward pass is two forward ones.
    length = sum(lengths) if model.decoder_only else lengths[1]
    flops = 3 * rows * model.row_flops(lengths[0], length)
    count, kind = mesh.devices.size, mesh.devices.flat[0].device_kind
    return Found(
        chips=count,
        seconds=seconds,
        state_bytes=memory.argument_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        flops=flops,
        traffic=traffic,
        estimate=estimate(chips.find(kind), count, flops, memory.peak_memory_in_bytes, traffic),
    )


def estimate(
    chip: chips.Chip | None,
    count: int,
    flops: int,
    peak_bytes: int,
    traffic: Mapping[str, hlo.Traffic],
) -> dict[str, float]:
    """Returns what each resource alone would take, seconds; empty for a chip not in the table.

    Args:
      chip: what one can do.
      count: how many.
      flops: of a step on all of them.
      peak_bytes: taken to be read once and written once in a step.
      traffic: of a step; an all-reduce passes the links twice, the others once.
    """
    if chip is None:
        return {}
    moved = sum(_PASSES.get(kind, 1) * one.bytes for kind, one in traffic.items())
    return {
        "arithmetic": flops / count / chip.flops,
        "memory": 2 * peak_bytes / chip.memory_bandwidth,
        "links": moved / chip.link_bandwidth,
    }


def show(found: Found, chip: chips.Chip | None) -> None:
    """Prints what was found."""
    memory = f" of {chip.memory / _GIB:.0f}" if chip else ""
    peak, state = found.peak_bytes / _GIB, found.state_bytes / _GIB
    print(
        f"fits: peak {peak:.2f}{memory} GiB a chip, of it {state:.2f} state and batch; compiled in "
        f"{found.seconds:.0f} s"
    )
    for kind, one in found.traffic.items():
        print(f"  {kind:20s} {one.times:6,d} times, {one.bytes / _GIB:9.3f} GiB a chip")
    print(f"{found.flops:.3e} FLOPs a step, {found.flops / found.chips:.3e} a chip")
    if found.estimate:
        slowest = max(found.estimate, key=lambda name: found.estimate[name])
        parts = ", ".join(f"{name} {1e3 * s:.0f} ms" for name, s in found.estimate.items())
        share = found.estimate["arithmetic"] / found.estimate[slowest]
        print(f"a step takes at least {1e3 * found.estimate[slowest]:.0f} ms ({parts}); ", end="")
        print(f"{share:.0%} of the peak if {slowest} alone counts and the rest is hidden behind it")


def _lengths(given: str | None) -> tuple[int, int]:
    if given is None:
        import gin

        try:
            found = gin.query_parameter("%TASK_FEATURE_LENGTHS")
            return found["inputs"], found["targets"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("--lengths: no gin file sets TASK_FEATURE_LENGTHS; give it") from error
    try:
        inputs, targets = map(int, given.split(","))
    except ValueError as error:
        raise ValueError(f"--lengths: expected two numbers as 1536,296, got '{given}'") from error
    return inputs, targets


def _defaults() -> dict[str, Any]:
    import inspect

    parameters = inspect.signature(train.run).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
