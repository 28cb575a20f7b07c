"""`specialize-jax compile`: a run's own programs for a TPU slice, compiled without a TPU.

The compiler is the one that runs on the slice (libtpu, extra `tpu`); memory and what moves between
chips are its own figures. FLOPs are counted from shapes, and the time is an estimate: the largest
of what arithmetic, memory and links would take alone.
"""

import argparse
import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from specialize_jax.apps import compiled, evaluate, gin_setup, train
from specialize_jax.training import chips, partitioning

EPILOG = """\
example:
  specialize-jax compile --gin_file=experiments/flan_t5_xxl_gsm8k.gin --topology v5e:8x8 \\
      --gin.FSDP_PARTITIONS=16 --gin.MODEL_PARTITIONS=4 --gin.BATCH_SIZE=128"""

# What a run's settings do not say.
_NOT_READ = {"model_dir": "-", "packed_dir": None, "initial_checkpoint_path": None}
_GIB = 2**30
_TOOK = {"step": "a step", "inputs": "reading the inputs", "token": "a token of every row"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="a slice's chips, as v4:4x4x4, v5e:8x8, v5p:4x4x4, v6e:16x16",
    )
    parser.add_argument(
        "--program",
        choices=compiled.PROGRAMS,
        default="train",
        help="the training step, the held-out loss, or the decoding that `evaluate` does: greedy, "
        "EVAL_BATCH_SIZE questions of EVAL_INPUT_LENGTH tokens, MAX_DECODE_LENGTH tokens at most",
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
        help="of a row; left out, what the gin files say",
    )
    parser.add_argument("--k_out", type=int, default=8, help="entries per target token")
    parser.add_argument("--json", metavar="FILE", help="also writes the numbers to this file")


def main(args: argparse.Namespace) -> int:
    """Compiles and prints; 1 where the program does not fit."""
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")  # libtpu only compiles
    gin_setup.configured(args, train.run, **_NOT_READ)
    settings = _settings(train.run)
    asked = _asked(args, settings)
    devices = topology(args.topology, args.num_slices, args.chip_config)
    kind = devices[0].device_kind
    mesh = partitioning.make_mesh(
        fsdp=settings["fsdp_partitions"], model=settings["model_partitions"], devices=devices
    )
    model = settings["model"]
    partitioning.check_divides(
        mesh,
        batch_rows=asked.rows,
        microbatches=settings["microbatches"] if args.program == "train" else 1,
        heads=model.config.num_heads,
    )
    doing = {"train": settings["optimizer"], "evaluate": "held-out loss", "decode": "decoding"}
    print(
        f"{model.name}, {doing[asked.program]}, {asked.rows} rows of {asked.lengths[0]} + "
        f"{asked.lengths[1]} tokens on {len(devices)} {kind} ({args.topology} x "
        f"{args.num_slices}): data {mesh.shape['data']}, fsdp {mesh.shape['fsdp']}, model "
        f"{mesh.shape['model']}",
        flush=True,
    )
    try:
        found = compiled.find(asked, model, mesh, settings)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"does not fit: {' '.join(str(error).split())[:600]}")
        return 1
    show(found, chips.find(kind))
    if args.json:
        epath.Path(args.json).write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
    return 0


def _asked(args: argparse.Namespace, settings: Mapping[str, Any]) -> compiled.Asked:
    """Returns the program and its shapes: lengths that flags give, else those of the gin files."""
    given = _parse_lengths(args.lengths) if args.lengths else None
    if args.program != "decode":
        rows, lengths = settings["batch_size"], given or _feature_lengths()
    else:
        asked = _settings(evaluate.run)
        rows = asked["batch_size"]
        lengths = given or (asked["input_length"], asked["max_decode_length"])
    return compiled.Asked(args.program, rows, lengths, args.k_out)


def _settings(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns a function's arguments as gin binds them, else its defaults."""
    import gin

    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    try:
        return {**defaults, **gin.get_bindings(function)}
    except ValueError as error:  # no gin file names it
        raise ValueError(
            f"no gin file binds {function.__module__}.{function.__name__}; include runs/"
            f"{function.__module__.rsplit('.', 1)[-1]}.gin"
        ) from error


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

    if num_slices < 1:
        raise ValueError(f"--num_slices: expected at least 1, got {num_slices}")
    # libtpu asks a metadata server who it is, unless it is told.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Several may compile at a time: no chip is taken.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"num_slices": num_slices} if num_slices > 1 else {}
    if name.endswith(":1x1"):
        options["chips_per_host_bounds"] = (1, 1, 1)  # part of a host
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


def show(found: compiled.Found, chip: chips.Chip | None) -> None:
    """Prints what was found."""
    memory = f" of {chip.memory / _GIB:.0f}" if chip else ""
    peak, state = found.peak_bytes / _GIB, found.state_bytes / _GIB
    print(
        f"fits: peak {peak:.2f}{memory} GiB a chip, of it {state:.2f} of arguments; compiled in "
        f"{found.seconds:.0f} s"
    )
    for kind, one in found.traffic.items():
        print(f"  {kind:20s} {one.times:6,d} times, {one.bytes / _GIB:9.3f} GiB a chip")
    whole = "the longest answers" if found.asked.program == "decode" else "a step"
    print(f"{found.flops:.3e} FLOPs for {whole}, {found.flops / found.chips:.3e} a chip")
    for name, estimate in found.estimates.items():
        if estimate:
            print(f"{_TOOK[name]} takes at least {_in_words(estimate)}")
    if found.asked.program == "decode":
        _show_decoding(found)


def _show_decoding(found: compiled.Found) -> None:
    waits = sum(one.times for one in found.token_traffic.values())
    moved = sum(one.bytes for one in found.token_traffic.values())
    print(
        f"a token: {waits:,d} collectives, {moved / 2**20:.1f} MiB a chip; what they wait for each "
        "other is not counted"
    )
    most, least = found.asked.lengths[1], found.least_seconds
    fast = f"at most {found.asked.rows * most / least:,.0f} tokens/s, " if least else ""
    print(
        f"{fast}if every answer has {most} tokens; the loop ends when all answers have, and all of "
        "the above counts it to the end"
    )


def _in_words(estimate: compiled.Estimate) -> str:
    slowest = max(estimate, key=lambda name: estimate[name])
    parts = ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in estimate.items())
    share = estimate["arithmetic"] / estimate[slowest]
    return (
        f"{1e3 * estimate[slowest]:.3g} ms ({parts}); {share:.0%} of the peak if {slowest} alone "
        "counts and the rest is hidden behind it"
    )


def _feature_lengths() -> tuple[int, int]:
    import gin

    try:
        found = gin.query_parameter("%TASK_FEATURE_LENGTHS")
        return found["inputs"], found["targets"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("--lengths: no gin file sets TASK_FEATURE_LENGTHS; give it") from error


def _parse_lengths(given: str) -> tuple[int, int]:
    try:
        inputs, targets = map(int, given.split(","))
    except ValueError as error:
        raise ValueError(f"--lengths: expected two numbers as 1536,296, got '{given}'") from error
    return inputs, targets
