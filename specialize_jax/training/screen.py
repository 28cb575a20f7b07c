"""What a person sees on the screen while a run goes on."""

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from specialize_jax.training import chips, metrics


class Clock:
    """Times the steps since the last line, without compilation, held-out losses and saving."""

    def __init__(self) -> None:
        self.steps = 0
        self._seconds = 0.0
        self._since: float | None = None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._since is not None

    def start(self) -> None:
        """Goes on; does nothing where it runs."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stands still; does nothing where it does."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def steps_per_second(self) -> float | None:
        """Returns the rate; None where no step was timed."""
        return self.steps / self._seconds if self.steps and self._seconds else None


def speed(rate: float | None, tokens: float, step_flops: int | None) -> dict[str, float | None]:
    """What a line says of the speed.

    Args:
      rate: steps per second.
      tokens: of a step.
      step_flops: of a step on all devices.

    Returns:
      `tokens_per_second`; and `mfu`, the share of the devices' peak, where it is known.
    """
    values = {"tokens_per_second": rate and rate * tokens}
    if rate is None or step_flops is None:
        return values
    kind = jax.devices()[0].device_kind
    share = chips.share_of_peak(rate * step_flops, kind, jax.device_count())
    return values if share is None else values | {"mfu": share}


def line(
    step: int,
    train_steps: int,
    values: Mapping[str, Any],
    rate: float | None,
    group_names: Sequence[str] = metrics.FORMATS,
) -> str:
    """A line of `metrics.jsonl` in the words of the screen; what it does not know is left out.

    Losses are in nats per token, `kl` and `ce` those of the tokens with and without a teacher
    distribution; a group goes by the initials of its name (`zscot`: zero_shot_chain_of_thought).

    Args:
      step: updates done.
      train_steps: updates in all.
      values: of a line, see `metrics.Window.summary` and `speed`.
      rate: steps per second.
      group_names: names of the loss's groups.
    """
    parts = [
        f"step {step}/{train_steps}",
        *_losses(values, group_names),
        *_terms(values, {"coverage": "coverage"}, ".1%"),
        *_terms(values, {"grad": "grad_norm", "lr": "learning_rate"}, ".3g"),
        f"{_number(values['tokens_per_second'], ',.0f')} tokens/s",
        *_terms(values, {"MFU": "mfu"}, ".1%"),
    ]
    if rate is not None:
        left = datetime.timedelta(seconds=round((train_steps - step) / rate))
        parts.append(f"{left} left")
    return "  ".join(part for part in parts if part)


def held_out(
    step: int, values: Mapping[str, Any], group_names: Sequence[str] = metrics.FORMATS
) -> str:
    """The same for the held-out losses."""
    return "  ".join(["validation", f"step {step}", *filter(None, _losses(values, group_names))])


def _losses(values: Mapping[str, Any], group_names: Sequence[str]) -> tuple[str, str]:
    """Returns the loss with its two terms, and that of each group."""
    terms = ", ".join(_terms(values, {"kl": "kl_loss", "ce": "ce_loss"}, ".4f"))
    groups = _terms(values, {_initials(name): f"loss/{name}" for name in group_names}, ".3f")
    loss = f"loss {_number(values['loss'], '.4f')}"
    return f"{loss} ({terms})" if terms else loss, " ".join(groups)


def _terms(values: Mapping[str, Any], names: Mapping[str, str], form: str) -> list[str]:
    """Returns "word number" for those of the names (word -> name) that have a number."""
    return [
        f"{word} {values[name]:{form}}"
        for word, name in names.items()
        if values.get(name) is not None
    ]


def _initials(name: str) -> str:
    """`zero_shot_chain_of_thought` -> `zscot`, `in_context_answer_only` -> `icao`."""
    return "".join(word[0] for word in name.split("_"))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
