"""The compiled programs of a run: what `train` runs and `compile` compiles."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from specialize_jax import losses
from specialize_jax.models import Model, activations
from specialize_jax.schemas import Format, SparseTargets
from specialize_jax.training import optimizers, partitioning, step
from specialize_jax.training.train_state import TrainState, create


class Program(NamedTuple):
    """Functions over the state of a student on a mesh.

    Attributes:
      mesh: where it lies.
      like: shapes and shardings of the state.
      start: parameters -> the state at step 0; None draws them from the seed.
      train_step: see `step.make_train_step`.
      eval_step: see `step.make_eval_step`.
    """

    mesh: Mesh
    like: TrainState
    start: Callable[[Any], TrainState]
    train_step: step.TrainStep
    eval_step: step.EvalStep


def from_settings(
    model: Model,
    mesh: Mesh,
    *,
    train_steps: int,
    objective: str,
    rule: losses.Rule,
    optimizer: str,
    learning_rate: float,
    optimizer_settings: Mapping[str, Any] | None,
    schedule: str,
    schedule_steps: int | None,
    warmup_steps: int,
    weight_decay: float,
    clip: float | None,
    **settings: Any,
) -> Program:
    """Makes the programs as a run's settings say; see `train.run` for the settings.

    Args:
      model: the student.
      mesh: devices, or those of a topology without hardware.
      train_steps: updates in all.
      objective: of `losses.OBJECTIVES`.
      rule: the divergence.
      optimizer: of `optimizers.build`.
      learning_rate: peak.
      optimizer_settings: of `optimizers.SETTINGS`; None for the usual ones.
      schedule: of `optimizers.schedule`.
      schedule_steps: where "cosine" reaches 0; None for `train_steps`.
      warmup_steps: linear warm-up.
      weight_decay: of the optimizer.
      clip: bound on the gradient's norm; None for none.
      **settings: of `build`.
    """
    course = optimizers.schedule(
        schedule,
        base_learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        total_steps=train_steps if schedule_steps is None else schedule_steps,
    )
    tx = optimizers.build(
        optimizer,
        course,
        weight_decay=weight_decay,
        clip=clip,
        axes=model.axes(),
        **optimizer_settings or {},
    )
    return build(model, mesh, objective=objective, rule=rule, tx=tx, course=course, **settings)


def build(
    model: Model,
    mesh: Mesh,
    *,
    objective: str,
    rule: losses.Rule,
    tx: optax.GradientTransformation,
    course: optimizers.Schedule,
    microbatches: int = 1,
    loss_chunk: int = 1024,
    logical_axis_rules: partitioning.Rules | None = None,
    seed: int = 0,
) -> Program:
    """Makes the programs; nothing is compiled yet.

    Args:
      model: the student.
      mesh: devices, or those of a topology without hardware.
      objective: of `losses.OBJECTIVES`.
      rule: the divergence.
      tx: the optimizer.
      course: its learning rate, for the metrics.
      microbatches: parts of the batch that are worked one after the other.
      loss_chunk: tokens whose logits exist at a time, on each shard.
      logical_axis_rules: of parameters; None for `partitioning.STANDARD_RULES`.
      seed: of weights and dropout.
    """
    placed_create = functools.partial(create, tx=tx, seed=seed)
    draw = functools.partial(model.init, jax.random.key(seed))
    shapes = jax.eval_shape(lambda: placed_create(draw()))
    rules = partitioning.STANDARD_RULES if logical_axis_rules is None else logical_axis_rules
    partitioning.check_rules(rules, model.axes(), mesh)
    shardings = partitioning.state_shardings(shapes, model.axes(), mesh, rules)
    loss_fn = make_loss_fn(
        model,
        objective=objective,
        rule=rule,
        chunk=loss_chunk,
        mesh=mesh,
    )

    def start(params: Any) -> TrainState:
        if params is None:
            return jax.jit(lambda: placed_create(draw()), out_shardings=shardings)()
        return jax.jit(placed_create, out_shardings=shardings, donate_argnums=0)(params)

    return Program(
        mesh=mesh,
        like=partitioning.with_shardings(shapes, shardings),
        start=start,
        train_step=step.make_train_step(
            loss_fn,
            tx,
            learning_rate=course,
            num_microbatches=microbatches,
            mesh=mesh,
            shardings=shardings,
        ),
        eval_step=step.make_eval_step(loss_fn, mesh=mesh, shardings=shardings),
    )


def forward_flops(model: Model, inputs: int, targets: int) -> int:
    """Returns the FLOPs of the matrix products of a row forward.

    Args:
      model: the student; one without an encoder reads inputs and targets as one sequence.
      inputs: tokens that are read.
      targets: tokens that are predicted.
    """
    return model.row_flops(inputs, inputs + targets if model.decoder_only else targets)


def make_loss_fn(
    model: Model, *, objective: str, rule: losses.Rule, chunk: int, mesh: Mesh
) -> step.LossFn:
    """Returns `loss_fn(params, batch, rng) -> (sum of token losses, sums)` for the train step."""

    def flat(value: jax.Array, trailing: int = 0) -> jax.Array:
        return value.reshape(-1, *value.shape[value.ndim - trailing :])

    def loss_fn(params: Any, batch: Any, rng: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        with activations.sharded(mesh, partitioning.ACTIVATION_RULES):
            hidden = model.hidden(params, batch, dropout_rng=rng)
        kind = flat(batch["decoder_soft_kind"])
        soft = SparseTargets(
            ids=flat(batch["decoder_soft_ids"], 1),
            logprobs=flat(batch["decoder_soft_logprobs"], 1),
            tail_logprob=flat(batch["decoder_soft_tail_logprob"]),
            kind=kind,
            reason=jnp.zeros_like(kind),
        )
        return losses.chunked(
            flat(hidden, 1),
            model.unembed(params),
            flat(batch["decoder_target_tokens"]),
            soft,
            flat(batch["decoder_loss_weights"]),
            objective=objective,
            **dataclasses.asdict(rule),
            chunk=chunk,
            normalizer=1.0,
            groups=flat(batch["decoder_format"]),
            num_groups=len(Format),
            data_shards=partitioning.batch_shards(mesh),
        )

    return loss_fn
