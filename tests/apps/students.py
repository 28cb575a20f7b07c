"""Folders of students with random weights, as `train` leaves them, without training."""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

import jax

from specialize_jax import convert, models
from specialize_jax.convert import lazy
from specialize_jax.models import Model
from specialize_jax.schemas import folders
from specialize_jax.training import streamed
from tests.fixtures import world

SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 64, "vocab_size": 128, "num_heads": 4}
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1}


def build() -> Model:
    """Returns a T5 with one layer on each side."""
    return models.build("t5_1_1_tiny", **SIZES, **LAYERS)


def write(folder: pathlib.Path, steps: Sequence[int], model: Model | None = None) -> pathlib.Path:
    """Writes a student with a checkpoint at each of the steps; each says something else."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(world.TOKENIZER, folder / world.TOKENIZER.name)
    for step in steps:
        write_checkpoint(folder, step, model or build())
    return folder


def write_checkpoint(folder: pathlib.Path, step: int, model: Model) -> None:
    """Writes a checkpoint beside those there are; it appears whole."""
    params = jax.tree.map(lambda leaf: 4 * leaf, jax.jit(model.init)(jax.random.key(step)))
    found, beside = lazy.of_params(params), folder / f"writing_{step}"
    file = folder / world.TOKENIZER.name
    config = {
        "family": model.family,
        "name": model.name,
        "model": dataclasses.asdict(model.config),
        "student_tokenizer": {"file": file.name, "sha256": folders.sha256(file)},
    }
    streamed.write_params(beside, step, found.shapes, found.read, convert.pieces, config=config)
    (folder / "checkpoints").mkdir(exist_ok=True)
    for name in ("config.json", str(step)):
        (beside / name).rename(folder / "checkpoints" / name)
    shutil.rmtree(beside)
