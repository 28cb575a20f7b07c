"""`specialize-jax generate`: a trained student answers a question."""

import argparse
import collections
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from specialize_jax import answers, decoding
from specialize_jax.apps import answering, student
from specialize_jax.data import formats as formats_lib
from specialize_jax.decoding import calculating
from specialize_jax.schemas import Format

EPILOG = """\
examples:
  specialize-jax generate --checkpoint out/quickstart/student \\
      "Kim has 12 shells. Kim finds 5 more. How many shells does Kim have now?"
  specialize-jax generate --checkpoint out/line/model --samples 8 --json - < questions.txt
A question given as - is read from standard input, one a line. With several samples, the answer is
the one that most of them give; of ties the first."""

FORMAT = Format.ZERO_SHOT_CHAIN_OF_THOUGHT.label
CALCULATOR = "equations"
_BATCH_SIZE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="to answer; - for stdin")
    student.add_arguments(parser)
    parser.add_argument(
        "--format", default=FORMAT, help=f"of the prompt (default: {FORMAT})", metavar="NAME"
    )
    parser.add_argument(
        "--exemplars", metavar="FILE", help="worked questions for the in-context formats"
    )
    parser.add_argument(
        "--kind",
        default="number",
        choices=answers.KINDS,
        help="of answer that is read out of the text (default: number)",
    )
    parser.add_argument(
        "--calculator",
        nargs="?",
        const=CALCULATOR,
        default="none",
        metavar="KIND",
        help=f"one of {', '.join(calculating.KINDS)}: what computes while an answer is written; "
        f"without KIND: {CALCULATOR}",
    )
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="answers to a question")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="default: 0, or 0.7 for several samples"
    )
    parser.add_argument("--top_k", type=int, metavar="K", help="draw among K tokens; default: all")
    parser.add_argument("--top_p", type=float, default=1.0, metavar="P", help="draw within this")
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument("--json", action="store_true", help="print one line of JSON a question")


class Reply(NamedTuple):
    """What a student says to a question.

    Attributes:
      question: as it was given.
      prompt: how it was put.
      responses: the texts, one a sample.
      answers: what was read out of each; None for nothing.
      answer: what most of them say.
      votes: answer -> how many say so, the most frequent first.
    """

    question: str
    prompt: str
    responses: list[str]
    answers: list[str | None]
    answer: str | None
    votes: dict[str, int]


def main(args: argparse.Namespace) -> int:
    """Answers the questions in their order, and prints each as it is done."""
    take_back_question(args)
    settings = read_settings(args)
    prompt_format = formats_lib.parse(args.format)
    exemplars = read_exemplars(prompt_format, args.exemplars)
    questions = read_questions(args.questions)
    asked, step = student.named(args)
    answerer = asked.answerer(settings, min(len(questions), _BATCH_SIZE), args.input_length)
    prompts = [formats_lib.render_inputs(prompt_format, each, exemplars) for each in questions]
    for question, prompt in zip(questions, prompts, strict=True):
        if (length := answerer.length(prompt)) > answerer.input_length:
            raise ValueError(
                f"a prompt of {length} tokens, --input_length and the student allow "
                f"{answerer.input_length}: …{question[-80:]!r}"
            )
    params = asked.restore(step)
    for place, texts in in_order(answerer.stream(params, prompts, range(len(prompts)))):
        texts = [calculating.revised(text, args.calculator) for text in texts]
        reply = read_reply(questions[place], prompts[place], texts, args.kind)
        print(json.dumps(reply._asdict()) if args.json else describe(reply), flush=True)
    return 0


def take_back_question(args: argparse.Namespace) -> None:
    """Puts a question that stands right behind `--calculator` where it belongs."""
    given = args.calculator
    if given not in calculating.KINDS and (given == "-" or " " in given.strip()):
        args.questions.insert(0, given)
        args.calculator = CALCULATOR


def read_settings(args: argparse.Namespace) -> answering.Settings:
    """Returns how the student is asked, as flags say.

    Raises:
      ValueError: they exclude each other.
    """
    temperature = args.temperature
    if temperature is None:
        temperature = 0.7 if args.samples > 1 else 0.0
    return answering.Settings(
        max_length=args.max_length,
        temperature=temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        samples=args.samples,
        seed=args.seed,
        calculator=calculating.while_decoding(args.calculator),
    )


def read_exemplars(prompt_format: Format, file: str | None) -> Sequence[formats_lib.Exemplar]:
    """Returns the worked questions of a prompt.

    Raises:
      ValueError: an in-context format without a file, another one with it, or a malformed file.
    """
    if (file is not None) != prompt_format.is_in_context:
        needs = "needs" if prompt_format.is_in_context else "takes no"
        raise ValueError(f"format '{prompt_format.label}' {needs} --exemplars FILE")
    return () if file is None else formats_lib.read_exemplars(epath.Path(file).read_text(), file)


def read_questions(given: Sequence[str]) -> list[str]:
    """Returns the questions, those of standard input where `-` stands.

    Raises:
      ValueError: there is none, or an empty one.
    """
    questions: list[str] = []
    for each in given:
        if each == "-":
            questions += [line.strip() for line in sys.stdin if line.strip()]
        elif each.strip():
            questions.append(each.strip())
        else:
            raise ValueError("expected a question, got an empty one")
    if not questions:
        raise ValueError("expected a question, or - and a question a line on standard input")
    return questions


def in_order(answered: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Yields answers by place, each as soon as those before it are there."""
    early: dict[int, list[str]] = {}
    place = 0
    for found, texts in answered:
        early[found] = texts
        while place in early:
            yield place, early.pop(place)
            place += 1


def read_reply(question: str, prompt: str, texts: list[str], kind: str) -> Reply:
    """Reads the answers out of texts, and counts their votes."""
    read = [answers.extract(text, kind=kind) for text in texts]
    votes = collections.Counter(answer for answer in read if answer is not None)
    return Reply(
        question, prompt, texts, read, decoding.majority_vote(read), dict(votes.most_common())
    )


def describe(reply: Reply) -> str:
    """Returns a reply as lines for a person."""
    lines = [f"Q: {reply.question}"]
    if len(reply.responses) == 1:
        lines.append(reply.responses[0] or "(an empty text)")
    else:
        for number, text in enumerate(reply.responses, start=1):
            lines.append(f"[{number}] {text or '(an empty text)'}")
    lines.append(f"answer: {'none found' if reply.answer is None else reply.answer}")
    if len(reply.responses) > 1:
        counted: dict[Any, int] = dict(reply.votes)
        if without := reply.answers.count(None):
            counted["no answer"] = without
        lines.append("votes: " + ", ".join(f"{name} x {count}" for name, count in counted.items()))
    return "\n".join(lines) + "\n"
