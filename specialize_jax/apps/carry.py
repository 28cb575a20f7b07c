"""What goes with a model from form to form: its tokenizer, and other files of Hugging Face's."""

import re
from typing import Any

from etils import epath

from specialize_jax import tokenizers
from specialize_jax.convert import carried
from specialize_jax.schemas import folders
from specialize_jax.training import checkpoints

_FILES = "hf"  # in a MODEL_DIR: files of the Hugging Face folder that it came from
_START = re.compile(r"^INITIAL_CHECKPOINT_PATH = (['\"])(.+)\1$", re.MULTILINE)
# `_name_or_path` may be a folder of somebody's; these owners' names are none.
_HUB_NAME = re.compile(r"(google|google-t5|openai-community)/[\w.-]+")
_GENERATIONS = 8  # of runs that started from each other are followed back


def tokenizer_of(folder: epath.Path) -> epath.Path | None:
    """The file of a Hugging Face folder that `tokenizers` loads; None where there is none."""
    found = [folder / name for name in (carried.PIECES, "tokenizer.json")]
    return next((path for path in found if path.exists()), None)


def load_tokenizer(path: epath.Path, rows: int) -> tokenizers.Tokenizer:
    """Loads the tokenizer of a student whose embedding has so many rows.

    Raises:
      ValueError: it has more ids than the embedding rows, or needs a library that is not there.
    """
    try:
        loaded = tokenizers.load(path)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the tokenizer '{path}' needs the package {error.name}: "
            "pip install 'specialize-jax[teacher]'"
        ) from error
    if loaded.vocab_size > rows:
        raise ValueError(
            f"the tokenizer '{path}' has {loaded.vocab_size} ids, the embedding {rows} rows: it is "
            "of another model"
        )
    return loaded


def keep_tokenizer(path: epath.Path, model_dir: epath.Path, rows: int) -> dict[str, Any]:
    """Copies a tokenizer into a MODEL_DIR, as `train` does.

    Args:
      path: its file.
      model_dir: the folder.
      rows: of the embedding.

    Returns:
      What a checkpoint's config.json says of it.

    Raises:
      ValueError: see `load_tokenizer`.
    """
    loaded = load_tokenizer(path, rows)
    names = {"tokenizer.json": path.name}
    file = names.get(path.name, "student_tokenizer.model")
    beside = path.parent / "tokenizer_config.json"
    if path.name in names and beside.exists():  # it names the special tokens
        folders.write_bytes(model_dir / beside.name, beside.read_bytes())
    folders.write_bytes(model_dir / file, path.read_bytes())
    return {
        "file": file,
        "name": loaded.name,
        "sha256": loaded.sha256,
        "vocab_size": loaded.vocab_size,
    }


def check_tokenizer(path: epath.Path, rows: int) -> None:
    """Checks, before long work, that a tokenizer can go into a Hugging Face folder.

    Raises:
      ValueError: Hugging Face has no such form, or see `load_tokenizer`.
    """
    if path.suffix != ".model" and path.name != "tokenizer.json":
        raise ValueError(
            f"'{path}' is no tokenizer of Hugging Face's forms, .model, tokenizer.json"
        )
    load_tokenizer(path, rows)


def put_tokenizer(path: epath.Path, folder: epath.Path) -> None:
    """Puts the student's tokenizer into a Hugging Face folder, unless it is there.

    A tokenizer that came from elsewhere is removed where the student's is another one: a folder
    with two would be read differently by different programs.
    """
    name = path.name if path.name == "tokenizer.json" else carried.PIECES
    if (folder / name).exists() and folders.sha256(folder / name) == folders.sha256(path):
        return
    for other in carried.TOKENIZER:
        (folder / other).unlink(missing_ok=True)
    (folder / name).write_bytes(path.read_bytes())
    beside = path.parent / "tokenizer_config.json"
    if name == "tokenizer.json" and beside.exists():
        (folder / beside.name).write_bytes(beside.read_bytes())


def keep_files(source: epath.Path, model_dir: epath.Path) -> None:
    """Keeps in a MODEL_DIR what else belongs to a Hugging Face folder."""
    folder = model_dir / _FILES
    folder.mkdir(parents=True, exist_ok=True)
    carried.copy(source, folder)
    if (source / carried.CONFIG).exists():
        (folder / carried.CONFIG).write_bytes((source / carried.CONFIG).read_bytes())


def origin(model_dir: epath.Path) -> epath.Path | None:
    """The Hugging Face files that belong to a run: kept in it, or where it started from.

    Args:
      model_dir: of `train` or `convert`.

    Returns:
      A folder in Hugging Face's form, perhaps without tensors; None where none is known.
    """
    for folder in _ancestors(model_dir):
        if (folder / _FILES).is_dir():
            return folder / _FILES
        if (folder / carried.CONFIG).exists():
            return folder
    return None


def hub_name(folder: epath.Path | None) -> str | None:
    """What Hugging Face's hub calls the model of a folder, where its config.json says so."""
    if folder is None or not (folder / carried.CONFIG).exists():
        return None
    name = carried.read_config(folder).get("_name_or_path")
    is_name = isinstance(name, str) and _HUB_NAME.fullmatch(name) is not None
    return name if is_name else None


def prefix(model_dir: epath.Path) -> str | None:
    """What the names of tensors began with in the folder that a run descends from."""
    for folder in _ancestors(model_dir):
        if checkpoints.latest_step(folder / "checkpoints") is not None:
            found = checkpoints.read_config(folder / "checkpoints").get("hf_prefix")
            if found is not None:
                return found
    return None


def _ancestors(model_dir: epath.Path) -> list[epath.Path]:
    """The run, the one that it started from, and so on, as their gin files say."""
    found = [model_dir]
    while len(found) < _GENERATIONS:
        settings = found[-1] / "train.gin"
        match = _START.search(settings.read_text()) if settings.exists() else None
        if match is None:
            break
        start = epath.Path(match[2])
        found.append(start.parent.parent if start.name.isdigit() else start)
    return found
