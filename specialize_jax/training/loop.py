"""The training program: restore or start, then steps, lines, held-out losses and checkpoints."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Self

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from specialize_jax.training import checkpoints, metrics, partitioning, profiling, screen, stops
from specialize_jax.training.step import EvalStep, TrainStep
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
    max_to_keep: int | None = None,
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

    Args:
      like: shapes, types and shardings of the state (`partitioning.with_shardings`).
      start: makes the first state, called only where no checkpoint is found.
      train_step: see `step.make_train_step`.
      model_dir: checkpoints go to `checkpoints/` in it, lines to `metrics.jsonl`.
      batches: global index of the first row -> batches from there on, of the rows that this host's
        devices hold (`partitioning.local_rows`; all of them without a mesh). It has to last until
        `train_steps`.
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
        each checkpoint.
      eval_fn: state -> values for a line of split "validation"; see `evaluator`.
      eval_period: steps between its calls; it is also called at the last step.
      max_to_keep: see `checkpoints.Checkpoints`.
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
      ValueError: a period is not positive, the data ended early, or it is not the data that the
        checkpoint was trained on.
      checkpoints.CheckpointError: see there.
    """
    _check_positive(batch_size=batch_size, save_period=save_period, log_period=log_period)
    _check_positive(eval_period=eval_period)
    model_dir = epath.Path(model_dir)
    folder = model_dir / "checkpoints"
    is_first_host = jax.process_index() == 0
    with (
        contextlib.ExitStack() as at_end,
        checkpoints.Checkpoints(folder, max_to_keep=max_to_keep, config=config) as saved,
        _StopSignal() as stop,
        profiling.Trace(model_dir / "profile", profile_steps) as trace,
    ):
        for writer in writers:
            at_end.callback(writer.close)

        # Restore or start.
        restored = saved.restore_latest(like)
        state = start() if restored is None else restored.state
        window = metrics.Window(None if restored is None else restored.window)
        watch = stops.Watch(max_loss_rise, restored and restored.window.get("watch"))
        step = int(state.step)
        if restored is not None:
            _check_same_data(restored.data_state, data_state(step * batch_size), step)
        lines = metrics.MetricsFile(model_dir / "metrics.jsonl", write=is_first_host)
        lines.cut_after(step)
        if is_first_host:
            print(f"{'restored' if restored else 'starting'} at step {step}", file=sys.stderr)

        def save(state: TrainState, step: int) -> epath.Path:
            stored = window.to_json() | {"watch": watch.to_json()}
            saved.save(state, data_state=data_state(step * batch_size), window=stored)
            return saved.folder / str(step)

        last_words = stops.LastWords(
            model_dir, batch_size, save, describe_row, group_names, write=is_first_host
        )

        def tell(split: str, values: Mapping[str, Any]) -> None:
            for writer in (lines, *writers):
                writer.write(step, split, values)

        if save_first and restored is None:
            save(state, 0)

        # Steps.
        pending: list[tuple[int, Any]] = []
        clock = screen.Clock()
        rows = batches(step * batch_size) if step < train_steps else iter(())
        while step < train_steps and not stop.requested(step):
            batch = _next_batch(rows, step, train_steps)
            placed: Mapping[str, Any] = batch
            if mesh is not None:
                placed = partitioning.shard_batch(batch, mesh, batch_rows=batch_size)
            trace.before(step + 1, state)
            state, step_metrics = train_step(state, placed)
            step += 1
            pending.append((step, step_metrics))
            if trace.after(step, step_metrics):  # writing it took longer than the steps
                clock = screen.Clock()
            if not clock.running:  # the first step compiles: its time says nothing
                jax.block_until_ready(step_metrics)
                clock.start()
            else:
                clock.steps += 1

            is_last = step == train_steps
            is_line = is_last or step % log_period == 0
            is_eval = eval_fn is not None and (is_last or step % eval_period == 0)
            is_save = is_last or step % save_period == 0
            if is_line or is_eval or is_save:
                if bad := _fetch(pending, window):
                    raise last_words.not_finite(*bad, state)
                clock.stop()
            if is_line:
                values = window.summary(group_names)
                rate = clock.steps_per_second()
                values |= screen.speed(rate, values["tokens"] / window.steps, step_flops)
                tell("train", values)
                if is_first_host:
                    print(
                        screen.line(step, train_steps, values, rate, group_names), file=sys.stderr
                    )
                window, clock = metrics.Window(), screen.Clock()
                if watch.add(values["loss"]):
                    raise last_words.diverged(step, values, watch.best, state)
            if is_eval:
                assert eval_fn is not None
                values = dict(eval_fn(state))
                tell("validation", values)
                if is_first_host:
                    print(screen.held_out(step, values, group_names), file=sys.stderr)
            if is_save:
                save(state, step)
            clock.start()

        # Stopped early: keep what is done.
        if step < train_steps:
            if bad := _fetch(pending, window):
                raise last_words.not_finite(*bad, state)
            save(state, step)
            if is_first_host:
                print(f"SIGTERM: saved step {step} of {train_steps}", file=sys.stderr)
    return state


def evaluator(
    eval_step: EvalStep,
    batches: Callable[[], Iterable[Batch]],
    *,
    mesh: Mesh | None = None,
    group_names: Sequence[str] = metrics.FORMATS,
) -> Callable[[TrainState], dict[str, float | None]]:
    """A held-out loss for `fit`.

    Args:
      eval_step: see `step.make_eval_step`.
      batches: makes an iterator over the same batches, whole on every host, each time it is called.
      mesh: where batches go; None for the default device.
      group_names: see `fit`.

    Returns:
      state -> the values of a line, see `metrics.summarize`.
    """

    def evaluate(state: TrainState) -> dict[str, float | None]:
        sums = []
        for batch in batches():
            placed = dict(batch) if mesh is None else partitioning.shard_batch(batch, mesh)
            sums.append(eval_step(state.params, placed))
        window = metrics.Window()
        for one in jax.device_get(sums):
            window.add(one)
        return window.summary(group_names)

    return evaluate


class _StopSignal:
    """Whether SIGTERM came. Several hosts agree on the step through JAX's preemption service."""

    def __enter__(self) -> Self:
        self._came = False
        self._alone = jax.process_count() == 1
        # Python lets only the main thread set handlers; elsewhere the caller's stays.
        self._sets = self._alone and threading.current_thread() is threading.main_thread()
        if self._sets:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._sets:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def requested(self, step: int) -> bool:
        return self._came if self._alone else multihost_utils.reached_preemption_sync_point(step)


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


def _next_batch(rows: Iterator[Batch], step: int, train_steps: int) -> Batch:
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
