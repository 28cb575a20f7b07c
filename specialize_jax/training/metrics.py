"""From sums to the lines of `metrics.jsonl`.

The file has one JSON object a line, `{"step", "split", "time", ...}`, and reads as one run: what a
killed run wrote after its last checkpoint is cut before training goes on from there.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from specialize_jax.schemas import Format, SchemaError, folders
from specialize_jax.training import disk

FORMATS = tuple(Format(number).label for number in Format)

TIMED = ("time", "steps_per_second", "tokens_per_second", "mfu", "data_wait")
"""Values of a line that two runs of the same thing do not share."""


def untimed(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line without its `TIMED` values."""
    return {name: value for name, value in line.items() if name not in TIMED}


class Window:
    """Sums over the updates since the last line, added on the host in float64.

    Its `to_json` is stored in checkpoints, so that a run stopped between two lines writes the next
    one as if it had not been.
    """

    def __init__(self, content: Mapping[str, Any] | None = None):
        content = content or {}
        self.steps: int = content.get("steps", 0)
        self._sums: dict[str, Any] = {
            name: np.asarray(value, np.float64) for name, value in content.get("sums", {}).items()
        }

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Adds one update's (or one held-out batch's) metrics, already on the host."""
        self.steps += 1
        for name, value in metrics.items():
            value = np.asarray(value, np.float64)
            # The learning rate of a line is that of its last update.
            keep = name in self._sums and name != "learning_rate"
            self._sums[name] = self._sums[name] + value if keep else value

    def summary(self, group_names: Sequence[str] = FORMATS) -> dict[str, Any]:
        """What a line says: see `summarize`; and `grad_norm`, the mean, and `learning_rate`."""
        summary = summarize(self._sums, group_names)
        if "grad_norm" in self._sums:
            summary["grad_norm"] = float(self._sums["grad_norm"]) / self.steps
        if "learning_rate" in self._sums:
            summary["learning_rate"] = float(self._sums["learning_rate"])
        return summary

    def to_json(self) -> dict[str, Any]:
        """A dict of plain numbers and lists, from which the window can be built again exactly."""
        sums = {name: value.tolist() for name, value in self._sums.items()}
        return {"steps": self.steps, "sums": sums}


def summarize(sums: Mapping[str, Any], group_names: Sequence[str] = FORMATS) -> dict[str, Any]:
    """Sums to means.

    Args:
      sums: scalars `loss_sum` and `tokens`; and where the loss gives them `kl_sum`, `kl_tokens`,
        `ce_sum`, `ce_tokens`, `cot_tokens`, `transferred_tokens`, and `group_loss_sum` and
        `group_tokens` with an entry a group.
      group_names: names of the groups, in order.

    Returns:
      `loss`, `kl_loss`, `ce_loss` and `loss/<group>` in nats per token; `coverage`, the share of
      chain-of-thought tokens that carry the teacher's distribution; `tokens`. None where there was
      no token to divide by; names whose sums are missing are left out.

    Raises:
      ValueError: more groups than names.
    """
    pairs = {
        "loss": ("loss_sum", "tokens"),
        "kl_loss": ("kl_sum", "kl_tokens"),
        "ce_loss": ("ce_sum", "ce_tokens"),
        "coverage": ("transferred_tokens", "cot_tokens"),
    }
    summary: dict[str, Any] = {
        name: _ratio(sums[over], sums[under])
        for name, (over, under) in pairs.items()
        if over in sums and under in sums
    }
    losses = np.atleast_1d(sums.get("group_loss_sum", ()))
    counts = np.atleast_1d(sums.get("group_tokens", ()))
    if len(losses) > len(group_names):
        raise ValueError(
            f"Expected a name for each of {len(losses)} groups, got {list(group_names)}."
        )
    for name, loss, count in zip(group_names, losses, counts, strict=False):
        summary[f"loss/{name}"] = _ratio(loss, count)
    return summary | {"tokens": float(sums["tokens"])}


def _ratio(over: Any, under: Any) -> float | None:
    return float(over) / float(under) if under > 0 else None


class Writer(Protocol):
    """Gets the lines of a run, as they come; on the first host alone."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Takes a line: `split` is "train" or "validation", a value a number or None."""

    def close(self) -> None:
        """Lets go; every line that was taken is kept by then."""


class MetricsFile:
    """`metrics.jsonl`, local or in a bucket: a `Writer`.

    Args:
      path: of the file; its folder exists.
      write: False on every host but the first, which then only keep quiet.
    """

    def __init__(self, path: epath.PathLike, *, write: bool = True):
        self._path = epath.Path(path)
        self._write = write

    def cut_after(self, step: int) -> None:
        """Removes lines after `step`, and a half-written last line of a killed run.

        Raises:
          CheckpointError: the file cannot be written.
        """
        if not self._write or not self._path.exists():
            return
        kept = [line for line in read(self._path) if line["step"] <= step]
        with disk.writing(f"the lines up to step {step}", self._path):
            folders.write_bytes(self._path, _to_text(kept).encode())

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Adds a line. Numbers that JSON cannot hold (NaN, infinity) become null.

        Raises:
          CheckpointError: the file cannot be written; no part of the line is in it.
        """
        if not self._write:
            return
        line = {"step": step, "split": split, "time": round(time.time(), 3), **values}
        text = _to_text([line])
        with disk.writing(f"a line of step {step}", self._path, needed=len(text)):
            if not folders.is_remote(self._path):
                _append(self._path, text)
            else:  # buckets cannot append
                before = self._path.read_text() if self._path.exists() else ""
                self._path.write_text(before + text)

    def close(self) -> None:
        """Does nothing: a line is whole on disk when `write` returns."""

    def held_out(self, step: int) -> dict[int, dict[str, Any]]:
        """What lines of split "validation" up to `step` say, on every host, by their step."""
        lines = read(self._path) if self._path.exists() else []
        return {
            line["step"]: {n: v for n, v in line.items() if n not in ("step", "split", "time")}
            for line in lines
            if line["split"] == "validation" and line["step"] <= step
        }


def _append(path: epath.Path, text: str) -> None:
    """Adds to a local file, all or nothing: a full disk takes a part, which is cut off again."""
    left = memoryview(text.encode())
    with open(path, "ab", buffering=0) as file:  # what a buffer kept would be written later on
        length = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            os.ftruncate(file.fileno(), length)
            raise


def read(path: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that is not whole is left out.

    Raises:
      SchemaError: a line is not an object with a step and a split; names the line.
    """
    lines = epath.Path(path).read_text().split("\n")
    return [_parse(line, f"'{path}' line {n}") for n, line in enumerate(lines[:-1], 1) if line]


def _parse(line: str, where: str) -> dict[str, Any]:
    value = folders.parse_json(line, where)
    if not isinstance(value, dict) or not {"step", "split"} <= value.keys():
        raise SchemaError(f"{where}: expected an object with 'step' and 'split', got {line[:80]}")
    return value


def _to_text(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(_finite(line), allow_nan=False) + "\n" for line in lines)


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in line.items()
    }
