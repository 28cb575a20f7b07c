"""What a command line of `collect` comes to, before anything is asked."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from specialize_jax import tokenizers
from specialize_jax.apps import collect_flags, question_file, student
from specialize_jax.apps.local_teacher import Local
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
      local: the student that is asked; None for a server.
      tokenizer: name of the teacher's tokenizer, where known.
      decode: id -> bytes, by the teacher's tokenizer.
      settings: what the answers depend on, as `settings.json` keeps it.
    """

    questions: Sequence[Question]
    prompt: Callable[[collect.Question], str]
    asking: sampling.Sampling | sampling.Scoring
    rules: filtering.Rules
    budget: budget.Budget
    local: Local | None
    tokenizer: str | None
    decode: names.Decode | None
    settings: dict[str, Any]


def make(args: argparse.Namespace) -> Plan:
    """Reads what the flags name.

    Raises:
      ValueError: a file, a flag or a question is not as it should be.
    """
    local = Local(*student.named(args)) if args.checkpoint else None
    if local:
        args.model = args.model or local.student.config["name"]
    questions = question_file.read(args.questions, limit=args.limit)
    collect.check_questions(questions)
    form, exemplars = collect_flags.prompt(args)
    if not args.any_answer or "{answer}" in form.template:
        question_file.check_gold(questions, args.questions)
    scored = None
    if args.score_existing:
        scored = question_file.read_answers(args.score_existing, questions)
    asked = collect_flags.asking(args, form, scored)
    tokenizer, name = None, args.teacher_tokenizer
    if local:
        tokenizer, name = local.student.tokenizer, local.student.tokenizer.name
    elif name:
        tokenizer = tokenizers.load(name)
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
    if local:
        settings |= local.settings
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
        local,
        name,
        names.decoder(tokenizer) if tokenizer else None,
        json.loads(json.dumps(settings)),  # as it reads in the file, where tuples are lists
    )
