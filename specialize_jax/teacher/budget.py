"""What collecting costs: what was spent, what may still be, and an estimate before."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

# Bytes of English prompts a token, about (p50k on GSM8K: 3.9); the first reply tells better.
BYTES_PER_TOKEN = 3.5
# Bytes a token in the journal and in the records, and further ones a candidate, about: measured
# with made-up answers of GSM8K's length.
_DISK_PER_TOKEN, _DISK_PER_CANDIDATE = 14, 9


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits, and what tokens cost.

    Attributes:
      prompt_price: of a million prompt tokens, in any currency.
      completion_price: of a million completion tokens.
      max_tokens: prompt and completion tokens in all; None for no limit.
      max_cost: in the currency of the prices; None for no limit.
    """

    prompt_price: float = 0.0
    completion_price: float = 0.0
    max_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            raise ValueError(
                "--max_cost needs prices of a million tokens: --price_prompt, --price_completion"
            )
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not value >= 0:
                raise ValueError(f"{name}: expected at least 0, got {value}")

    def cost(self, prompt: float, completion: float) -> float:
        """Returns what tokens cost."""
        return (prompt * self.prompt_price + completion * self.completion_price) / 1e6

    def exceeded(self, prompt: float, completion: float) -> str | None:
        """Returns which limit so many tokens would exceed; None for none."""
        if self.max_tokens is not None and prompt + completion > self.max_tokens:
            return "max_tokens_total"
        if self.max_cost is not None and self.cost(prompt, completion) > self.max_cost:
            return "max_cost"
        return None


class Estimate(NamedTuple):
    """What is still to be asked, at most.

    Attributes:
      requests: number of them.
      answers: that they ask for.
      prompt_tokens: about, from the length of the prompts.
      completion_tokens: where every answer is as long as it may be.
      cost: of these tokens.
      disk: bytes of journal and records, about.
    """

    requests: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    disk: int


def estimate(
    requests: Iterable[tuple[int, int, int]], budget: Budget, *, top_logprobs: int
) -> Estimate:
    """Adds up requests before they are sent.

    Args:
      requests: (bytes of the prompt, answers, tokens of an answer at most) each.
      budget: the prices.
      top_logprobs: candidates asked for at every step.
    """
    count = answers = prompt = completion = 0
    for size, number, longest in requests:
        count += 1
        answers += number
        prompt += round(size / BYTES_PER_TOKEN)
        completion += number * longest
    disk = completion * (_DISK_PER_TOKEN + _DISK_PER_CANDIDATE * top_logprobs)
    return Estimate(count, answers, prompt, completion, budget.cost(prompt, completion), disk)
