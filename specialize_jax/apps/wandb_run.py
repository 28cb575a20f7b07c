"""Weights & Biases, where it is installed and asked for."""

import importlib
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from etils import epath

from specialize_jax.schemas import folders

_ID_FILE = "wandb_run_id.txt"


class WandbRun:
    """A `training.metrics.Writer` that sends lines to wandb.

    A run that is started again goes on in the same wandb run, whose id lies in the folder. Lines of
    steps that wandb has already are dropped by it; they would say the same.
    `WANDB_MODE=offline` and wandb's other settings work as ever.

    Args:
      folder: of the run.
      project: of wandb.
      name: shown by wandb; None lets it choose.
      config: plain values shown with the run.

    Raises:
      ValueError: wandb is not installed, or does not start.
    """

    def __init__(
        self, folder: epath.Path, project: str, name: str | None, config: Mapping[str, Any]
    ):
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ValueError(
                f"WANDB_PROJECT='{project}' needs wandb, which cannot be imported ({error}): "
                "`pip install wandb`, or set WANDB_PROJECT to None"
            ) from error
        path = folder / _ID_FILE
        if not path.exists():
            folders.write_bytes(path, uuid.uuid4().hex[:12].encode())
        local = None if folders.is_remote(folder) else str(folder)
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=path.read_text(),
                resume="allow",
                dir=local,
                config=dict(config),
            )
        except Exception as error:  # whatever wandb raises
            raise ValueError(
                f"WANDB_PROJECT='{project}': wandb does not start: {type(error).__name__}: "
                f"{error}; WANDB_MODE=offline works without a network"
            ) from error
        self._is_open = True

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Sends a line as `<split>/<name>`. What goes wrong is said once and stops no training."""
        known = {f"{split}/{name}": value for name, value in values.items() if value is not None}
        self._try(self._run.log, known, step=step)

    def close(self) -> None:
        """Ends the wandb run, which waits for what is on its way."""
        self._try(self._run.finish)

    def _try(self, call: Any, *args: Any, **options: Any) -> None:
        if not self._is_open:
            return
        try:
            call(*args, **options)
        except Exception as error:  # whatever wandb raises
            self._is_open = False
            print(
                f"wandb gets no more lines ({type(error).__name__}: {error}); training goes on",
                file=sys.stderr,
            )
