"""The training program: restore or start, then steps, lines, held-out losses and checkpoints."""

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from specialize_jax.training import checkpoints, chips, metrics, partitioning, stopping
from specialize_jax.training.held_out import HeldOut
from specialize_jax.training.step import EvalStep, TrainStep
from specialize_jax.training.train_state import TrainState

Batch = Mapping[str, np.ndarray]

_AHEAD = 2  # held-out batches that the device is given before it is done with the first


class NotFiniteError(FloatingPointError):
    """The loss or its gradient is NaN or infinite; nothing was saved since it became so."""


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
      keep: see `checkpoints.Checkpoints`. The best are told by the line of split "validation" of
        the same step, so every checkpoint needs one.
      config: see `checkpoints.Checkpoints`.
      group_names: names of the loss's groups; the four data formats.
      step_flops: of a step on all devices; where the devices' peak is known, lines then say `mfu`,
        the share of it.

    Returns:
      The last state. Its step is below `train_steps` if SIGTERM stopped the run.

    Raises:
      NotFiniteError: names the step whose loss or gradient is not finite.
      stopping.Stopped: SIGTERM came in the last held-out loss; all steps are done and saved.
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
        stopping.StopSignal() as stop,  # outlives the last save, which a second signal would end
        checkpoints.Checkpoints(folder, keep=keep, config=config) as saved,
    ):
        # Restore or start.
        restored = saved.restore_latest(like)
        state = start() if restored is None else restored.state
        window = metrics.Window(None if restored is None else restored.window)
        step = int(state.step)
        if restored is not None:
            _check_same_data(restored.data_state, data_state(step * batch_size), step)
        lines = metrics.MetricsFile(model_dir / "metrics.jsonl", write=is_first_host)
        lines.cut_after(step)
        held_out = HeldOut(eval_fn, eval_period, train_steps, lines, step)
        if is_first_host:
            print(f"{'restored' if restored else 'starting'} at step {step}", file=sys.stderr)
        if save_first and restored is None:
            saved.save(state, data_state=data_state(0), window=window.to_json())

        if held_out.is_due(step):  # SIGTERM came before
            held_out.run(step, state)
        saved.know_scores(held_out.scores)

        # Steps.
        pending: list[tuple[int, Any]] = []
        clock = _Clock()
        rows = batches(step * batch_size) if step < train_steps else iter(())
        while step < train_steps and not stop.requested(step):
            batch = _next_batch(rows, step, train_steps)
            placed: Mapping[str, Any] = batch
            if mesh is not None:
                placed = partitioning.shard_batch(batch, mesh, batch_rows=batch_size)
            state, step_metrics = train_step(state, placed)
            step += 1
            pending.append((step, step_metrics))
            if not clock.running:  # the first step compiles: its time says nothing
                jax.block_until_ready(step_metrics)
                clock.start()
            else:
                clock.steps += 1

            is_last = step == train_steps
            is_line = is_last or step % log_period == 0
            is_eval = held_out.is_due(step)
            is_save = is_last or step % save_period == 0
            if is_line or is_eval or is_save:
                _fetch(pending, window)
                clock.stop()
            if is_line:
                values = window.summary(group_names)
                rate = clock.steps_per_second()
                values["tokens_per_second"] = rate and rate * values["tokens"] / window.steps
                values |= _utilization(rate, step_flops)
                lines.append(step, "train", values)
                if is_first_host:
                    print(_progress(step, train_steps, values, rate), file=sys.stderr)
                window, clock = metrics.Window(), _Clock()
            if is_eval:
                held_out.run(step, state)
            if is_save:
                stored = data_state(step * batch_size)
                scores = held_out.scores.get(step)
                saved.save(state, data_state=stored, window=window.to_json(), scores=scores)
            clock.start()

        # Stopped early: keep what is done.
        if step < train_steps:
            _fetch(pending, window)
            stored = data_state(step * batch_size)
            saved.save(state, data_state=stored, window=window.to_json())
            if is_first_host:
                print(f"SIGTERM: saved step {step} of {train_steps}", file=sys.stderr)
    if step == train_steps and held_out.is_due(step):
        raise stopping.Stopped(f"SIGTERM: saved step {step}; its held-out loss is still to come")
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
        sums: list[Any] = []
        for batch in stopping.until_stopped(batches()):
            placed = dict(batch) if mesh is None else partitioning.shard_batch(batch, mesh)
            sums.append(eval_step(state.params, placed))
            if len(sums) > _AHEAD:  # what the device was given has to end before a save can begin
                jax.block_until_ready(sums[-1 - _AHEAD])
        window = metrics.Window()
        for one in jax.device_get(sums):
            window.add(one)
        return window.summary(group_names)

    return evaluate


class _Clock:
    """Times the steps since the last line, without compilation, held-out losses and saving."""

    def __init__(self) -> None:
        self.steps = 0
        self._seconds = 0.0
        self._since: float | None = None

    @property
    def running(self) -> bool:
        return self._since is not None

    def start(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def steps_per_second(self) -> float | None:
        return self.steps / self._seconds if self.steps and self._seconds else None


def _utilization(rate: float | None, step_flops: int | None) -> dict[str, float]:
    """Returns the share of the devices' peak that the steps' FLOPs are, where it is known."""
    if rate is None or step_flops is None:
        return {}
    kind = jax.devices()[0].device_kind
    share = chips.share_of_peak(rate * step_flops, kind, jax.device_count())
    return {} if share is None else {"mfu": share}


def _progress(
    step: int, train_steps: int, values: Mapping[str, float | None], rate: float | None
) -> str:
    """The line on the screen."""
    parts = [f"step {step}/{train_steps}", f"loss {_number(values['loss'], '.4f')}"]
    parts.append(f"{_number(values['tokens_per_second'], ',.0f')} tokens/s")
    if values.get("mfu") is not None:
        parts.append(f"MFU {_number(values['mfu'], '.1%')}")
    if rate is not None:
        left = datetime.timedelta(seconds=round((train_steps - step) / rate))
        parts.append(f"{left} left")
    return "  ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _fetch(pending: list[tuple[int, Any]], window: metrics.Window) -> None:
    """Moves the metrics of the steps since the last fetch to the host, checks and adds them."""
    for (step, _), values in zip(pending, jax.device_get([m for _, m in pending]), strict=True):
        for name in ("loss_sum", "grad_norm"):
            if not np.all(np.isfinite(values[name])):
                raise NotFiniteError(
                    f"{name} is {values[name]} at step {step}; nothing was saved from there on."
                )
        window.add(values)
    pending.clear()


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
