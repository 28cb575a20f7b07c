"""What an earlier run left: checkpoints to go on from, or parameters to start from."""

import dataclasses
from typing import Any

import jax
from etils import epath

from specialize_jax import convert, losses, models
from specialize_jax.apps import evaluation_sets, questions
from specialize_jax.models import Model
from specialize_jax.schemas import folders
from specialize_jax.training import checkpoints


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


def load_params(path: str, model: Model, *, shapes: Any, student_tokenizer: dict[str, Any]) -> Any:
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
    found = own_checkpoint(epath.Path(path))
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


def own_checkpoint(path: epath.Path) -> epath.Path | None:
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


def trained_questions(
    packed_dir: str, info: dict[str, Any], initial_checkpoint_path: str | None
) -> frozenset[str] | None:
    """Returns the hashes of the questions of packed rows, and of the run that is started from.

    None where nothing says those of the rows. What a published checkpoint saw is not known.
    """
    hashes = questions.read_training(packed_dir, info)
    if hashes is None or initial_checkpoint_path is None:
        return hashes
    before = own_checkpoint(epath.Path(initial_checkpoint_path))
    earlier = None if before is None else evaluation_sets.record_of(before.parent.parent)
    return hashes | (earlier or frozenset())
