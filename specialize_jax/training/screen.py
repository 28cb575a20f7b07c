"""What a person sees on the screen while a run goes on."""

import datetime
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from specialize_jax.training import chips

_STARVED = 0.05  # of the time spent waiting for data: from there on a person is told


class Clock:
    """Times the steps since the last line, without compilation, held-out losses and saving."""

    def __init__(self) -> None:
        self.steps = 0
        self._seconds = self._waited = 0.0
        self._since: tuple[float, float] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._since is not None

    def start(self, waited: float) -> None:
        """Goes on; does nothing where it runs.

        Args:
          waited: seconds that the run has waited for data so far.
        """
        if self._since is None:
            self._since = (time.perf_counter(), waited)

    def stop(self, waited: float) -> None:
        """Stands still; does nothing where it does."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since[0]
            self._waited += waited - self._since[1]
            self._since = None

    def steps_per_second(self) -> float | None:
        """Returns the rate; None where no step was timed."""
        return self.steps / self._seconds if self.steps and self._seconds else None

    def share_waited(self) -> float | None:
        """Returns the share of the time in which data was waited for."""
        return self._waited / self._seconds if self.steps and self._seconds else None


def speed(rate: float | None, tokens: float, step_flops: int | None) -> dict[str, float | None]:
    """What a line says of the speed.

    Args:
      rate: steps per second.
      tokens: of a step.
      step_flops: of a step on all devices.

    Returns:
      `steps_per_second`, `tokens_per_second`; and `mfu`, the share of the devices' peak, where it
      is known.
    """
    values = {"steps_per_second": rate, "tokens_per_second": rate and rate * tokens}
    if rate is None or step_flops is None:
        return values
    kind = jax.devices()[0].device_kind
    share = chips.share_of_peak(rate * step_flops, kind, jax.device_count())
    return values if share is None else values | {"mfu": share}


class Screen:
    """Says what lines of `metrics.jsonl` say, on standard error; a `metrics.Writer`.

    Losses are in nats per token, `kl` and `ce` those of the tokens with and without a teacher
    distribution; a group goes by the initials of its name (`zscot`: zero_shot_chain_of_thought).

    Args:
      train_steps: updates in all.
      group_names: names of the loss's groups.
      write: False on every host but the first, which then only keep quiet.
    """

    def __init__(self, train_steps: int, group_names: Sequence[str], *, write: bool = True):
        self._train_steps = train_steps
        self._group_names = group_names
        self._write = write

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Prints a line; what it does not know is left out."""
        form = self._held_out if split == "validation" else self._train
        self.say("  ".join(part for part in [self.place(step), *form(step, values)] if part))

    def say(self, words: str) -> None:
        """Prints words."""
        if self._write:
            print(words, file=sys.stderr)

    def place(self, step: int) -> str:
        """How far the run is."""
        return f"step {step}/{self._train_steps}"

    def close(self) -> None:
        """Does nothing."""

    def _train(self, step: int, values: Mapping[str, Any]) -> Iterator[str]:
        yield from self._losses(values)
        yield from _terms(values, {"coverage": "coverage"}, ".1%")
        yield from _terms(values, {"grad": "grad_norm", "lr": "learning_rate"}, ".3g")
        yield f"{_number(values['tokens_per_second'], ',.0f')} tokens/s"
        yield from _terms(values, {"MFU": "mfu"}, ".1%")
        if (values.get("data_wait") or 0) >= _STARVED:
            yield f"waited for data {values['data_wait']:.0%}"
        if rate := values["steps_per_second"]:
            left = datetime.timedelta(seconds=round((self._train_steps - step) / rate))
            yield f"{left} left"

    def _held_out(self, step: int, values: Mapping[str, Any]) -> Iterator[str]:
        yield "held-out"
        yield from self._losses(values)
        if accuracies := _terms(values, self._by_group("accuracy"), ".1%"):
            yield f"accuracy {' '.join(accuracies)}"

    def _losses(self, values: Mapping[str, Any]) -> Iterator[str]:
        terms = _terms(values, {"kl": "kl_loss", "ce": "ce_loss"}, ".4f")
        yield f"loss {_number(values['loss'], '.4f')}" + (f" ({', '.join(terms)})" if terms else "")
        yield " ".join(_terms(values, self._by_group("loss"), ".3f"))

    def _by_group(self, what: str) -> dict[str, str]:
        return {_initials(name): f"{what}/{name}" for name in self._group_names}


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
