"""A folder of checkpoints as whoever did not write it sees it: steps, config, parameters.

See `checkpoints` for what lies where.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from specialize_jax.schemas import SchemaError, folders
from specialize_jax.training import disk, manifest
from specialize_jax.training.disk import CheckpointError

_CONFIG = "config.json"


def all_steps(folder: epath.PathLike) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending; none where it does not exist."""
    folder = disk.absolute(folder)
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


def check(folder: epath.PathLike, step: int) -> bool:
    """Compares every file of a checkpoint with its manifest; reads the parameters, too.

    Args:
      folder: of checkpoints.
      step: one of `all_steps(folder)`.

    Returns:
      False where there is no manifest, so that only the parameters were read.

    Raises:
      CheckpointError: no such step, or a file is not what it was; the message names it.
    """
    path = params_path(folder, step).parent
    try:
        compared = manifest.check(path)
    except SchemaError as error:
        raise CheckpointError(f"The checkpoint {path} is damaged: {error}") from error
    if (path / "optimizer").exists() and not (path / "progress").exists():
        raise CheckpointError(f"The checkpoint {path} is damaged: it has no 'progress'")
    _restore_params(folder, step, None)
    return compared


def _restore_params(folder: epath.PathLike, step: int, like: Any) -> Any:
    """See `restore_params`; without `like`, shapes and types are the stored ones."""
    path = params_path(folder, step)
    try:
        check_manifest(path.parent, "params")
        if like is None:
            like = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                ocp.StandardCheckpointHandler().metadata(path).tree,
            )
        else:
            check_fits(path, like)
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(path, placed(like))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise unreadable(path.parent, error) from error


def params_path(folder: epath.PathLike, step: int) -> epath.Path:
    """Where the parameters of a step lie.

    Raises:
      CheckpointError: no such step.
    """
    folder = disk.absolute(folder)
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


def check_manifest(step_folder: epath.Path, part: str = "") -> None:
    """`manifest.check` by the first host, for all; every host calls it.

    Raises:
      SchemaError: see there; other hosts say what the first one found in fewer words.
    """
    damage = None
    if jax.process_index() == 0:
        try:
            manifest.check(step_folder, part)
        except (SchemaError, OSError) as error:
            damage = error
    if jax.process_count() > 1:
        anywhere = multihost_utils.broadcast_one_to_all(np.asarray(damage is not None))
        if anywhere and damage is None:
            damage = SchemaError(f"'{step_folder}' is damaged: see what the first host says")
    if damage is not None:
        raise damage


def write_config(folder: epath.Path, config: Mapping[str, Any]) -> None:
    """Stores what `read_config` reads."""
    folders.write_json(folder / _CONFIG, dict(config))


def read_config(folder: epath.PathLike) -> dict[str, Any]:
    """The config stored beside the checkpoints.

    Args:
      folder: of checkpoints.

    Returns:
      The dict that `Checkpoints` was given; it says under `model` what was trained.

    Raises:
      CheckpointError: there is none, or it is not a JSON object with the key `model`.
    """
    path = disk.absolute(folder) / _CONFIG
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


def placed(like: Any) -> Any:
    """The tree `like`, where leaves without a sharding get that of the first local device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here
        ),
        like,
    )


def check_fits(path: epath.Path, like: Any) -> None:
    """Compares names and shapes with what is stored, before anything large is read.

    Raises:
      CheckpointError: they differ.
    """
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


def _is_complete(path: epath.Path) -> bool:
    # A bucket has no atomic rename: Orbax marks a whole checkpoint there with a file.
    return "://" not in str(path) or (path / "commit_success.txt").exists()
