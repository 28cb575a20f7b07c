"""`specialize-jax train`: a student learns from packed rows."""

import argparse
import dataclasses
import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from specialize_jax import convert, losses, models
from specialize_jax.apps import data_dir, evaluation_sets, gin_setup, program, provenance, questions
from specialize_jax.apps import dry_run as preview
from specialize_jax.apps import held_out as held_out_accuracy
from specialize_jax.data.packed import PackedRows
from specialize_jax.models import Model
from specialize_jax.schemas import folders
from specialize_jax.training import TrainState, checkpoints, loop, partitioning

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


def main(args: argparse.Namespace) -> int:
    """Trains as the gin files say; a run that SIGTERM stopped early does not count as done."""
    # Packing imports TensorFlow: in a process of its own, with the same gin files.
    pack_again = functools.partial(_pack, gin_setup.flags(args))
    train = gin_setup.configured(args, run, pack_again=pack_again, dry_run=args.dry_run)
    is_done = train(sets=evaluation_sets.from_gin(args.data_dir))
    return 0 if is_done else 128 + signal.SIGTERM


def _pack(arguments: list[str], out: str) -> None:
    command = [sys.executable, "-m", "specialize_jax.apps.main", "pack", *arguments, f"--out={out}"]
    if status := subprocess.run(command).returncode:
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
    schedule: str = "constant",
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
    checkpoint_first: bool = False,
    log_period: int = 10,
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
      schedule: "constant", "rsqrt" or "cosine".
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
      checkpoints_to_keep: None for all.
      checkpoint_first: whether the student is saved before the first step, so that `evaluate` can
        say what the run changed.
      log_period: steps between lines of `metrics.jsonl`.
      seed: of weights, dropout and the order of the data.
      pack_again: packs into a folder, for `packed_dir=None`.
      dry_run: see the package's `dry_run`; nothing is written.

    Returns:
      Whether all steps are done; SIGTERM saves and stops before.

    Raises:
      ValueError: coverage below `min_coverage`, settings that do not fit the data or an earlier
        run in `model_dir`, or an evaluation question that is trained on.
    """
    folder = epath.Path(model_dir) if dry_run else folders.make_folder(model_dir)
    if packed_dir is None:
        packed_dir = str(folder / "packed")
        if folders.schema_of(packed_dir) is None and pack_again is not None and not dry_run:
            pack_again(packed_dir)
    if eval_steps is not None and eval_steps < 1:
        raise ValueError(f"EVAL_STEPS: expected None or at least 1, got {eval_steps}")
    if accuracy_questions < 0:
        raise ValueError(f"EVAL_ACCURACY_QUESTIONS: expected 0 or more, got {accuracy_questions}")
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
    check_same_run(folder / "checkpoints", config)
    trained_on = trained_questions(packed_dir, rows.info, initial_checkpoint_path)
    held_out = questions.read_validation(packed_dir, rows.info)
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
        schedule=schedule,
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
        params = load_initial(
            initial_checkpoint_path,
            model,
            shapes=made.like.params,
            student_tokenizer=rows.info["student_tokenizer"],
        )
        return made.start(params)

    step_flops = 3 * batch_size * model.row_flops(*rows.info["lengths"].values())
    if dry_run:
        sizes = {"batch_size": batch_size, "train_steps": train_steps, "step_flops": step_flops}
        preview.show(made, rows, start(), **sizes)
        return True

    tokenizer_file = rows.info["student_tokenizer"]["file"]
    content = (epath.Path(packed_dir) / tokenizer_file).read_bytes()
    folders.write_bytes(folder / tokenizer_file, content)
    evaluation_sets.keep_record(folder, trained_on)
    eval_fn = None
    if "validation" in rows.info["splits"]:
        validation = PackedRows(packed_dir, "validation", batch_rows=batch_size)
        held_out_loss = loop.evaluator(
            made.eval_step, functools.partial(validation.in_order, eval_steps), mesh=mesh
        )
        accuracy = held_out_accuracy.from_settings(
            model,
            folder / tokenizer_file,
            held_out,
            rows.info,
            count=accuracy_questions,
            mesh=mesh,
        )

        def eval_fn(state: TrainState) -> dict[str, float | None]:
            return held_out_loss(state) | accuracy(state.params)

    provenance.write(folder, "train", gin=True)
    state = loop.fit(
        made.like,
        start,
        made.train_step,
        model_dir=folder,
        batches=functools.partial(
            rows.batches_from, rows=partitioning.local_rows(mesh, batch_size)
        ),
        data_state=rows.data_state,
        batch_size=batch_size,
        train_steps=train_steps,
        mesh=mesh,
        save_period=checkpoint_period,
        save_first=checkpoint_first,
        log_period=log_period,
        eval_fn=eval_fn,
        eval_period=eval_period,
        max_to_keep=checkpoints_to_keep,
        config=config,
        step_flops=step_flops,
    )
    reached = int(state.step)
    word = "done" if reached == train_steps else f"at step {reached} of {train_steps}"
    print(f"{word}: {folder}")
    return reached == train_steps


def trained_questions(
    packed_dir: str, info: dict[str, Any], initial_checkpoint_path: str | None
) -> frozenset[str] | None:
    """Returns the hashes of the questions of packed rows, and of the run that is started from.

    None where nothing says those of the rows. What a published checkpoint saw is not known.
    """
    hashes = questions.read_training(packed_dir, info)
    if hashes is None or initial_checkpoint_path is None:
        return hashes
    before = _own_checkpoint(epath.Path(initial_checkpoint_path))
    earlier = None if before is None else evaluation_sets.record_of(before.parent.parent)
    return hashes | (earlier or frozenset())


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


def check_same_run(folder: epath.Path, config: dict[str, Any]) -> None:
    """Checks that checkpoints of an earlier run are of the same student, objective and data.

    Raises:
      ValueError: they are not; every differing setting is named.
    """
    if checkpoints.latest_step(folder) is None:
        return
    before = checkpoints.read_config(folder)
    changed = _differences(before["model"], config["model"])
    if changed:
        raise ValueError(
            f"'{folder}' holds checkpoints of another student ({changed}); give another MODEL_DIR"
        )
    # Runs of earlier versions do not name what they could not choose.
    names = {"objective": None, "data": None, **dataclasses.asdict(losses.Rule())}
    changed = _differences(
        *({name: run.get(name, usual) for name, usual in names.items()} for run in (before, config))
    )
    if changed:
        raise ValueError(
            f"'{folder}' holds checkpoints of another run ({changed}; data is a hash of the packed "
            "rows); give another MODEL_DIR"
        )


def load_initial(path: str, model: Model, *, shapes: Any, student_tokenizer: dict[str, Any]) -> Any:
    """Loads parameters for a student to start from.

    Args:
      path: a Hugging Face folder, a folder that `train` or `convert` wrote, or one of its
        checkpoints.
      model: the student.
      shapes: of its parameters, with shardings.
      student_tokenizer: of the data, to be compared with that of an earlier run.

    Raises:
      ValueError: the folder holds a student of another shape or tokenizer.
    """
    found = _own_checkpoint(epath.Path(path))
    if found is None:
        # Master parameters are float32, whatever the folder was saved in.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
        config, params = convert.load_hf(
            path, dtype="float32", shardings=shardings, vocab_size=model.config.vocab_size
        )
        changed = _differences(dataclasses.asdict(config), dataclasses.asdict(model.config))
    else:
        run = checkpoints.read_config(found.parent)
        changed = _differences(run["model"], dataclasses.asdict(model.config))
        # What `convert` made of a checkpoint without a tokenizer has none.
        if (stored := run["student_tokenizer"]) is not None:
            there, here = stored["sha256"], student_tokenizer["sha256"]
            if there != here:
                changed = f"student_tokenizer: {there[:12]} there, {here[:12]} here; {changed}"
    if changed:
        raise ValueError(f"INITIAL_CHECKPOINT_PATH '{path}' is not a '{model.name}': {changed}")
    if found is not None:
        params = checkpoints.restore_params(found.parent, int(found.name), shapes)
    return params


def _own_checkpoint(path: epath.Path) -> epath.Path | None:
    """Returns the checkpoint that a path means, if it is of a run of ours."""
    if path.name.isdigit() and (path.parent / "config.json").exists():
        return path
    folder = path / "checkpoints"
    step = checkpoints.latest_step(folder)
    return None if step is None else folder / str(step)


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Returns which settings of a stored student differ from the one asked for.

    What changes how a student is computed, and not what its parameters are, may differ.
    """
    asked = {name: value for name, value in here.items() if name not in models.NUMERICS}
    return folders.differences(there, asked)
