"""The evaluation sets of a run, and the check that no question of them was trained on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from specialize_jax.apps import gin_setup, questions
from specialize_jax.evaluation import contamination, readers
from specialize_jax.evaluation.readers import Question

Found = dict[str, list[Question]]
"""Set -> its questions that were trained on."""


class Sets(NamedTuple):
    """Evaluation sets as gin files and flags name them.

    Attributes:
      names: of `evaluation.readers.SETS`.
      module: registers sets of its own when it is imported.
      data: folder of public data sets.
    """

    names: Sequence[str] = ()
    module: str | None = None
    data: str | None = None


NO_SETS = Sets()


def from_gin(data: str | None) -> Sets:
    """Returns the sets of `evaluate`, as far as the parsed gin files name them: a run may not.

    Args:
      data: folder of public data sets; None for the files' own.
    """
    names = gin_setup.macro("EVAL_SETS")
    return Sets(
        names if isinstance(names, (list, tuple)) else (),
        gin_setup.macro("EVAL_SETS_MODULE"),
        data or gin_setup.macro("DATA_DIR"),
    )


def check(
    hashes: frozenset[str] | None,
    sets: Mapping[str, Sequence[Question]],
    where: epath.PathLike,
    *,
    allowed: bool,
) -> Found | None:
    """Checks that no question was trained on, and prints what was found in a line.

    Args:
      hashes: of the training questions; None where nothing says them.
      sets: name -> questions.
      where: the folder that should say them.
      allowed: whether a question that was trained on is a warning, and no error.

    Returns:
      What was found; None where nothing could be checked.

    Raises:
      ContaminationError: see `contamination.check`.
    """
    if hashes is None:
        print(
            f"not checked whether evaluation questions were trained on: '{where}' has no "
            f"'{questions.FILES[questions.TRAINING]}' (packed by an earlier version?)"
        )
        return None
    found = contamination.check(sets, hashes, allowed=allowed)
    warning = "WARNING (ALLOW_CONTAMINATION): " if any(found.values()) else ""
    print(f"{warning}{contamination.describe(found, sets)}")
    return found


def check_training(
    hashes: frozenset[str] | None,
    held_out: Iterable[questions.HeldOut] | None,
    sets: Sets,
    packed_dir: epath.PathLike,
    *,
    allowed: bool,
) -> None:
    """Checks before training; a set that cannot be read here is named in a line, not an error.

    Args:
      hashes: of the training questions; None where nothing says them.
      held_out: the validation questions of the packed rows.
      sets: what the student is to be scored on later.
      packed_dir: the packed rows.
      allowed: see `check`.

    Raises:
      ContaminationError: see `contamination.check`.
    """
    readable: dict[str, list[Question]] = {}
    if hashes is not None:
        unread: dict[str, list[str]] = {}
        for name in sets.names:
            try:
                gin_setup.import_module("EVAL_SETS_MODULE", sets.module)
                readable[name] = readers.read(name, sets.data)
            except (ValueError, OSError) as error:
                unread.setdefault(str(error).replace(f"'{name}'", "them"), []).append(name)
        for reason, names in unread.items():
            print(f"not checked whether they were trained on: {', '.join(names)} ({reason})")
        if held_out is not None:
            readable["validation"] = [one.question for one in held_out]
    check(hashes, readable, packed_dir, allowed=allowed)


def record_of(model_dir: epath.PathLike) -> frozenset[str] | None:
    """Returns the hashes of what the student of a MODEL_DIR was trained on; None if unknown."""
    path = _record(model_dir)
    return contamination.read(path) if path.exists() else None


def keep_record(model_dir: epath.PathLike, hashes: frozenset[str] | None) -> None:
    """Writes what `record_of` reads; a resumed run keeps what is there."""
    if hashes is not None and not (path := _record(model_dir)).exists():
        contamination.write(path, hashes)


def _record(model_dir: epath.PathLike) -> epath.Path:
    return epath.Path(model_dir) / questions.FILES[questions.TRAINING]
