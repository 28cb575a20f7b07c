"""What a command line of `collect` comes to, before anything is asked."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from specialize_jax import tokenizers
from specialize_jax.apps import collect_flags, question_file
from specialize_jax.evaluation.readers import Question
from specialize_jax.teacher import budget, collect, filtering, names, prompts, sampling


class Plan(NamedTuple):
    """What a command line comes to.

    Attributes:
      questions: who is asked about what.
      prompt: question -> the text that is sent.
      asking: what is asked.
      rules: what is kept of it.
      budget: what may be spent.
      decode: id -> bytes, by the teacher's tokenizer.
      settings: what the answers depend on, as `settings.json` keeps it.
    """

    questions: Sequence[Question]
    prompt: Callable[[collect.Question], str]
    asking: sampling.Sampling | sampling.Scoring
    rules: filtering.Rules
    budget: budget.Budget
    decode: names.Decode | None
    settings: dict[str, Any]


def make(args: argparse.Namespace) -> Plan:
    """Reads what the flags name.

    Raises:
      ValueError: a file, a flag or a question is not as it should be.
    """
    questions = question_file.read(args.questions, limit=args.limit)
    collect.check_questions(questions)
    form, exemplars = collect_flags.prompt(args)
    if not args.any_answer or "{answer}" in form.template:
        question_file.check_gold(questions, args.questions)
    scored = None
    if args.score_existing:
        scored = question_file.read_answers(args.score_existing, questions)
    asked = collect_flags.asking(args, form, scored)
    tokenizer = tokenizers.load(args.teacher_tokenizer) if args.teacher_tokenizer else None
    described = dataclasses.asdict(asked)
    settings = {
        "kind": "samples" if scored is None else "scores",
        **described,
        "extra_body": json.dumps(described["extra_body"], sort_keys=True),
        "questions": len(questions),
        "questions_sha256": collect.digest(questions),
        "prompt_template_sha256": prompts.digest(form.template, exemplars),
        "tokenizer": tokenizer.sha256 if tokenizer else None,
    }
    if scored is not None:
        settings["answers"] = sum(map(len, scored.values()))
    return Plan(
        questions,
        lambda question: prompts.fill(
            form.template, question=question.question, answer=question.answer, exemplars=exemplars
        ),
        asked,
        collect_flags.rules(args, answer_line=form.answer_line),
        collect_flags.limits(args),
        _decode(tokenizer),
        json.loads(json.dumps(settings)),  # as it reads in the file, where tuples are lists
    )


def _decode(tokenizer: Any) -> names.Decode | None:
    """Returns id -> bytes, of a tokenizer that knows the bytes of its tokens."""
    if tokenizer is None:
        return None
    known: dict[int, bytes] = {}

    def decode(token_id: int) -> bytes:
        if token_id not in known:
            try:
                (known[token_id],) = tokenizer.token_bytes([token_id])
            except (ValueError, LookupError, OverflowError) as error:
                raise names.NeedsTokenizer(
                    f"--teacher_tokenizer '{tokenizer.path}' has no token {token_id}, which the "
                    f"server sends: {error}"
                ) from error
        return known[token_id]

    return decode
