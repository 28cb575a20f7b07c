"""What is asked of a server: samples of answers, and the tokens of answers that are there."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from specialize_jax.teacher import names, wire
from specialize_jax.teacher.collect import Question

APIS = {"completions": "/completions", "chat": "/chat/completions"}
SCORED_BY = ("prompt_logprobs", "echo")


class Asking(Protocol):
    """A kind of request.

    Attributes:
      path: below the base URL.
      top_logprobs: candidates asked for at every step.
      per_request: answers in a request at most.
    """

    @property
    def path(self) -> str:
        """Below the base URL."""

    @property
    def top_logprobs(self) -> int:
        """Candidates asked for at every step."""

    @property
    def per_request(self) -> int:
        """Answers in a request at most."""

    def samples(self, question: Question) -> Sequence[int]:
        """Returns the numbers of the answers that a question is to have."""

    def payload(self, question: Question, prompt: str, samples: Sequence[int]) -> dict[str, Any]:
        """Returns the body of a request for some answers."""

    def read(
        self, body: Any, question: Question, samples: Sequence[int], decode: names.Decode | None
    ) -> list[wire.Choice]:
        """Returns the answers of a reply, of `samples` in order; there may be fewer.

        Raises:
          wire.BadReply: it is no completion.
        """

    def longest(self, question: Question) -> int:
        """Returns how many tokens an answer takes at most."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """New answers.

    Attributes:
      model: its name at the server.
      api: one of `APIS`.
      num_samples: answers to a question.
      per_request: answers in a request at most.
      top_logprobs: candidates asked for at every step; 0 asks for text alone.
      temperature: of the samples.
      top_p: of the samples.
      max_tokens: of an answer.
      stop: sequences that end an answer.
      seed: of the samples, where the server keeps to it.
      system: a system message, for `chat`.
      extra_body: further fields of the request, as a server knows them.
    """

    model: str
    api: str = "completions"
    num_samples: int = 1
    per_request: int = 1
    top_logprobs: int = 5
    temperature: float = 0.5
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0
    system: str | None = None
    extra_body: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.api not in APIS:
            raise ValueError(f"--api: unknown '{self.api}'; choices: {', '.join(APIS)}")
        for name, least in (("num_samples", 1), ("per_request", 1), ("top_logprobs", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.max_tokens < 1 or not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "expected max_tokens >= 1, temperature >= 0 and top_p in (0, 1], got "
                f"{self.max_tokens}, {self.temperature} and {self.top_p}"
            )
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"at temperature 0 all {self.num_samples} samples would be the same; give a "
                "temperature above 0, or one sample"
            )

    @property
    def path(self) -> str:
        """See `Asking`."""
        return APIS[self.api]

    def samples(self, question: Question) -> Sequence[int]:
        """See `Asking`."""
        return range(self.num_samples)

    def payload(self, question: Question, prompt: str, samples: Sequence[int]) -> dict[str, Any]:
        """See `Asking`. The seed depends on the question and the first sample."""
        named = f"{self.seed}/{question.id}/{samples[0]}".encode()
        body: dict[str, Any] = {
            "model": self.model,
            "n": len(samples),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": int.from_bytes(hashlib.sha256(named).digest()[:4]) >> 1,
        }
        if self.stop:
            body["stop"] = list(self.stop)
        if self.api == "chat":
            system = [{"role": "system", "content": self.system}] if self.system else []
            body["messages"] = [*system, {"role": "user", "content": prompt}]
            if self.top_logprobs:
                body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        else:
            body["prompt"] = prompt
            if self.top_logprobs:
                body["logprobs"] = self.top_logprobs
        return {**body, **self.extra_body}

    def read(
        self, body: Any, question: Question, samples: Sequence[int], decode: names.Decode | None
    ) -> list[wire.Choice]:
        """See `Asking`."""
        return wire.choices(body, decode)[: len(samples)]

    def longest(self, question: Question) -> int:
        """See `Asking`."""
        return self.max_tokens


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Log-probabilities of answers that are there: solutions by people, old generations.

    Attributes:
      model: its name at the server.
      answers: question id -> answers.
      top_logprobs: candidates asked for at every step, >= 1.
      scored_by: one of `SCORED_BY`: vLLM's `prompt_logprobs`, or the old API's `echo`.
      extra_body: further fields of the request.
    """

    model: str
    answers: Mapping[str, Sequence[str]]
    top_logprobs: int = 5
    scored_by: str = "prompt_logprobs"
    extra_body: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path = APIS["completions"]
    per_request = 1

    def __post_init__(self) -> None:
        if self.scored_by not in (*SCORED_BY, "checkpoint"):
            raise ValueError(f"unknown '{self.scored_by}'; choices: {', '.join(SCORED_BY)}")
        if self.top_logprobs < 1:
            raise ValueError("answers are scored for their log-probabilities: top_logprobs >= 1")

    def samples(self, question: Question) -> Sequence[int]:
        """See `Asking`."""
        return range(len(self.answers.get(question.id, ())))

    def payload(self, question: Question, prompt: str, samples: Sequence[int]) -> dict[str, Any]:
        """See `Asking`."""
        answer = self.answers[question.id][samples[0]]
        # A prompt that leaves its newline to be written.
        between = "" if prompt[-1:].isspace() or answer[:1].isspace() else "\n"
        text = prompt + between + answer
        how: dict[str, Any] = {"max_tokens": 1, "prompt_logprobs": self.top_logprobs}
        if self.scored_by == "echo":
            how = {"max_tokens": 0, "echo": True, "logprobs": self.top_logprobs}
        return {"model": self.model, "prompt": text, "temperature": 0.0, **how, **self.extra_body}

    def read(
        self, body: Any, question: Question, samples: Sequence[int], decode: names.Decode | None
    ) -> list[wire.Choice]:
        """See `Asking`."""
        if self.scored_by == "echo":
            steps = wire.choices(body, decode)[0].steps
            if steps is None:
                raise wire.NoScores("the server sends no log-probabilities of its prompt ('echo')")
        else:
            steps = wire.prompt_steps(body, decode)
        text = self.answers[question.id][samples[0]]
        return [wire.Choice(text, "stop", _ending(steps, text.encode()))]

    def longest(self, question: Question) -> int:
        """See `Asking`; a token is a byte at least."""
        return max((len(text.encode()) for text in self.answers.get(question.id, ())), default=0)


