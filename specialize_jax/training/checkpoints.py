"""Saving and restoring with Orbax.

A folder of checkpoints:

    <folder>/config.json          what the caller needs to build the model again
    <folder>/<step>/params/       parameters
    <folder>/<step>/optimizer/    optimizer state, step, base key
    <folder>/<step>/progress/     JSON: the data state and the metrics since the last line

A step's folder gets its name when all is written; one that a killed run left half-written carries
a temporary name, and is never read. Arrays are written while training goes on.
"""

import json
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from specialize_jax.schemas import SchemaError, folders
from specialize_jax.training.train_state import TrainState

_ITEMS = ("params", "optimizer", "progress")
_CONFIG = "config.json"


class CheckpointError(OSError):
    """A checkpoint folder cannot be written, or holds nothing that can be restored."""


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
      folder: made if absent; a relative path is taken from the working folder.
      max_to_keep: older ones are removed; None, the default, keeps all, since the papers evaluate
        every one of them to choose.
      config: plain values stored beside the checkpoints, see `read_config`; None leaves what is
        there.

    Raises:
      CheckpointError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        *,
        max_to_keep: int | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        self.folder = prepare(folder)
        self._config = config
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=max_to_keep),
            item_names=_ITEMS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def save(
        self,
        state: TrainState,
        *,
        data_state: Mapping[str, Any],
        window: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts writing; returns when the arrays may be donated. Does nothing for a step saved.

        Args:
          state: at any step.
          data_state: where the data stands, plain values: `{"seed", "epoch", "index"}`.
          window: `metrics.Window.to_json()`.
        """
        step = int(jax.device_get(state.step))
        if step in self._manager.all_steps():
            return
        # Not before: by now what was there, if anything, has been restored into this model.
        if self._config is not None and jax.process_index() == 0:
            write_config(self.folder, self._config)
            self._config = None
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave(_all_but_params(state)),
                progress=ocp.args.JsonSave(
                    {"data_state": dict(data_state), "window": dict(window or {})}
                ),
            ),
        )

    def restore_latest(self, like: TrainState) -> Restored | None:
        """The latest checkpoint that can be read.

        One that cannot (files missing, cut short) is named in a warning, set aside as
        `<step>.corrupt`, and the one before it is used.

        Args:
          like: shapes, types and shardings; see `partitioning.with_shardings`.

        Returns:
          What was stored; None where there is no checkpoint.

        Raises:
          CheckpointError: the latest sound one is of another model or optimizer, or there are
            checkpoints but none can be read.
        """
        like = _placed(like)
        failed: list[tuple[int, Exception]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, like)
            except CheckpointError:
                raise
            except Exception as error:  # whatever a damaged file makes the readers raise
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
        """Returns when everything saved is complete on disk; raises what went wrong in writing."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the writer's threads."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _restore(self, step: int, like: TrainState) -> Restored:
        _check_fits(self.folder / str(step) / "params", like.params)
        _check_fits(self.folder / str(step) / "optimizer", _all_but_params(like))
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

    def _set_aside(self, failed: list[tuple[int, Exception]]) -> None:
        for step, error in failed:
            path = self.folder / str(step)
            warnings.warn(
                f"The checkpoint {path} is damaged and was renamed to {step}.corrupt; the one "
                f"before it is used. What was wrong: {type(error).__name__}: {error}",
                stacklevel=3,
            )
            if jax.process_index() == 0:
                path.rename(self.folder / f"{step}.corrupt")
        if failed:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("checkpoints set aside")
            self._manager.reload()


def prepare(folder: epath.PathLike) -> epath.Path:
    """Makes the folder, and finds out now, not at the first save, whether it can be written.

    Args:
      folder: of checkpoints; a relative path is taken from the working folder.

    Returns:
      Its absolute path.

    Raises:
      CheckpointError: it cannot be written.
    """
    folder = _absolute(folder)
    if jax.process_index() == 0:
        try:
            folders.make_folder(folder)
        except SchemaError as error:
            raise CheckpointError(f"Cannot write checkpoints to {folder}: {error}") from error
    return folder


def all_steps(folder: epath.PathLike) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending; none where it does not exist."""
    folder = _absolute(folder)
    if not folder.exists():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and _is_complete(p))


def latest_step(folder: epath.PathLike) -> int | None:
    """The last of `all_steps`; None where there is none."""
    steps = all_steps(folder)
    return steps[-1] if steps else None


def restore_params(folder: epath.PathLike, step: int, like: Any) -> Any:
    """Parameters alone, for evaluation.

    Args:
      folder: of checkpoints.
      step: one of `all_steps(folder)`.
      like: tree of `jax.ShapeDtypeStruct`; with shardings, arrays are placed so. Without, they go
        to the first local device.

    Returns:
      The tree of arrays.

    Raises:
      CheckpointError: no such step, the stored parameters are not like `like`, or cannot be read.
    """
    return _restore_params(folder, step, like)


def check_params(folder: epath.PathLike, step: int) -> None:
    """Reads the parameters of a checkpoint, whatever their shapes, and lets go of them.

    Args:
      folder: of checkpoints.
      step: one of `all_steps(folder)`.

    Raises:
      CheckpointError: no such step, or its parameters cannot be read.
    """
    _restore_params(folder, step, None)


def _restore_params(folder: epath.PathLike, step: int, like: Any) -> Any:
    """See `restore_params`; without `like`, shapes and types are the stored ones."""
    path = params_path(folder, step)
    try:
        if like is None:
            like = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                ocp.StandardCheckpointHandler().metadata(path).tree,
            )
        else:
            _check_fits(path, like)
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(path, _placed(like))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise unreadable(path.parent, error) from error


def params_path(folder: epath.PathLike, step: int) -> epath.Path:
    """Where the parameters of a step lie.

    Raises:
      CheckpointError: no such step.
    """
    folder = _absolute(folder)
    if step not in (steps := all_steps(folder)):
        raise CheckpointError(f"No checkpoint of step {step} in {folder}; it has {steps}.")
    return folder / str(step) / "params"


def unreadable(path: epath.PathLike, error: Exception) -> CheckpointError:
    """The error that says why the parameters of a checkpoint cannot be read."""
    reason = (str(error).splitlines() or [""])[0][:300]
    return CheckpointError(
        f"The parameters in {path} cannot be read; expected a complete checkpoint, got "
        f"{type(error).__name__}: {reason}"
    )


def write_config(folder: epath.Path, config: Mapping[str, Any]) -> None:
    """Stores what `read_config` reads."""
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: epath.PathLike) -> dict[str, Any]:
    """The config stored beside the checkpoints.

    Args:
      folder: of checkpoints.

    Returns:
      The dict that `Checkpoints` was given; it says under `model` what was trained.

    Raises:
      CheckpointError: there is none, or it is not a JSON object with the key `model`.
    """
    path = _absolute(folder) / _CONFIG
    if not path.exists():
        raise CheckpointError(f"No {path}: the folder holds no checkpoints written by training.")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:  # neither JSON nor UTF-8
        raise CheckpointError(f"{path}: expected JSON: {error}") from error
    if not isinstance(config, dict) or "model" not in config:
        got = f"keys {sorted(config)}" if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path}: expected a JSON object with the key 'model', got {got}")
    return config


def _placed(like: Any) -> Any:
    """Gives leaves without a sharding that of the first local device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here
        ),
        like,
    )


def _check_fits(path: epath.Path, like: Any) -> None:
    """Compares names and shapes with what is stored, before anything large is read."""
    stored = _shapes(ocp.StandardCheckpointHandler().metadata(path).tree)
    wanted = _shapes(like)
    names = [n for n in sorted({*stored, *wanted}) if stored.get(n) != wanted.get(n)]
    if names:
        some = "; ".join(
            f"{name}: stored {stored.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
            for name in names[:3]
        )
        raise CheckpointError(
            f"{path} is of another model or optimizer; {len(names)} arrays differ: {some}"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _all_but_params(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "rng": state.rng}


def _absolute(folder: epath.PathLike) -> epath.Path:
    folder = epath.Path(folder)
    return folder if "://" in str(folder) else folder.expanduser().absolute()


def _is_complete(path: epath.Path) -> bool:
    # A bucket has no atomic rename: Orbax marks a whole checkpoint there with a file.
    return "://" not in str(path) or (path / "commit_success.txt").exists()
