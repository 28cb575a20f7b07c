"""Saving and restoring with Orbax.

A folder of checkpoints:

    <folder>/config.json            what the caller needs to build the model again
    <folder>/<step>/params/         parameters
    <folder>/<step>/optimizer/      optimizer state, step, base key
    <folder>/<step>/progress/       JSON: the data state, the metrics since the last line, and the
                                    held-out values of this step, if it has any
    <folder>/<step>/manifest.json   sizes and hashes of all this; see `manifest`

A step's folder gets its name when all but the manifest is written; one that a killed run left
half-written carries a temporary name, is never read, and is removed when the next run begins.
Arrays and manifest are written while training goes on.
"""

import concurrent.futures
import contextlib
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from specialize_jax.schemas import SchemaError
from specialize_jax.training import disk, manifest
from specialize_jax.training.disk import CheckpointError, prepare
from specialize_jax.training.keeping import Keep, Policy, Scores
from specialize_jax.training.stored import (
    all_steps,
    check,
    check_fits,
    check_manifest,
    latest_step,
    params_path,
    placed,
    read_config,
    restore_params,
    unreadable,
    write_config,
)
from specialize_jax.training.train_state import TrainState

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Keep",
    "Restored",
    "all_steps",
    "check",
    "latest_step",
    "params_path",
    "prepare",
    "read_config",
    "restore_params",
    "unreadable",
    "write_config",
]

_ITEMS = ("params", "optimizer", "progress")
_UNFINISHED = ".orbax-checkpoint-tmp*"  # after the step: Orbax's name for what it is writing
_REMOVED = ".removed"  # checkpoints that are being removed; a step's folder goes there at once


class Restored(NamedTuple):
    """What a checkpoint gives back.

    Attributes:
      state: arrays in the shardings that were asked for.
      data_state: as it was given to `save`.
      window: as it was given to `save`.
    """

    state: TrainState
    data_state: dict[str, Any]
    window: dict[str, Any]


