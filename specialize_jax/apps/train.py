"""`specialize-jax train`: a student learns from packed rows."""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from specialize_jax import losses, training
from specialize_jax.apps import (
    data_dir,
    earlier_run,
    evaluation_sets,
    gin_setup,
    processes,
    program,
    provenance,
    questions,
    run_end,
    trackers,
)
from specialize_jax.apps import dry_run as preview
from specialize_jax.apps import held_out as held_out_accuracy
from specialize_jax.data.packed import PackedRows
from specialize_jax.models import Model
from specialize_jax.schemas import folders
from specialize_jax.training import TrainState, checkpoints, partitioning, preemption

EPILOG = """\
example:
  specialize-jax train --gin_file=experiments/codex_gsm8k_cpu.gin \\
      --gin.MODEL_DIR="'out/line/model'"
The same command again goes on where the last checkpoint stands."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; all settings are gin's."""
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print steps, tokens, passes, memory and hours, from a few steps; write nothing",
    )
    data_dir.add_argument(parser)
    data_dir.add_tfds_argument(parser)
    processes.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Trains as the gin files say; a run that SIGTERM stopped early does not count as done."""
    data_dir.use_tfds(args.tfds_data_dir)
    # Packing imports TensorFlow: in a process of its own, with the same gin files.
    pack_again = functools.partial(_pack, gin_setup.flags(args))
    with processes.joined(args):
        train = gin_setup.configured(args, run, pack_again=pack_again, dry_run=args.dry_run)
        try:
            is_done = train(sets=evaluation_sets.from_gin(args.data_dir))
        except preemption.Stopped as stopped:
            print(stopped, file=sys.stderr)
            is_done = False
    return 0 if is_done else 128 + signal.SIGTERM


def _pack(arguments: list[str], out: str) -> None:
    command = [sys.executable, "-m", "specialize_jax.apps.main", "pack", *arguments, f"--out={out}"]
    # Not on the accelerator, which is this process's.
    status = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}).returncode
    if status == -signal.SIGTERM:  # sent to this process as well, which JAX may have kept alive
        raise SystemExit(128 + signal.SIGTERM)
    if status:
        raise ValueError(f"packing into '{out}' failed with status {status}")


def run(
    *,
    model_dir: str,
    model: Model,
    packed_dir: str | None,
    batch_size: int,
    train_steps: int,
    objective: str,
    divergence: str = "forward_kl",
    tail: str = "bucket",
    temperature: float = 1.0,
    beta: float = 0.5,
    min_coverage: float = 0.0,
    optimizer: str = "adafactor",
    learning_rate: float = 1e-3,
    optimizer_settings: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    schedule_steps: int | None = None,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    clip: float | None = None,
    microbatches: int = 1,
    model_partitions: int = 1,
    fsdp_partitions: int = 1,
    logical_axis_rules: partitioning.Rules | None = None,
    loss_chunk: int = 1024,
    initial_checkpoint_path: str | None = None,
    eval_period: int = 1000,
    eval_steps: int | None = None,
    accuracy_questions: int = 32,
    allow_contamination: bool = False,
    sets: evaluation_sets.Sets = evaluation_sets.NO_SETS,
    checkpoint_period: int = 1000,
    checkpoints_to_keep: int | None = None,
    checkpoint_keep_period: int | None = None,
    checkpoint_keep_best: int | None = None,
    checkpoint_best_metric: str = "loss",
    checkpoint_first: bool = False,
    log_period: int = 10,
    tensorboard: bool = True,
    wandb_project: str | None = None,
    wandb_name: str | None = None,
    profile_steps: tuple[int, int] | None = None,
    max_loss_rise: float | None = 5.0,
    seed: int = 0,
    pack_again: Callable[[str], None] | None = None,
    dry_run: bool = False,
) -> bool:
    """Trains a student.

    Args:
      model_dir: checkpoints, metrics and what `evaluate` needs are written here.
      model: the student.
      packed_dir: a folder that `pack` wrote; None: `model_dir`/packed, packed first when absent.
      batch_size: rows of the global batch.
      train_steps: updates in all.
      objective: "match_distribution" or "match_sample".
      divergence: how far the student is from the teacher; see `losses.divergences` for these four.
      tail: what becomes of unlisted mass.
      temperature: of teacher and student.
      beta: the teacher's weight in the mixture of divergence "jsd".
      min_coverage: smallest accepted share of chain-of-thought tokens with a teacher distribution.
      optimizer: "adafactor" or "adamw".
      learning_rate: peak.
      optimizer_settings: of `optimizers.SETTINGS`; None for the usual ones.
      schedule: "constant", "rsqrt" or "cosine".
      schedule_steps: where "cosine" reaches 0; None for `train_steps`.
      warmup_steps: linear warm-up.
      weight_decay: of the optimizer.
      clip: bound on the gradient's norm; None for none.
      microbatches: parts of the batch that are worked one after the other, to save memory.
      model_partitions: parts that each matrix product is split into (tensor parallelism).
      fsdp_partitions: parts that parameters and optimizer state are split into besides, gathered
        where they are used. The devices that remain are data-parallel.
      logical_axis_rules: (logical name, mesh axis) pairs; None for
        `training.partitioning.STANDARD_RULES`.
      loss_chunk: tokens whose logits exist at a time.
      initial_checkpoint_path: a Hugging Face folder, the `model_dir` of an earlier run or of
        `convert` (its last checkpoint) or one of its checkpoints to start from; None for random
        weights.
      eval_period: steps between held-out losses and accuracies.
      eval_steps: batches of the held-out split; None for all.
      accuracy_questions: held-out questions that are asked at each `eval_period`, in the formats
        that are trained; 0 for none.
      allow_contamination: whether evaluation questions may be in the training mixture.
      sets: what the student is to be scored on later; none of it may be trained on.
      checkpoint_period: steps between checkpoints.
      checkpoints_to_keep: how many of the last; see `training.checkpoints.Keep` for these four.
      checkpoint_keep_period: every checkpoint whose step is a multiple of it.
      checkpoint_keep_best: how many of the best.
      checkpoint_best_metric: what the best are told by, a name in a held-out line.
      checkpoint_first: whether the student is saved before the first step, so that `evaluate` can
        say what the run changed.
      log_period: steps between lines of `metrics.jsonl`.
      tensorboard: whether the lines become TensorBoard's events too, in `model_dir`/tensorboard.
      wandb_project: of wandb, which then gets the lines; None for no wandb.
      wandb_name: of the run there; None lets wandb choose.
      profile_steps: (first step, how many) to trace into `model_dir`/profile; None for none.
      max_loss_rise: the run stops when three lines in a row are more than this above the best line
        before, nats per token; None for never.
      seed: of weights, dropout and the order of the data.
      pack_again: packs into a folder, for `packed_dir=None`.
      dry_run: see the package's `dry_run`; nothing is written.

    Returns:
      Whether all steps are done; SIGTERM saves and stops before.

    Raises:
      ValueError: coverage below `min_coverage`, settings that do not fit the data or an earlier
        run in `model_dir`, or an evaluation question that is trained on.
    """
    keep = checkpoints.Keep(
        checkpoints_to_keep,
        checkpoint_keep_period,
        checkpoint_keep_best,
        metric=checkpoint_best_metric,
    )
    if initial_checkpoint_path is not None and not epath.Path(initial_checkpoint_path).exists():
        raise ValueError(
            f"INITIAL_CHECKPOINT_PATH '{initial_checkpoint_path}' does not exist; expected a "
            "Hugging Face folder, the MODEL_DIR of an earlier run or of `convert`, or one of its "
            "checkpoints"
        )
    if eval_steps is not None and eval_steps < 1:
        raise ValueError(f"EVAL_STEPS: expected None or at least 1, got {eval_steps}")
    if accuracy_questions < 0:
        raise ValueError(f"EVAL_ACCURACY_QUESTIONS: expected 0 or more, got {accuracy_questions}")
    folder = epath.Path(model_dir) if dry_run else folders.make_folder(model_dir)
    if not dry_run:
        processes.check_shared(folder)
    if packed_dir is None:
        packed_dir = str(folder / "packed")
        if pack_again is not None and not dry_run:
            # Also where rows are there: it compares their settings, and refuses others.
            processes.first_alone(functools.partial(pack_again, packed_dir), "packed")
        elif dry_run and folders.schema_of(packed_dir) is None:
            raise ValueError(
                f"--dry_run counts packed rows, and '{packed_dir}' has none yet: run `pack` with "
                "the same gin files first, and give its --out as PACKED_DIR"
            )
    rows = PackedRows(packed_dir, "train", batch_rows=batch_size, seed=seed)
    rule = losses.Rule(divergence, tail, temperature, beta)
    check_settings(rows.info, model, objective, min_coverage)
    mesh = partitioning.make_mesh(fsdp=fsdp_partitions, model=model_partitions)
    partitioning.check_divides(
        mesh, batch_rows=batch_size, microbatches=microbatches, heads=model.config.num_heads
    )
    config = {
        "family": model.family,
        "name": model.name,
        "model": dataclasses.asdict(model.config),
        "objective": objective,
        **dataclasses.asdict(rule),
        "lengths": rows.info["lengths"],
        "student_tokenizer": rows.info["student_tokenizer"],
        "data": rows.digest,
    }
    earlier_run.check_same_run(folder / "checkpoints", config)
    trained_on = earlier_run.trained_questions(packed_dir, rows.info, initial_checkpoint_path)
    held_out = questions.read_validation(packed_dir, rows.info)
    if checkpoint_keep_best is not None:
        keep.check_metric(held_out_names(rows.info, accuracy_questions))
    evaluation_sets.check_training(
        trained_on, held_out, sets, packed_dir, allowed=allow_contamination
    )
    made = program.from_settings(
        model,
        mesh,
        train_steps=train_steps,
        objective=objective,
        rule=rule,
        optimizer=optimizer,
        learning_rate=learning_rate,
        optimizer_settings=optimizer_settings,
        schedule=schedule,
        schedule_steps=schedule_steps,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        clip=clip,
        microbatches=microbatches,
        loss_chunk=loss_chunk,
        logical_axis_rules=logical_axis_rules,
        seed=seed,
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(made.like.params))
    print(
        f"{model.name}: {parameters:,} parameters on {jax.device_count()} {jax.default_backend()} "
        f"device(s); {objective} ({rule}), {train_steps} steps of {batch_size} rows, "
        f"{train_steps * batch_size / len(rows):.2f} passes over {len(rows)} packed rows of "
        f"{rows.info.get('mixture', 'an unnamed mixture')}"
    )

    def start() -> TrainState:
        if initial_checkpoint_path is None:
            return made.start(None)
        params = earlier_run.load_params(
            initial_checkpoint_path,
            model,
            shapes=made.like.params,
            student_tokenizer=rows.info["student_tokenizer"],
        )
        return made.start(params)

    lengths = rows.info["lengths"]
    step_flops = (
        3 * batch_size * program.forward_flops(model, lengths["inputs"], lengths["targets"])
    )
    if dry_run:
        sizes = {"batch_size": batch_size, "train_steps": train_steps, "step_flops": step_flops}
        preview.show(made, rows, start(), **sizes)
        return True

    tokenizer_file = rows.info["student_tokenizer"]["file"]
    if processes.is_first():
        content = (epath.Path(packed_dir) / tokenizer_file).read_bytes()
        folders.write_bytes(folder / tokenizer_file, content)
        evaluation_sets.keep_record(folder, trained_on)
    eval_fn = None
    if "validation" in rows.info["splits"]:
        validation = PackedRows(packed_dir, "validation", batch_rows=batch_size)
        held_out_loss = training.evaluator(
            made.eval_step, functools.partial(validation.in_order, eval_steps), mesh=mesh
        )
        accuracy = held_out_accuracy.from_settings(
            model,
            epath.Path(packed_dir) / tokenizer_file,
            held_out,
            rows.info,
            count=accuracy_questions,
            mesh=mesh,
        )

        def eval_fn(state: TrainState) -> dict[str, float | None]:
            return held_out_loss(state) | accuracy(state.params)

    def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
        # Asked for once the run is known to go on: what is refused leaves the records as they are.
        if processes.is_first():
            provenance.write(folder, "train", gin=True)
        return rows.batches_from(start, rows=partitioning.local_rows(mesh, batch_size))

    with alone(folder):
        run_end.clear(folder)
        state = training.fit(
            made.like,
            start,
            made.train_step,
            model_dir=folder,
            batches=batches,
            data_state=rows.data_state,
            batch_size=batch_size,
            train_steps=train_steps,
            mesh=mesh,
            save_period=checkpoint_period,
            save_first=checkpoint_first,
            log_period=log_period,
            eval_fn=eval_fn,
            eval_period=eval_period,
            keep=keep,
            config=config,
            step_flops=step_flops,
            writers=trackers.open_writers(folder, tensorboard, wandb_project, wandb_name),
            profile_steps=profile_steps,
            max_loss_rise=max_loss_rise,
            describe_row=rows.describe,
        )
    reached = int(state.step)
    if reached >= train_steps:
        run_end.mark(folder, reached)
    word = "done" if reached >= train_steps else f"at step {reached} of {train_steps}"
    print(f"{word}: {folder}")
    return reached >= train_steps


@contextlib.contextmanager
def alone(folder: epath.Path) -> Iterator[None]:
    """Keeps a second training out of a folder on a disk, as long as this one lives.

    Raises:
      ValueError: another is at work there.
    """
    if folders.is_remote(folder) or not processes.is_first():
        yield
        return
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another training is at work in '{folder}'; give another MODEL_DIR"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def held_out_names(info: dict[str, Any], accuracy_questions: int) -> list[str]:
    """Returns what held-out lines may say."""
    formats = sorted(info["splits"]["train"]["formats"])
    names = ["loss", "kl_loss", "ce_loss", *(f"loss/{name}" for name in formats)]
    if accuracy_questions:
        names += ["accuracy", *(f"accuracy/{name}" for name in formats)]
    return names


def check_settings(info: dict[str, Any], model: Model, objective: str, min_coverage: float) -> None:
    """Checks that data, student and objective fit together.

    Raises:
      ValueError: they do not; the message names both sides.
    """
    if objective not in losses.OBJECTIVES:
        choices = ", ".join(losses.OBJECTIVES)
        raise ValueError(f"unknown objective '{objective}'; choices: {choices}")
    if info["vocab_size"] > model.config.vocab_size:
        raise ValueError(
            f"the student '{model.name}' has a vocabulary of {model.config.vocab_size}, the packed "
            f"data's tokenizer one of {info['vocab_size']}"
        )
    coverage = info["splits"]["train"]["coverage"]
    if objective == "match_distribution" and coverage < min_coverage:
        raise ValueError(
            f"match_distribution needs a coverage of at least MIN_COVERAGE={min_coverage}, the "
            f"packed data has {coverage:.4f}: {coverage:.2%} of its chain-of-thought tokens carry "
            "a teacher distribution, and all others would be trained as by match_sample. Align "
            "records with log-probabilities, use objectives/match_sample.gin, or set MIN_COVERAGE"
        )
