"""What `specialize-jax compile` compiles, and what follows from the compiler's answer."""

import dataclasses
import inspect
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specialize_jax import losses
from specialize_jax.apps import answering, program
from specialize_jax.models import Model
from specialize_jax.schemas import batches
from specialize_jax.training import chips, hlo, partitioning

PROGRAMS = ("train", "evaluate", "decode")
"""A training step, the held-out loss of a batch, or greedy answers to a batch of questions."""

_EOS = 1  # any token: which one ends an answer changes no shape
# On a ring of chips an array passes each chip's links this often; others once.
_PASSES = {"all-reduce": 2}

Estimate = dict[str, float]
"""What arithmetic, memory, links and, between slices, the network would each take alone, seconds;
empty for an unknown chip."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be compiled.

    Attributes:
      program: of `PROGRAMS`.
      rows: of a batch.
      lengths: encoder (or prompt) and decoder tokens of a row.
      k_out: entries per target token; not read by decoding.
    """

    program: str
    rows: int
    lengths: tuple[int, int]
    k_out: int = 8


@dataclasses.dataclass(frozen=True)
class Found:
    """What the compiler says, and what follows.

    Attributes:
      asked: the program and its shapes.
      mesh: axis -> parts.
      chips: number of chips.
      seconds: of compiling.
      state_bytes: arguments of the program on a chip: state or parameters, and batch.
      peak_bytes: most memory that a chip uses at a time.
      flops: of the program on all chips, nothing recomputed.
      traffic: kind of collective -> [count, bytes per chip] in a run of the program; where it
        decodes, in the longest one.
      token_traffic: of one token of every row; empty where nothing is decoded.
      estimates: "step" of training or held-out loss; "inputs" (read once) and "token" of decoding.
    """

    asked: Asked
    mesh: dict[str, int]
    chips: int
    seconds: float
    state_bytes: int
    peak_bytes: int
    flops: int
    traffic: dict[str, hlo.Traffic]
    token_traffic: dict[str, hlo.Traffic]
    estimates: dict[str, Estimate]

    @property
    def least_seconds(self) -> float | None:
        """What a step, or all tokens of the longest answers, take at least; None if not known."""
        if not all(self.estimates.values()):
            return None
        times = {"token": self.asked.lengths[1]}
        return sum(times.get(name, 1) * max(one.values()) for name, one in self.estimates.items())


def find(asked: Asked, model: Model, mesh: Mesh, settings: Mapping[str, Any]) -> Found:
    """Compiles a program.

    Args:
      asked: the program and its shapes.
      model: the student.
      mesh: of a topology's devices.
      settings: arguments of `train.run`.

    Returns:
      What was found. Raises what the compiler raises where memory does not suffice.
    """
    rule = losses.Rule(*(settings[n] for n in ("divergence", "tail", "temperature", "beta")))
    made = program.from_settings(model, mesh, rule=rule, **_of_a_program(settings))
    start = time.perf_counter()
    compiled: Any = _lowered(asked, made, model).compile()
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    peak, traffic = memory.peak_memory_in_bytes, hlo.collectives(text)
    chip, per_token = chips.find(mesh.devices.flat[0].device_kind), {}
    flops = _flops(asked, model)
    if asked.program == "decode":
        before = hlo.collectives(text, open_ended=0)
        per_token = _each(before, traffic, asked.lengths[1])
        estimates = decoding_estimates(asked, model, mesh, chip, peak, before, per_token)
    else:
        estimates = {"step": estimate(chip, flops / mesh.size, 2 * peak, traffic)}
    return Found(
        asked=asked,
        mesh=dict(mesh.shape),
        chips=mesh.size,
        seconds=seconds,
        state_bytes=memory.argument_size_in_bytes,
        peak_bytes=peak,
        flops=flops,
        traffic=traffic,
        token_traffic=per_token,
        estimates=estimates,
    )


def _flops(asked: Asked, model: Model) -> int:
    """Returns the FLOPs of a program on all chips; of decoding, with the longest answers."""
    inputs, targets = asked.lengths
    if asked.program == "decode":
        work = model.decoding_flops(inputs, targets)
        return asked.rows * (work.inputs + targets * work.token)
    forward = program.forward_flops(model, inputs, targets)
    # A backward pass is two forward ones.
    return asked.rows * forward * (3 if asked.program == "train" else 1)


