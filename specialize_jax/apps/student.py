"""A trained student in a folder of ours: what `evaluate` and `generate` ask."""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from etils import epath
from jax.sharding import Mesh

from specialize_jax import models, tokenizers
from specialize_jax.apps import answering
from specialize_jax.models import Model
from specialize_jax.training import checkpoints, partitioning

_CHECKPOINTS = "checkpoints"


class Student(NamedTuple):
    """A student, without its parameters.

    Attributes:
      folder: that `train` or `convert` wrote.
      config: what its checkpoints say of it.
      model: its network.
      tokenizer: its tokenizer.
      mesh: where parameters are to lie; None for the default device.
    """

    folder: epath.Path
    config: Mapping[str, Any]
    model: Model
    tokenizer: tokenizers.Tokenizer
    mesh: Mesh | None

    @property
    def checkpoints(self) -> epath.Path:
        """The folder of its checkpoints."""
        return self.folder / _CHECKPOINTS

    def restore(self, step: int) -> Any:
        """Returns the parameters of a checkpoint.

        Raises:
          CheckpointError: see `checkpoints.restore_params`.
        """
        like = jax.eval_shape(self.model.init, jax.random.key(0))
        if self.mesh is not None:
            shardings = partitioning.param_shardings(like, self.model.axes(), self.mesh)
            like = partitioning.with_shardings(like, shardings)
        return checkpoints.restore_params(self.checkpoints, step, like)

    def answerer(
        self, settings: answering.Settings, batch_size: int, input_length: int
    ) -> answering.Answerer:
        """Returns the student as one that answers prompts.

        Args:
          settings: how it is asked.
          batch_size: rows that are decoded at a time, rounded up to what the devices divide.
          input_length: tokens of a prompt at most, as far as the student has room for them.

        Raises:
          ValueError: there are no rows, or there is no room.
        """
        return answering.answerer(
            self.model,
            self.tokenizer,
            settings,
            batch_size=self.rows(batch_size),
            input_length=self.input_length(input_length, settings.max_length),
            mesh=self.mesh,
        )

    def rows(self, batch_size: int) -> int:
        """Returns the next number of rows, from `batch_size` on, that the mesh divides."""
        if batch_size < 1:
            raise ValueError(f"expected a batch of at least 1 row, got {batch_size}")
        shards = 1 if self.mesh is None else partitioning.batch_shards(self.mesh)
        return -(-batch_size // shards) * shards

    def input_length(self, wanted: int, answer: int) -> int:
        """Returns how many tokens a prompt may have, of `wanted`, before an answer of `answer`.

        Raises:
          ValueError: the student has no room for such an answer.
        """
        if not self.model.decoder_only:
            return wanted
        positions = self.model.config.num_positions
        if (room := positions - answer) < 1:
            raise ValueError(
                f"'{self.model.name}' has {positions} positions for a prompt and its answer: an "
                f"answer of {answer} tokens leaves none for the prompt"
            )
        return min(wanted, room)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name a student, and say how much it reads and writes."""
    add_names(parser, required=True)
    parser.add_argument(
        "--max_length", type=int, default=256, metavar="N", help="tokens of an answer at most"
    )


def add_names(parser: Any, *, required: bool) -> None:
    """Adds the flags that name a student, and say how much it reads."""
    parser.add_argument(
        "--checkpoint",
        required=required,
        metavar="DIR",
        help="a folder that `train` or `convert` wrote, or one of its checkpoints",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="of the checkpoint; default: the last"
    )
    parser.add_argument(
        "--input_length", type=int, default=1024, metavar="N", help="tokens of a prompt at most"
    )


def named(args: argparse.Namespace) -> tuple[Student, int]:
    """Returns the student and the step that flags name.

    Raises:
      CheckpointError, ValueError: see `read`; or there is no checkpoint.
    """
    folder, step = locate(args.checkpoint)
    step = step if args.step is None else args.step
    asked = read(folder)
    if step is None and (step := checkpoints.latest_step(asked.checkpoints)) is None:
        raise ValueError(f"no checkpoints in '{asked.checkpoints}'")
    return asked, step


def locate(path: epath.PathLike) -> tuple[epath.Path, int | None]:
    """Returns the folder of a student, and the step where `path` is one of its checkpoints.

    Args:
      path: a folder that `train` or `convert` wrote, its `checkpoints` or one of these.
    """
    path = epath.Path(path)
    if path.name.isdigit() and (path.parent / "config.json").exists():
        return path.parent.parent, int(path.name)
    if path.name == _CHECKPOINTS and (path / "config.json").exists():
        return path.parent, None
    return path, None


def read(folder: epath.PathLike, *, fsdp: int = 1, model: int = 1) -> Student:
    """Reads what a folder says of its student.

    Args:
      folder: that `train` or `convert` wrote.
      fsdp: parts that parameters are split into, where there are several devices.
      model: parts that each matrix product is split into.

    Raises:
      CheckpointError: no checkpoints of ours lie there.
      ValueError: they do not describe a student, or one without a tokenizer; or the devices cannot
        be divided so.
    """
    folder = epath.Path(folder)
    config = checkpoints.read_config(folder / _CHECKPOINTS)
    try:
        network = models.rebuild(config["family"], config["name"], config["model"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"'{folder / _CHECKPOINTS / 'config.json'}' does not describe a student: {error!r}"
        ) from error
    if config.get("student_tokenizer") is None:
        raise ValueError(f"'{folder}' has no tokenizer; convert it again with --tokenizer FILE")
    tokenizer = tokenizers.load(folder / config["student_tokenizer"]["file"])
    is_split = jax.device_count() > 1 or max(fsdp, model) > 1
    mesh = partitioning.make_mesh(fsdp=fsdp, model=model) if is_split else None
    return Student(folder, config, network, tokenizer, mesh)
