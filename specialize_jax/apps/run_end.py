"""How another process knows that a training run has ended: a file that `train` leaves then."""

from etils import epath

from specialize_jax.apps import processes
from specialize_jax.schemas import folders
from specialize_jax.training import checkpoints

_NAME = "finished.json"


def clear(folder: epath.PathLike) -> None:
    """Says that a run is under way, when it begins or goes on; the first process does it."""
    if processes.is_first():
        (epath.Path(folder) / _NAME).unlink(missing_ok=True)


def mark(folder: epath.PathLike, step: int) -> None:
    """Says that all steps of a run are done; the first process does it."""
    if processes.is_first():
        folders.write_json(epath.Path(folder) / _NAME, {"step": step})


def read(folder: epath.PathLike) -> str | None:
    """Returns in words how a run has ended; None where nothing says that it has.

    It has where all steps are done, and where it stopped at the update after its last checkpoint,
    or at that checkpoint's (`training.stops`). A run that was killed may go on, and has not.
    """
    folder = epath.Path(folder)
    if (folder / _NAME).exists():
        return "the run is finished"
    last = checkpoints.latest_step(folder / "checkpoints")
    for step in () if last is None else (last, last + 1):
        if (path := folder / f"stopped_at_{step}.json").exists():
            return f"the run stopped, see '{path}'"
    return None
