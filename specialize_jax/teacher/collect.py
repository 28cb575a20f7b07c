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
      finish_reason: why the teacher stopped; "length" where it was cut.
      ids: [T] of the tokens in the teacher's vocabulary, where known.
      terminal: the candidates of the step behind the last token, where known.
      text: the answer where there are no tokens (T = 0): all of it is the target.
      start: tokens before it are not learned either (a newline that the prompt left to be written).
    """

    prompt: str
    tokens: Sequence[bytes]
    logprobs: Sequence[float]
    topk: Sequence[Sequence[tuple[bytes, float]]]
    end: int
    finish_reason: str = "stop"
    ids: Sequence[int] | None = None
    terminal: Sequence[tuple[bytes, float]] | None = None
    text: str = ""
    start: int = 0


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
    """Returns a row of `schemas.records` per sample, or "duplicate" for a chain that stood before.

    Args:
      teacher: who answers.
      questions: what is asked.
      num_samples: answers a question, >= 1.
      top_logprobs: candidates recorded at every step, >= 0.
      seed: of the samples.

    Raises:
      ValueError: a number is out of range; while they are read, an answer is not as `Sample` says.
    """
    for name, number, least in (("NUM_SAMPLES", num_samples, 1), ("TOP_LOGPROBS", top_logprobs, 0)):
        if number < least:
            raise ValueError(f"{name}: expected at least {least}, got {number}")
    return _rows(teacher, questions, num_samples, top_logprobs, seed)


def _rows(
    teacher: Teacher, questions: Sequence[Question], num_samples: int, top_logprobs: int, seed: int
) -> Iterator[dict[str, Any] | str]:
    for question in questions:
        seen: set[str] = set()
        for sample_id in range(num_samples):
            sample = teacher.sample(
                question, sample_id=sample_id, top_logprobs=top_logprobs, seed=seed
            )
            check_sample(sample, top_logprobs, f"the teacher's answer {question.id}/{sample_id}")
            target = target_text(sample)
            if target in seen:
                yield "duplicate"
                continue
            seen.add(target)
            yield row(question, sample_id, sample)


def check_questions(questions: Sequence[Question]) -> None:
    """Checks what is to be asked, before anything is.

    Raises:
      ValueError: there is nothing, something is no question, or an id stands twice.
    """
    if not questions:
        raise ValueError("QUESTIONS: expected at least one question, got none")
    ids: set[str] = set()
    for number, question in enumerate(questions):
        for name in ("id", "question", "answer", "kind"):
            if not isinstance(getattr(question, name, None), str):
                raise ValueError(
                    f"QUESTIONS: expected a string '{name}' in question {number}, got {question!r}"
                )
        if question.id in ids:
            raise ValueError(f"QUESTIONS: the id '{question.id}' stands twice")
        ids.add(question.id)


def check_sample(sample: Sample, top_logprobs: int, where: str) -> None:
    """Checks an answer against what `Sample` says.

    Raises:
      ValueError: the first broken rule, with what was expected and what came.
    """

    def expect(condition: bool, rule: str) -> None:
        if not condition:
            raise ValueError(f"{where}: expected {rule}")

    expect(isinstance(sample, Sample), f"a teacher.collect.Sample, got {type(sample).__name__}")
    tokens = len(sample.tokens)
    expect(all(isinstance(t, bytes) for t in sample.tokens), f"tokens of bytes: {sample.tokens}")
    lengths = tokens, len(sample.logprobs), len(sample.topk)
    expect(len({*lengths}) == 1, f"as many tokens, logprobs and topk, got {lengths}")
    expect(
        0 <= sample.start < sample.end <= tokens,
        f"0 <= start < end <= {tokens}, got [{sample.start}, {sample.end})",
    )
    most = max(map(len, sample.topk))
    expect(most <= top_logprobs, f"at most TOP_LOGPROBS={top_logprobs} candidates, got {most}")
    logprobs = [*sample.logprobs, *(p for step in sample.topk for _, p in step)]
    expect(all(p <= 0 for p in logprobs), f"log-probabilities of at most 0: {max(logprobs)}")
    try:
        target_text(sample)
        b"".join(sample.tokens).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: expected tokens that make UTF-8: {error}") from error


def digest(questions: Sequence[Question]) -> str:
    """Identifies some questions: a hash of their ids, texts and gold answers."""
    content = [[question.id, question.question, question.answer] for question in questions]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def target_text(sample: Sample) -> str:
    """Returns what is learned of an answer."""
    if not sample.tokens:
        return sample.text
    return b"".join(sample.tokens[sample.start : sample.end]).decode()


def row(
    question: Question, sample_id: int, sample: Sample, *, mode: str = "corrected"
) -> dict[str, Any]:
    """Returns the row of `schemas.records` of an answer, judged against the gold answer.

    Args:
      question: what was asked.
      sample_id: the answer's number.
      sample: the answer.
      mode: of `answers.MODES`, by which it is judged.
    """
    target = target_text(sample)
    answer = answers.extract(target, mode, kind=question.kind)
    terminal = [*sample.topk, sample.terminal][sample.end]
    return {
        "example_id": question.id,
        "sample_id": sample_id,
        "question": question.question,
        "prompt": sample.prompt,
        "completion": b"".join(sample.tokens).decode() if sample.tokens else sample.text,
        "finish_reason": sample.finish_reason,
        "gold_answer": question.answer,
        "answer": answer,
        "is_correct": answer is not None
        and answers.equal(answer, question.answer, mode=mode, kind=question.kind),
        "token_bytes": list(sample.tokens),
        "token_ids": None if sample.ids is None else list(sample.ids),
        "token_logprobs": list(sample.logprobs),
        "topk_bytes": [[name for name, _ in step] for step in sample.topk],
        "topk_logprobs": [[logprob for _, logprob in step] for step in sample.topk],
        "target_token_start": sample.start,
        "target_token_end": sample.end,
        "terminal_bytes": None if terminal is None else [name for name, _ in terminal],
        "terminal_logprobs": None if terminal is None else [logprob for _, logprob in terminal],
    }
