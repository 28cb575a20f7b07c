"""From a served answer to a row of teacher records, or the reason why it is dropped."""

import codecs
import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from specialize_jax import answers
from specialize_jax.teacher import answer_tokens, collect, names, wire

# 2301.12726's code cuts a text behind its first line that holds these words.
_ANSWER_LINE = re.compile(r"answer is[^\n]*")
_COUNTED_AS_CANDIDATES = ("without_mass", "ambiguous")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is kept.

    Attributes:
      mode: of `answers.MODES`, by which an answer is compared with the gold answer.
      answer_line: whether an answer ends with its first line that says "answer is"; one without
        such a line is dropped.
      min_chars: characters of a target at least.
      max_chars: characters of a target at most; None for no limit.
    """

    mode: str = "corrected"
    answer_line: bool = True
    min_chars: int = 1
    max_chars: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in answers.MODES:
            raise ValueError(f"--mode: unknown '{self.mode}'; choices: {', '.join(answers.MODES)}")
        if not 0 <= self.min_chars <= (math.inf if self.max_chars is None else self.max_chars):
            raise ValueError(
                f"expected 0 <= min_chars <= max_chars, got {self.min_chars} and {self.max_chars}"
            )


def sample(
    choice: wire.Choice,
    prompt: str,
    rules: Rules,
    *,
    top_logprobs: int,
    decode: names.Decode | None = None,
    echo: int = 0,
) -> tuple[collect.Sample, collections.Counter[str]] | str:
    """Cuts an answer to what is learned.

    Args:
      choice: the answer.
      prompt: how the question was put.
      rules: what is kept.
      top_logprobs: candidates kept at a step.
      decode: id -> bytes, by the teacher's tokenizer.
      echo: tokens at the front that repeat the end of the prompt; they are not learned.

    Returns:
      The answer and counts of what was left out of it (`answer_tokens.Tokens.counts`, and
      "no_tokens" 1 where it lacks log-probabilities), or the reason why it is dropped.
    """
    tokens = (
        answer_tokens.tokens(choice, most=top_logprobs, decode=decode) if choice.steps else None
    )
    try:
        text = b"".join(tokens.values).decode() if tokens else choice.text
    except UnicodeDecodeError:  # cut within a character
        tokens, text = None, choice.text
    end, ended = _target_end(text, rules, choice.finish_reason)
    told = len(b"".join(tokens.values[:echo]).decode()) if tokens else 0
    target = text[told:end].strip()
    if reason := _reason(target, rules, ended=ended):
        return reason
    finish = "stop" if ended else choice.finish_reason
    if tokens is None:
        plain = collect.Sample(prompt, [], [], [], 0, finish, text=target)
        return plain, collections.Counter(no_tokens=1)
    start = next(i for i, t in enumerate(tokens.values) if i >= echo and t.strip())
    last = answer_tokens.boundary(tokens.values, len(text[:end].encode()))
    while last > start and not _ends_well(tokens.values[start:last]):
        last -= 1
    if last <= start:
        return "empty"
    made = collect.Sample(
        prompt=prompt,
        tokens=tokens.values,
        logprobs=tokens.logprobs,
        topk=tokens.topk,
        end=last,
        finish_reason=finish,
        ids=tokens.ids,
        terminal=tokens.terminal,
        start=start,
    )
    return made, tokens.counts


def _ends_well(tokens: list[bytes]) -> bool:
    """Whether tokens end neither in white space of its own nor within a character."""
    if not tokens[-1].strip():
        return False
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(b"".join(tokens))
    waiting, _ = decoder.getstate()
    return not waiting


def judged_text(choice: wire.Choice, rules: Rules) -> str:
    """Returns the part of an answer by which a teacher is judged, whether or not it is kept."""
    return choice.text[: _target_end(choice.text, rules, choice.finish_reason)[0]]


def _target_end(text: str, rules: Rules, finish_reason: str) -> tuple[int, bool]:
    """Returns where the target ends, and whether the teacher came to an end there."""
    found = _ANSWER_LINE.search(text) if rules.answer_line else None
    # A line is whole once something follows it.
    if found and found.end() < len(text):
        return found.end(), True
    return len(text), finish_reason != "length"


def _reason(target: str, rules: Rules, *, ended: bool) -> str | None:
    if not target:
        return "empty"
    if not ended:
        return "cut_by_length"
    if rules.answer_line and not _ANSWER_LINE.search(target):
        return "no_answer_line"
    if "\ufffd" in target:
        return "lost_characters"
    if len(target) < rules.min_chars:
        return "too_short"
    if rules.max_chars is not None and len(target) > rules.max_chars:
        return "too_long"
    return None


def rows(
    question: collect.Question,
    prompt: str,
    choices: Iterable[tuple[int, wire.Choice]],
    rules: Rules,
    *,
    top_logprobs: int,
    decode: names.Decode | None = None,
    echo: int = 0,
) -> Iterator[dict[str, Any] | str]:
    """Yields a row, or the reason of a drop, for every answer to a question.

    Args:
      question: what was asked. Without a gold answer of its kind, no row is right or wrong.
      prompt: how it was put.
      choices: (sample number, answer).
      rules: what is kept. A row carries `counts` beside the columns of `schemas.records`.
      top_logprobs: candidates kept at a step.
      decode: id -> bytes, by the teacher's tokenizer.
      echo: as `sample`.
    """
    gold = answers.extract(question.answer, kind=question.kind)
    unjudged = {"gold_answer": None, "is_correct": None} if gold is None else {}
    seen: set[str] = set()
    for sample_id, choice in choices:
        made = sample(choice, prompt, rules, top_logprobs=top_logprobs, decode=decode, echo=echo)
        if isinstance(made, str):
            yield made
            continue
        answer, counts = made
        target = collect.target_text(answer)
        if target in seen:
            yield "duplicate"
            continue
        seen.add(target)
        row = collect.row(question, sample_id, answer, mode=rules.mode)
        left_out = sum(counts[name] for name in _COUNTED_AS_CANDIDATES)
        yield {**row, **unjudged, "dropped_candidates": left_out, "counts": counts}
