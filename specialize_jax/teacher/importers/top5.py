"""Steps with the five most probable tokens, as 2301.12726's code keeps them, become records.

A step is [[token, probability], ...]: the sampled token, then the candidates in no order. The
probabilities are rounded to four decimals, so that 0 means "below 0.00005".
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from specialize_jax.schemas import SchemaError
from specialize_jax.schemas.faults import Faults
from specialize_jax.teacher import filtering, names, wire
from specialize_jax.teacher.importers import files, gold
from specialize_jax.teacher.steps import clean

Steps = Sequence[Sequence[tuple[str, float]]]
# The first two tokens repeat the end of the prompt (` step`, newline): the guard of 2301.12726's
# code, which drops an answer that begins otherwise.
_ECHO = (" step", "\n")
CANDIDATES = 5


def choice(steps: Steps, where: str) -> wire.Choice:
    """Returns an answer as a server would have sent it.

    Args:
      steps: as above.
      where: named in errors.

    Raises:
      SchemaError: a probability is no probability, the candidates of a step have more mass than
        rounding explains, or the tokens make no text.
    """
    found = []
    for number, ((token, own), *others) in enumerate(steps):
        try:
            top = {name: _log(p) for name, p in others}
            step = wire.Step(names.read(token, None, None, None), _log(own), top)
            if math.fsum(p for _, p in others) > 1:  # rounding, or an error that `clean` tells
                clean(names.candidates(top, None)[0])
        except ValueError as error:
            raise SchemaError(f"{where}: step {number}: {error}: {others}") from error
        found.append(step)
    told = b"".join(
        step.name.string.encode() if step.name.bytes is None else step.name.bytes for step in found
    )
    text = told.decode(errors="ignore")  # the last token may cut a character
    if not told.startswith(text.encode()) or not found:
        raise SchemaError(f"{where}: expected tokens that make a text, got {told[:80]!r}")
    # An answer that ended did so by what stops it, a newline; its tokens are there.
    ended = not steps[-1][0][0].strip("\n")
    return wire.Choice(text, "stop" if ended else "length", found)


def _log(probability: float) -> float:
    if not 0 <= probability <= 1 + 1e-3:
        raise ValueError(f"expected a probability in [0, 1], got {probability!r}")
    return math.log(probability) if probability > 0 else -math.inf


def has_echo(steps: Steps) -> bool:
    """Returns whether an answer begins with the end of the prompt, as it must."""
    return tuple(step[0][0] for step in steps[: len(_ECHO)]) == _ECHO


def answer_rows(
    question: gold.Asked,
    answers: Sequence[tuple[int, Steps, str]],
    rules: filtering.Rules,
    faults: Faults,
) -> Iterator[dict[str, Any] | str]:
    """Yields a row, or the reason of a drop, for every answer to a question.

    Args:
      question: what was asked.
      answers: (sample number, steps, where) of each.
      rules: what is kept.
      faults: what a bad answer does.

    Raises:
      SchemaError: as `choice`, unless `faults` skips it.
    """
    kept = []
    for sample, steps, where in answers:
        if not has_echo(steps):
            yield "format"
            continue
        try:
            kept.append((sample, choice(steps, where)))
        except SchemaError as error:
            faults.add(error)
            yield "bad_line"
    yield from filtering.rows(question, "", kept, rules, top_logprobs=CANDIDATES, echo=len(_ECHO))


def rows(
    path: epath.PathLike,
    golds: Sequence[str],
    rules: filtering.Rules,
    *,
    faults: Faults | None = None,
) -> Iterator[dict[str, Any] | str]:
    """Yields a row, or the reason of a drop, for every line of a file of top-5 lists.

    Two lines are two samples, whether or not they say the same.

    Args:
      path: lines with `question_index`, `generation_index`, `question`, `steps`, and perhaps
        `answer`, the gold answer.
      golds: gold answers by `question_index`, for lines without one.
      rules: what is kept.
      faults: what a bad line does, which counts as "bad_line"; None ends the work.

    Raises:
      SchemaError: a line is bad, unless `faults` skips it.
    """
    bad = Faults() if faults is None else faults
    for where, record in files.read(path):
        try:
            yield from _line_rows(record, golds, rules, where, bad)
        except SchemaError as error:
            bad.add(error)
            yield "bad_line"


def _line_rows(
    record: dict[str, Any] | SchemaError,
    golds: Sequence[str],
    rules: filtering.Rules,
    where: str,
    faults: Faults,
) -> list[dict[str, Any] | str]:
    if isinstance(record, SchemaError):
        raise record
    try:
        question = _question(record, golds, where)
        sample, steps = record["generation_index"], record["steps"]
        if not steps:
            raise SchemaError(f"{where}: expected at least one of 'steps', got {steps!r}")
        return list(answer_rows(question, [(sample, steps, where)], rules, faults))
    except SchemaError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise SchemaError(
            f"{where}: expected integers 'question_index' and 'generation_index', a string "
            "'question' and 'steps', each [[token, probability], ...] with the sampled token "
            f"first; got {str(record)[:80]} ({type(error).__name__}: {error})"
        ) from error


def _question(record: dict[str, Any], golds: Sequence[str], where: str) -> gold.Asked:
    for name, kind in (("question_index", int), ("generation_index", int), ("question", str)):
        value = record[name]
        if not isinstance(value, kind):
            raise SchemaError(f"{where}: expected '{name}' of {kind.__name__}, got {value!r}")
    index = record["question_index"]
    if record.get("answer") is not None:
        answer = gold.read_gold(record["answer"], "number", f"{where}: 'answer'")
    elif 0 <= index < len(golds):
        answer = golds[index]
    else:
        raise SchemaError(
            f"{where}: expected a 'question_index' in [0, {len(golds)}), a row of gsm8k/train, "
            f"got {index}"
        )
    return gold.Asked(f"gsm8k/train/{index}", record["question"], answer, "number", index)
