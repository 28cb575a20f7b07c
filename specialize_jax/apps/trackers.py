"""What gets the lines of a run beside `metrics.jsonl`: TensorBoard's events, wandb."""

import jax
from etils import epath

from specialize_jax.apps import gin_setup
from specialize_jax.apps.tensorboard import EventsWriter
from specialize_jax.apps.wandb_run import WandbRun
from specialize_jax.training import metrics


def open_writers(
    folder: epath.Path, tensorboard: bool, wandb_project: str | None, wandb_name: str | None
) -> list[metrics.Writer]:
    """Returns what gets the lines of a run beside `metrics.jsonl`; none on a host but the first.

    Raises:
      ValueError: wandb is asked for and not there.
    """
    writers: list[metrics.Writer] = []
    if jax.process_index() != 0:
        return writers
    gin_text = gin_setup.operative_config()
    if tensorboard:
        indented = "".join(f"    {line}\n" for line in gin_text.splitlines())  # Markdown's code
        writers.append(EventsWriter(folder / "tensorboard", {"gin": indented}))
    if wandb_project is not None:
        writers.append(WandbRun(folder, wandb_project, wandb_name, {"gin": gin_text}))
    return writers
