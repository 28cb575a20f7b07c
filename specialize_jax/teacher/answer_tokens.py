"""The tokens of an answer, with log-probabilities and candidates, out of what a server sent.

What a server says is taken as far as it is sure (`names`). A sampled token keeps its own
log-probability, whether or not it is among the candidates, and is not put among them; where a
server put it there in a likelier one's place, it is taken out. But of the one that ended the text
the candidates of its step are all that is kept.
"""

import collections
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from specialize_jax.schemas import NO_LOGPROB
from specialize_jax.teacher import names, wire
from specialize_jax.teacher.steps import clean


class Tokens(NamedTuple):
    """An answer's tokens.

    Attributes:
      values: [T] bytes of each.
      ids: [T], where the server told every one.
      logprobs: [T].
      topk: [T] candidates of a step, best first.
      terminal: candidates of the step behind the last token, where the server tells them.
      counts: of what was left out: candidates "without_mass" or "ambiguous", "merged" tokens,
        "special" ones that write nothing within a text, steps of "bad_mass".
    """

    values: list[bytes]
    ids: list[int] | None
    logprobs: list[float]
    topk: list[list[tuple[bytes, float]]]
    terminal: list[tuple[bytes, float]] | None
    counts: collections.Counter[str]


def tokens(choice: wire.Choice, *, most: int, decode: names.Decode | None = None) -> Tokens | None:
    """Returns the tokens of an answer, without a stop behind its text.

    Args:
      choice: the answer.
      most: candidates kept at a step.
      decode: id -> bytes, by the teacher's tokenizer.

    Returns:
      None where the server's tokens are not its text, so that nothing can be learned from them.
    """
    text = choice.text.encode()
    counts: collections.Counter[str] = collections.Counter()
    steps, unnamed = _steps(choice, counts)
    filled = names.fill([step.name for step in steps], text)
    if not filled:
        return None
    joined = b"".join(name.bytes or b"" for name, _ in filled)
    # Servers may cut white space off the text, and a stop sequence.
    before = 0 if joined.startswith(text) else len(joined) - len(joined.lstrip())
    inner = text if joined.startswith(text) else text.strip()
    if not joined[before:].startswith(inner):
        return None
    remaining = iter(steps)
    groups = [list(itertools.islice(remaining, count)) for _, count in filled]
    counts["merged"] = sum(len(group) for group in groups if len(group) > 1)
    topk = [
        _candidates(group[0], most, decode, counts, unnamed) if len(group) == 1 else []
        for group in groups
    ]
    end = boundary([name.bytes or b"" for name, _ in filled], before + len(inner))
    ids = [name.id for name, _ in filled[:end] if name.id is not None]
    return Tokens(
        values=[name.bytes or b"" for name, _ in filled[:end]],
        ids=ids if len(ids) == end else None,
        # The probability of several tokens in a row is the product of theirs.
        logprobs=[max(sum(s.logprob for s in group), NO_LOGPROB) for group in groups[:end]],
        topk=topk[:end],
        terminal=_with_sampled(topk[end], groups[end][0]) if end < len(topk) else None,
        counts=counts,
    )


def _steps(
    choice: wire.Choice, counts: collections.Counter[str]
) -> tuple[list[wire.Step], wire.Step | None]:
    """Returns the steps of an answer that write something, and the one that ends it.

    The second of these only where the server has no name for what ended the text: it gets one.
    """
    everything = choice.steps or []
    steps = [step for step in everything if step.name.bytes != b""]
    counts["special"] = len(everything) - len(steps)
    last = everything[-1] if everything else None
    if last is None or last.name.bytes or (last.name.bytes is None and last.name.string):
        return steps, None
    if last.name.bytes is None:
        if choice.text.endswith("\ufffd"):
            return steps, None
        steps.pop()  # it is not in the text
        counts["special"] += 1
    if choice.finish_reason == "length":
        return steps, None
    counts["special"] -= 1
    end = last._replace(name=last.name._replace(bytes=names.END))
    return [*steps, end], end


def _with_sampled(
    candidates: list[tuple[bytes, float]], step: wire.Step
) -> list[tuple[bytes, float]] | None:
    """Returns the candidates of a step and its sampled token; None where there are none."""
    name = step.name.bytes
    if not candidates or not name or step.logprob <= NO_LOGPROB or name in dict(candidates):
        return candidates or None
    return [*candidates, (name, step.logprob)]


def boundary(tokens: Sequence[bytes], size: int) -> int:
    """Returns how many tokens stand for the first `size` bytes.

    Where a token reaches across, it belongs to them if it writes a letter or a digit before (the
    end of an answer), and otherwise not (a full stop before a newline).
    """
    at = 0
    for count, token in enumerate(tokens):
        if at + len(token) > size:
            inside = token[: max(size - at, 0)].decode(errors="replace")
            return count + any(char.isalnum() for char in inside)
        at += len(token)
    return len(tokens)


def _candidates(
    step: wire.Step,
    most: int,
    decode: names.Decode | None,
    counts: collections.Counter[str],
    unnamed: wire.Step | None,
) -> list[tuple[bytes, float]]:
    end = names.END if step is unnamed else None
    known, ambiguous = names.candidates(step.candidates, decode, most, unnamed=end)
    counts["ambiguous"] += ambiguous
    try:
        order, logprobs, without = clean(known, most=most)
    except ValueError:
        counts["bad_mass"] += 1
        return []
    counts["without_mass"] += without
    return list(zip(order, logprobs, strict=True))
