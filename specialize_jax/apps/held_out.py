"""Held-out accuracy while a student is trained: a few questions, asked again and again."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from jax.sharding import Mesh

from specialize_jax import tokenizers
from specialize_jax.apps import answering, evaluation_prompts
from specialize_jax.apps.questions import HeldOut
from specialize_jax.data import formats as formats_lib
from specialize_jax.evaluation import readers, runner, scoring
from specialize_jax.models import Model
from specialize_jax.schemas import Format
from specialize_jax.training import partitioning, preemption

_AT_ONCE = 32
_MODE = "corrected"

Accuracy = Callable[[Any], dict[str, float]]
"""params -> `accuracy/<format>` and `accuracy`, their mean; shares in [0, 1]."""


class _Exam(NamedTuple):
    """What is asked in one format: questions, the prompt of each by id, and the longest one."""

    format: Format
    questions: list[readers.Question]
    prompts: dict[str, str]
    longest: int

    def sit(self, answerer: answering.Answerer, params: Any) -> float:
        """Returns the share of right answers."""
        predictions = runner.run(
            self.questions,
            lambda question: self.prompts[question.id],
            runner.in_batches(
                functools.partial(answerer.answer, params, shortest=self.longest),
                answerer.batch_size,
            ),
            modes=(_MODE,),
        )
        return scoring.summarize([one.scores[_MODE] for one in predictions]).accuracy


def asked_formats(trained: Sequence[str]) -> list[Format]:
    """Returns the formats to ask in, of those trained on: chains of thought where there are any."""
    known = sorted(map(formats_lib.parse, trained))
    return [fmt for fmt in known if fmt.is_chain_of_thought] or known


def from_settings(
    model: Model,
    tokenizer_file: epath.PathLike,
    held_out: Sequence[HeldOut] | None,
    info: Mapping[str, Any],
    *,
    count: int,
    mesh: Mesh,
) -> Accuracy:
    """Returns the accuracy that a run reports; of nothing, where it can or should report none.

    Args:
      model: the student.
      tokenizer_file: its tokenizer.
      held_out: the validation questions of packed rows; None where nothing says them.
      info: of the packed rows. Prompts and answers have the lengths of a row at most.
      count: questions to ask, the same at every call; 0 for none.
      mesh: where the parameters lie.
    """
    if count and held_out is None:
        print("no held-out accuracy: the packed rows are of an earlier version; pack again for it")
    if not count or not held_out:
        return lambda params: {}
    chosen = {q.id for q in readers.sample([one.question for one in held_out], count, seed=0)}
    return make_accuracy(
        model,
        tokenizers.load(tokenizer_file),
        [one for one in held_out if one.question.id in chosen],
        asked_formats(info["splits"]["train"]["formats"]),
        input_length=info["lengths"]["inputs"],
        max_decode_length=info["lengths"]["targets"],
        mesh=mesh,
    )


def make_accuracy(
    model: Model,
    tokenizer: tokenizers.Tokenizer,
    held_out: Sequence[HeldOut],
    formats: Sequence[Format],
    *,
    input_length: int,
    max_decode_length: int,
    mesh: Mesh,
) -> Accuracy:
    """Returns a function that asks every question in every format and scores the greedy answers.

    It only reads the parameters, and compiles once per format. On several hosts each of them calls
    it, with the same questions. What it leaves out is printed here, once.

    Args:
      model: the student.
      tokenizer: its tokenizer.
      held_out: the questions; those without exemplars are not asked in context.
      formats: how to ask.
      input_length: tokens of a prompt at most; longer ones are not asked.
      max_decode_length: tokens of an answer at most.
      mesh: where the parameters lie.
    """
    shards = partitioning.batch_shards(mesh)
    rows = -(-min(len(held_out), _AT_ONCE) // shards) * shards
    answerer = answering.answerer(
        model,
        tokenizer,
        answering.Settings(max_length=max_decode_length),
        batch_size=rows,
        input_length=input_length,
        mesh=mesh,
    )
    exams = [exam for fmt in formats for exam in _exams(fmt, held_out, answerer)]

    def accuracy(params: Any) -> dict[str, float]:
        # SIGTERM may not wait for all of them.
        found = {
            f"accuracy/{exam.format.label}": exam.sit(answerer, params)
            for exam in preemption.until_stopped(exams)
        }
        return found | ({"accuracy": sum(found.values()) / len(found)} if found else {})

    return accuracy


def _exams(
    fmt: Format, held_out: Sequence[HeldOut], answerer: answering.Answerer
) -> Iterator[_Exam]:
    """Yields the exam in a format, unless no question is left for it."""
    prompts = {
        question.id: formats_lib.render_inputs(
            fmt, question.question, exemplars if fmt.is_in_context else ()
        )
        for question, exemplars in held_out
        if exemplars or not fmt.is_in_context
    }
    lengths = {id_: answerer.length(prompt) for id_, prompt in prompts.items()}
    fitting = {id_ for id_, length in lengths.items() if length <= answerer.input_length}
    if too_long := [id_ for id_ in lengths if id_ not in fitting]:
        words = evaluation_prompts.describe_too_long(
            too_long, lengths, answerer.input_length, "held-out prompts"
        )
        print(f"accuracy/{fmt.label}: {words}")
    if fitting:
        questions = [question for question, _ in held_out if question.id in fitting]
        yield _Exam(fmt, questions, prompts, max(lengths[id_] for id_ in fitting))