def _of_a_program(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those settings of a run that its programs depend on."""
    taken = {
        name
        for function in (program.from_settings, program.build)
        for name in inspect.signature(function).parameters
    }
    return {name: settings[name] for name in settings if name in taken - {"model", "mesh"}}


def _lowered(asked: Asked, made: program.Program, model: Model) -> jax.stages.Lowered:
    """Returns a program for shapes that lie where the real arrays would."""
    sharding, (inputs, targets) = partitioning.batch_sharding(made.mesh), asked.lengths
    if asked.program == "decode":
        tokens = jax.ShapeDtypeStruct((asked.rows, inputs), np.int32, sharding=sharding)
        decode: Any = answering.greedy_decoder(model, _EOS, targets, mesh=made.mesh)
        return decode.lower(made.like.params, tokens)
    fields = batches.fields(inputs, targets, asked.k_out, model.config.vocab_size)
    if model.decoder_only:
        length, vocabulary = inputs + targets, model.config.vocab_size
        fields = batches.decoder_only_fields(length, asked.k_out, vocabulary)
    batch = {
        name: jax.ShapeDtypeStruct((asked.rows, *field.shape), field.dtype, sharding=sharding)
        for name, field in fields.items()
    }
    train: Any = made.train_step
    held_out: Any = made.eval_step
    if asked.program == "train":
        return train.lower(made.like, batch)
    return held_out.lower(made.like.params, batch)


def estimate(
    chip: chips.Chip | None,
    flops: float,
    memory_bytes: float,
    traffic: Mapping[str, hlo.Traffic],
) -> Estimate:
    """Returns what each resource alone would take.

    Args:
      chip: what one can do; None for one that is not in the table.
      flops: on a chip.
      memory_bytes: read and written on a chip.
      traffic: an all-reduce passes the links twice, the others once.
    """
    if chip is None:
        return {}
    moved = {kind: _PASSES.get(kind, 1) * one.bytes for kind, one in traffic.items()}
    between = moved.pop(hlo.BETWEEN_SLICES, 0)
    found = {
        "arithmetic": flops / chip.flops,
        "memory": memory_bytes / chip.memory_bandwidth,
        "links": sum(moved.values()) / chip.link_bandwidth,
    }
    if between and chip.network_bandwidth:
        found["network"] = between / chip.network_bandwidth
    return found


def decoding_estimates(
    asked: Asked,
    model: Model,
    mesh: Mesh,
    chip: chips.Chip | None,
    peak_bytes: int,
    before: Mapping[str, hlo.Traffic],
    per_token: Mapping[str, hlo.Traffic],
) -> dict[str, Estimate]:
    """Returns estimates of reading the inputs, once, and of one token of every row.

    A token reads all weights that it is multiplied with, and the cache.

    Args:
      asked: rows and lengths: of the inputs, and tokens of an answer at most.
      model: the student.
      mesh: weights are split along `fsdp` and `model`, the cache along all three axes.
      chip: as in `estimate`.
      peak_bytes: on a chip; taken to be read once and written once for the inputs.
      before: traffic of a run that decodes no token.
      per_token: traffic of one.
    """
    work, rows, count = model.decoding_flops(*asked.lengths), asked.rows, mesh.size
    weights = work.weights * jnp.dtype(model.config.dtype).itemsize * mesh.shape["data"]
    read = (weights + _cache_bytes(asked, model)) / count
    return {
        "inputs": estimate(chip, rows * work.inputs / count, 2 * peak_bytes, before),
        "token": estimate(chip, rows * work.token / count, read, per_token),
    }


def _each(
    before: Mapping[str, hlo.Traffic], longest: Mapping[str, hlo.Traffic], count: int
) -> dict[str, hlo.Traffic]:
    """Returns the traffic of one of `count` tokens, from that of a run without and with them."""
    nothing = hlo.Traffic(0, 0)
    found = {}
    for kind, whole in longest.items():
        parts = zip(whole, before.get(kind, nothing), strict=True)
        found[kind] = hlo.Traffic(*((with_them - without) // count for with_them, without in parts))
    return found


def _cache_bytes(asked: Asked, model: Model) -> int:
    inputs, most = asked.lengths
    cache = jax.eval_shape(
        lambda key, tokens: model.init_cache(model.init(key), tokens, most),
        jax.random.key(0),
        jax.ShapeDtypeStruct((asked.rows, inputs), np.int32),
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