@dataclasses.dataclass(frozen=True)
class OwnScoring(Scoring):
    """The same of a student of ours, which takes the answer as its own and not as more prompt.

    Attributes:
      scored_by: always "checkpoint".
    """

    scored_by: str = dataclasses.field(default="checkpoint", init=False)

    def payload(self, question: Question, prompt: str, samples: Sequence[int]) -> dict[str, Any]:
        """See `Asking`."""
        return {
            **{"model": self.model, "prompt": prompt, "logprobs": self.top_logprobs},
            "completion": self.answers[question.id][samples[0]],
            **self.extra_body,
        }

    def read(
        self, body: Any, question: Question, samples: Sequence[int], decode: names.Decode | None
    ) -> list[wire.Choice]:
        """See `Asking`; of white space, the text has what the student's tokens can write."""
        (choice,) = wire.choices(body, decode)
        given = self.answers[question.id][samples[0]]
        # What the student cannot write is kept, without log-probabilities.
        same = choice.text.split() == given.split()
        return [choice if same else choice._replace(text=given)]


def _ending(steps: Sequence[wire.Step], text: bytes) -> list[wire.Step]:
    """Returns the last steps, which write a text; none where no token begins where it does."""
    tokens = [step.name for step in steps]
    least = most = 0
    for start in range(len(tokens) - 1, -1, -1):
        low, high = names.sizes(tokens[start])
        least, most = least + low, most + high
        if least > len(text):
            break
        # The name of a token may tell the bytes of those before it, which have none.
        inside = start and tokens[start - 1].bytes is None and not tokens[start - 1].string
        if inside or most < len(text):
            continue
        filled = names.fill(tokens[start:], text) or ()
        if b"".join(name.bytes or b"" for name, _ in filled) == text:
            return list(steps[start:])
    return []