class Checkpoints:
    """A folder of checkpoints that a run writes to. Close it, or use it in a `with` statement.

    Args:
      folder: made if absent; a relative path is taken from the working folder. What a killed run
        left unfinished in it is removed.
      keep: which checkpoints are kept; None, the default, keeps all, since the papers evaluate
        every one of them to choose. Others are removed when a newer one is complete.
      config: plain values stored beside the checkpoints, see `read_config`; None leaves what is
        there.

    Raises:
      CheckpointError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        *,
        keep: Keep | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        self.folder = prepare(folder)
        self._config = config
        self._keep = keep or Keep()
        self._policy = Policy(self._keep)
        self._clear()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                # Not removed in place: a kill in the middle would leave half of it by its name.
                todelete_subdir=_REMOVED,
            ),
            item_names=_ITEMS,
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._saving: concurrent.futures.Future[None] | None = None
        self._failed = ""  # the step that could not be written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as another:
            if error is None:
                raise
            error.add_note(f"Besides: {another}")  # what came first matters more

    def save(
        self,
        state: TrainState,
        *,
        data_state: Mapping[str, Any],
        window: Mapping[str, Any] | None = None,
        scores: Scores | None = None,
    ) -> None:
        """Starts writing; returns when the arrays may be donated. Does nothing for a step saved.

        Args:
          state: at any step.
          data_state: where the data stands, plain values: `{"seed", "epoch", "index"}`.
          window: `metrics.Window.to_json()`.
          scores: held-out values at this step, plain values by name; None where there are none.

        Raises:
          CheckpointError: this checkpoint, or the one before in the background, cannot be written.
            What it left is removed; those before it are kept.
          ValueError: `scores` lack what `keep` goes by; the checkpoint is saved all the same.
        """
        self.wait()
        step = int(jax.device_get(state.step))
        if step in self._manager.all_steps():
            return
        self.know_scores({step: scores} if scores else {})
        progress = {
            "data_state": dict(data_state),
            "window": dict(window or {}),
            "scores": scores and dict(scores),
        }
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
        with self._writing(step, size):
            # Not before: by now what was there, if anything, has been restored into this model.
            if self._config is not None and jax.process_index() == 0:
                write_config(self.folder, self._config)
                self._config = None
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    optimizer=ocp.args.StandardSave(_all_but_params(state)),
                    progress=ocp.args.JsonSave(progress),
                ),
            )
        self._saving = self._thread.submit(self._finish, step, size)
        self._keep.check(scores)

    def know_scores(self, scores: Mapping[int, Scores]) -> None:
        """Tells held-out values by step, of checkpoints that do not hold theirs.

        Those of earlier versions do not, nor one that SIGTERM had saved before its values were.
        """
        if self._keep.best is not None:
            for step in self._manager.all_steps():
                if step not in self._policy.scores:
                    self._policy.scores[step] = self._stored_scores(step)
            known = self._policy.scores
            known.update({s: dict(v) for s, v in scores.items() if known.get(s) is None})

    def restore_latest(self, like: TrainState) -> Restored | None:
        """The latest checkpoint that can be read and is what was written.

        One that is not (files missing, cut short, changed) is named in a warning, set aside as
        `<step>.corrupt`, and the one before it is used.

        Args:
          like: shapes, types and shardings; see `partitioning.with_shardings`.

        Returns:
          What was stored; None where there is no checkpoint.

        Raises:
          CheckpointError: the latest sound one is of another model or optimizer, or there are
            checkpoints but none can be read; or one of several processes cannot read its part.
        """
        like = placed(like)
        failed: list[tuple[int, Exception]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, like)
            except CheckpointError:
                raise
            except Exception as error:  # whatever a damaged file makes the readers raise
                if jax.process_count() > 1 and not isinstance(error, SchemaError):
                    raise _cannot_agree(self.folder / str(step), error) from error
                failed.append((step, error))
                continue
            self._set_aside(failed)
            return restored
        if failed:
            step, reason = failed[0]
            raise CheckpointError(
                f"None of the checkpoints {[step for step, _ in failed]} in {self.folder} can be "
                f"read; step {step} says: {reason}"
            ) from reason
        return None

    def wait(self) -> None:
        """Returns when everything saved is complete on disk.

        Raises:
          CheckpointError: it cannot be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Waits, see `wait`, and ends the writer's threads."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            # After a failed save Orbax repeats what was raised already, and may write on till here.
            quiet = contextlib.suppress(*([Exception] if self._failed else []))
            with quiet:
                self._manager.wait_until_finished()
            with quiet:
                self._manager.close()
            self._clear(self._failed)

    @contextlib.contextmanager
    def _writing(self, step: int, size: int) -> Iterator[None]:
        """What fails inside is a CheckpointError, and leaves nothing half-written."""
        try:
            with disk.writing(f"the checkpoint of step {step}", self.folder, needed=size):
                yield
        except CheckpointError:
            self._failed = str(step)
            self._clear(self._failed)
            raise

    def _finish(self, step: int, size: int) -> None:
        """In the background: when Orbax is done, the manifest, and the end of what was removed."""
        with self._writing(step, size):
            self._manager.wait_until_finished()
            if jax.process_index() == 0 and manifest.is_for(self.folder):
                manifest.write(self.folder / str(step))
        self._clear(str(step))

    def _clear(self, step: str = "*") -> None:
        """Removes what is removed by name only, and what is unfinished of a step or of all."""
        if jax.process_index() == 0 and manifest.is_for(self.folder):
            for path in [*self.folder.glob(step + _UNFINISHED), self.folder / _REMOVED]:
                disk.remove(path)

    def _restore(self, step: int, like: TrainState) -> Restored:
        check_manifest(self.folder / str(step))
        check_fits(self.folder / str(step) / "params", like.params)
        check_fits(self.folder / str(step) / "optimizer", _all_but_params(like))
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(like.params),
                optimizer=ocp.args.StandardRestore(_all_but_params(like)),
                progress=ocp.args.JsonRestore(),
            ),
        )
        state = TrainState(params=found["params"], **found["optimizer"])
        return Restored(state, found["progress"]["data_state"], found["progress"]["window"])

    def _stored_scores(self, step: int) -> Scores | None:
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
            )
            return found["progress"].get("scores")
        except Exception:  # damaged; `restore_latest` looks into that where it matters
            return None

    def _set_aside(self, failed: list[tuple[int, Exception]]) -> None:
        for step, error in failed if jax.process_index() == 0 else ():
            path = self.folder / str(step)
            aside = self.folder / f"{step}.corrupt"
            while aside.exists():  # of an earlier time
                aside = self.folder / f"{aside.name}.corrupt"
            warnings.warn(
                f"The checkpoint {path} is damaged and was renamed to {aside.name}; the one "
                f"before it is used. What was wrong: {type(error).__name__}: {error}",
                stacklevel=3,
            )
            path.rename(aside)
        if failed:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("checkpoints set aside")
            self._manager.reload()


def _cannot_agree(path: epath.Path, error: Exception) -> CheckpointError:
    """The error of a process that alone may have met it.

    A manifest is compared by one for all. What goes wrong in reading, each meets in its own part,
    while the others wait for it in Orbax and cannot be asked.
    """
    reason = (str(error).splitlines() or [""])[0][:300]
    return CheckpointError(
        f"Process {jax.process_index()} cannot read its part of {path}: {type(error).__name__}: "
        f"{reason}. If it is damaged, move it away, and the same command goes on from the one "
        "before."
    )


def _all_but_params(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "rng": state.rng}
