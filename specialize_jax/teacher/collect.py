"""From questions and a teacher to rows of teacher records: sampled, judged, not yet filtered."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from specialize_jax import answers


class Question(Protocol):
    """What a teacher is asked; `evaluation.readers.Question` is one."""

    @property
    def id(self) -> str:
        """Unique."""

    @property
    def question(self) -> str:
        """Its text."""

    @property
    def answer(self) -> str:
        """The gold answer."""

    @property
    def kind(self) -> str:
        """One of `answers.KINDS`."""


class Sample(NamedTuple):
    """One answer of a teacher, with what it says of every token.

    Letters: `T` tokens, `K` candidates at a step (may vary).

    Attributes:
      prompt: how the question was put.
      tokens: [T] bytes of each token.
      logprobs: [T] natural log-probabilities of the tokens.
      topk: [T] the most probable candidates of each step, (bytes, log-probability), best first.
      end: tokens [0, end) are the target text; what follows (a stop sequence) is not learned.
    """

    prompt: str
    tokens: Sequence[bytes]
    logprobs: Sequence[float]
    topk: Sequence[Sequence[tuple[bytes, float]]]
    end: int


class Teacher(Protocol):
    """Whatever answers questions.

    Attributes:
      info: `teacher`, `tokenizer` and `sampling` for `teacher_info.json`.
    """

    info: Mapping[str, Any]

    def sample(self, question: Any, *, sample_id: int, top_logprobs: int, seed: int) -> Sample:
        """Returns an answer: a pure function of its arguments."""


def rows(
    teacher: Teacher,
    questions: Sequence[Question],
    *,
    num_samples: int,
    top_logprobs: int,
    seed: int,
) -> Iterator[dict[str, Any] | str]:
    """Yields a row of `schemas.records` per sample, or "duplicate" for a chain that stood before.

    Args:
      teacher: who answers.
      questions: what is asked.
      num_samples: answers a question, >= 1.
      top_logprobs: candidates recorded at every step, >= 0.
      seed: of the samples.

    Raises:
      ValueError: a number is out of range.
    """
    for name, number, least in (("NUM_SAMPLES", num_samples, 1), ("TOP_LOGPROBS", top_logprobs, 0)):
        if number < least:
            raise ValueError(f"{name}: expected at least {least}, got {number}")
    for question in questions:
        seen: set[bytes] = set()
        for sample_id in range(num_samples):
            sample = teacher.sample(
                question, sample_id=sample_id, top_logprobs=top_logprobs, seed=seed
            )
            target = b"".join(sample.tokens[: sample.end])
            if target in seen:
                yield "duplicate"
                continue
            seen.add(target)
            yield _row(question, sample_id, sample, target.decode())


def digest(questions: Sequence[Question]) -> str:
    """Identifies some questions: a hash of their ids, texts and gold answers."""
    content = [[question.id, question.question, question.answer] for question in questions]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _row(question: Question, sample_id: int, sample: Sample, target: str) -> dict[str, Any]:
    answer = answers.extract(target, kind=question.kind)
    terminal = sample.topk[sample.end] if sample.end < len(sample.topk) else None
    return {
        "example_id": question.id,
        "sample_id": sample_id,
        "question": question.question,
        "prompt": sample.prompt,
        "completion": b"".join(sample.tokens).decode(),
        "finish_reason": "stop",
        "gold_answer": question.answer,
        "answer": answer,
        "is_correct": answer is not None
        and answers.equal(answer, question.answer, kind=question.kind),
        "token_bytes": list(sample.tokens),
        "token_ids": None,
        "token_logprobs": list(sample.logprobs),
        "topk_bytes": [[name for name, _ in step] for step in sample.topk],
        "topk_logprobs": [[logprob for _, logprob in step] for step in sample.topk],
        "target_token_start": 0,
        "target_token_end": sample.end,
        "terminal_bytes": None if terminal is None else [name for name, _ in terminal],
        "terminal_logprobs": None if terminal is None else [logprob for _, logprob in terminal],
    }
