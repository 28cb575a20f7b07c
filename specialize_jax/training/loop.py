"""The training program: restore or start, then steps, lines, held-out losses and checkpoints."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from specialize_jax.training import (
    checkpoints,
    metrics,
    partitioning,
    preemption,
    prefetch,
    profiling,
    screen,
    stops,
)
from specialize_jax.training.held_out import HeldOut
from specialize_jax.training.step import TrainStep
from specialize_jax.training.train_state import TrainState, may_apply

Batch = Mapping[str, np.ndarray]


def fit(
    like: TrainState,
    start: Callable[[], TrainState],
    train_step: TrainStep,
    *,
    model_dir: epath.PathLike,
    batches: Callable[[int], Iterator[Batch]],
    data_state: Callable[[int], Mapping[str, Any]],
    batch_size: int,
    train_steps: int,
    mesh: Mesh | None = None,
    save_period: int = 1000,
    save_first: bool = False,
    log_period: int = 100,
    eval_fn: Callable[[TrainState], Mapping[str, Any]] | None = None,
    eval_period: int = 1000,
    keep: checkpoints.Keep | None = None,
    config: Mapping[str, Any] | None = None,
    group_names: Sequence[str] = metrics.FORMATS,
    step_flops: int | None = None,
    writers: Sequence[metrics.Writer] = (),
    profile_steps: tuple[int, int] | None = None,
    max_loss_rise: float | None = None,
    describe_row: stops.DescribeRow | None = None,
) -> TrainState:
    """Trains to `train_steps`, from the latest checkpoint in `model_dir` if there is one.

    A run that was stopped, by SIGTERM or by a kill, and started again gives bit for bit what an
    uninterrupted run gives (on one kind of device), and its `metrics.jsonl` reads as one run.
    SIGTERM saves after the step that runs. A held-out loss that it interrupts is computed when
    the run goes on.

    Args:
      like: shapes, types and shardings of the state (`partitioning.with_shardings`).
      start: makes the first state, called only where no checkpoint is found.
      train_step: see `step.make_train_step`.
      model_dir: checkpoints go to `checkpoints/` in it, lines to `metrics.jsonl`.
      batches: global index of the first row -> batches from there on, of the rows that this host's
        devices hold (`partitioning.local_rows`; all of them without a mesh). It has to last until
        `train_steps`. A thread calls it ahead of the steps.
      data_state: global index of the next row -> what is stored with a checkpoint,
        `{"seed", "epoch", "index"}`. A pure function of the index; on resume it must give what was
        stored, or the data is not the data of this run.
      batch_size: rows of the global batch.
      train_steps: updates in all, those of earlier runs included.
      mesh: where batches go; None for the default device.
      save_period: steps between checkpoints; the last step is always saved.
      save_first: whether the state is saved before the first step too, to be scored beside the
        later ones.
      log_period: steps between lines; metrics are fetched from the device once for each line and
        each checkpoint. A line's `data_wait` is the share of its steps' time in which the next
        batch was waited for.
      eval_fn: state -> values for a line of split "validation"; see `evaluator`.
      eval_period: steps between its calls; it is also called at the last step.
      keep: see `checkpoints.Checkpoints`. The best are told by the line of split "validation" of
        the same step, so every checkpoint needs one.
      config: see `checkpoints.Checkpoints`.
      group_names: names of the loss's groups; the four data formats.
      step_flops: of a step on all devices; where the devices' peak is known, lines then say `mfu`,
        the share of it.
      writers: get every line that `metrics.jsonl` gets, and are closed at the end.
      profile_steps: (first step, how many) that are traced into `profile/`; see `profiling.Trace`.
      max_loss_rise: see `stops.Watch`.
      describe_row: global index of a row -> names of its examples, for the errors below.

    Returns:
      The last state. Its step is below `train_steps` if SIGTERM stopped the run.

    Raises:
      stops.NotFiniteError: names the step whose loss or gradient is not finite. The state before
        it is saved, and `stopped_at_<step>.json` names the examples of its batch.
      stops.DivergedError: the loss rose by more than `max_loss_rise`; the same is left.
      preemption.Stopped: SIGTERM came in the last held-out loss; all steps are done and saved.
      ValueError: a period is not positive, the data ended early, it is not the data that the
        checkpoint was trained on, or the best checkpoints cannot be told.
      checkpoints.CheckpointError: see there.
    """
    _check_positive(batch_size=batch_size, save_period=save_period, log_period=log_period)
    _check_positive(eval_period=eval_period)
    if keep is not None:
        keep.check_periods(save_period, None if eval_fn is None else eval_period)
    model_dir = epath.Path(model_dir)
    folder = model_dir / "checkpoints"
    is_first_host = jax.process_index() == 0
    with (
        preemption.StopSignal() as stop,  # outlives the last save, which a second signal would end
        contextlib.ExitStack() as at_end,
        checkpoints.Checkpoints(folder, keep=keep, config=config) as saved,
        profiling.Trace(model_dir / "profile", profile_steps) as trace,
    ):
        for writer in writers:
            at_end.callback(writer.close)

        # Restore or start.
        restored = saved.restore_latest(like)
        state = start() if restored is None else restored.state
        window = metrics.Window(None if restored is None else restored.window)
        watch = stops.Watch(max_loss_rise, restored and restored.window.get("watch"))
        step = int(jax.device_get(state.step))
        if restored is not None:
            _check_same_data(restored.data_state, data_state(step * batch_size), step)
        lines = metrics.MetricsFile(model_dir / "metrics.jsonl", write=is_first_host)
        lines.cut_after(step)
        person = screen.Screen(train_steps, group_names, write=is_first_host)
        person.say(f"{'restored' if restored else 'starting'} at step {step}")

        everywhere: list[metrics.Writer] = [lines, person, *writers]

        def tell(step: int, split: str, values: Mapping[str, Any]) -> None:
            for writer in everywhere:
                writer.write(step, split, values)

        held_out = HeldOut(eval_fn, eval_period, train_steps, tell, lines.held_out(step))

        def save(state: TrainState, step: int) -> epath.Path:
            stored = window.to_json() | {"watch": watch.to_json()}
            scores = held_out.scores.get(step)
            saved.save(
                state, data_state=data_state(step * batch_size), window=stored, scores=scores
            )
            return saved.folder / str(step)

        last_words = stops.LastWords(
            model_dir, batch_size, save, describe_row, group_names, write=is_first_host
        )

        if save_first and restored is None:
            save(state, 0)

        if _agreed(held_out.is_due(step)):  # SIGTERM came before
            held_out.run(step, state)
        saved.know_scores(held_out.scores)

        # Steps.
        pending: list[tuple[int, Any]] = []
        clock = screen.Clock()
        rows = batches(step * batch_size) if step < train_steps else iter(())
        place = functools.partial(partitioning.place, mesh=mesh, batch_rows=batch_size)
        placed = at_end.enter_context(prefetch.Prefetch(rows, place))
        while step < train_steps and not stop.requested(step):
            batch = _next_batch(placed, step, train_steps)
            trace.before(step + 1, state)
            state, step_metrics = train_step(state, batch)
            step += 1
            pending.append((step, step_metrics))
            if trace.after(step, step_metrics):  # writing it took longer than the steps
                clock = screen.Clock()
            if not clock.running:  # the first step compiles: its time says nothing
                jax.block_until_ready(step_metrics)
                clock.start(placed.waited)
            else:
                clock.steps += 1

            is_last = step == train_steps
            is_line = is_last or step % log_period == 0
            is_eval = held_out.is_due(step)
            is_save = is_last or step % save_period == 0
            if is_line or is_eval or is_save:
                if bad := _fetch(pending, window):
                    raise last_words.not_finite(*bad, state)
                clock.stop(placed.waited)
            if is_line:
                values, rate = window.summary(group_names), clock.steps_per_second()
                values |= screen.speed(rate, values["tokens"] / window.steps, step_flops)
                values["data_wait"] = clock.share_waited()
                tell(step, "train", values)
                window, clock = metrics.Window(), screen.Clock()
                if watch.add(values["loss"]):
                    raise last_words.diverged(step, values, watch.best, state)
            if is_eval:
                held_out.run(step, state)
            if is_save:
                save(state, step)
            clock.start(placed.waited)

        # Stopped early: keep what is done.
        if step < train_steps:
            if bad := _fetch(pending, window):
                raise last_words.not_finite(*bad, state)
            save(state, step)
            person.say(f"SIGTERM: saved step {step} of {train_steps}")
    if step == train_steps and held_out.is_due(step):
        raise preemption.Stopped(f"SIGTERM: saved step {step}; its held-out loss is still to come")
    return state


def _agreed(value: bool) -> bool:
    """What the first host says: others may see a file of its a little later."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _fetch(
    pending: list[tuple[int, Any]], window: metrics.Window
) -> tuple[int, dict[str, Any]] | None:
    """Moves the metrics of the steps since the last fetch to the host and adds them.

    Returns:
      Step and metrics of the first update that was not applied, which is not added; or None.
    """
    for (step, _), values in zip(pending, jax.device_get([m for _, m in pending]), strict=True):
        if not may_apply(values):
            return step, values
        window.add(values)
    pending.clear()
    return None


def _next_batch(
    rows: Iterator[Mapping[str, jax.Array]], step: int, train_steps: int
) -> Mapping[str, jax.Array]:
    try:
        return next(rows)
    except StopIteration:
        raise ValueError(
            f"The data ended after step {step}; train_steps={train_steps} needs it to go on."
        ) from None


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"Expected {name} >= 1, got {value}.")


def _check_same_data(stored: Mapping[str, Any], now: Mapping[str, Any], step: int) -> None:
    if dict(stored) != dict(now):
        raise ValueError(
            f"The checkpoint of step {step} was trained on data at {dict(stored)}, but the data "
            f"given now is at {dict(now)} there (another seed, batch size or data set?). Use the "
            "old settings, or a new model_dir that starts from this checkpoint's parameters."
        )
