"""The flags of `collect` that ask a server, and what they come to."""

import argparse
import json
import math
import os
from typing import Any

from etils import epath

from specialize_jax import answers
from specialize_jax.apps import data_dir, student
from specialize_jax.data import formats
from specialize_jax.schemas import SchemaError
from specialize_jax.teacher import budget, filtering, prompts, sampling

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
_PROMPTS = "cot_prompts"
# Fields of a request that `--extra_body` cannot change: the first gives replies in pieces; others
# are counted, or named by flags.
_NOT_EXTRA = {"stream", "n", "best_of", "model", "prompt", "messages", "max_tokens", "temperature"}
_PER_REQUEST = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    _asked(parser.add_argument_group("a server that is asked (instead of --gin_file)"))
    _own(parser.add_argument_group("a student of ours that is asked (instead of a server)"))
    add_filter(parser.add_argument_group("what is kept of a server's answers"))
    _limits(parser.add_argument_group("how fast a server is asked, and what may be spent"))


def _asked(group: Any) -> None:
    add = group.add_argument
    add("--base_url", metavar="URL", help=f"as http://localhost:8000/v1; default: {URL_VARIABLE}")
    add("--model", metavar="NAME", help="its name at the server")
    add("--questions", metavar="FILE", help="JSON lines with question, answer, id, kind")
    add("--limit", type=int, metavar="N", help="ask only the first N questions")
    add(
        "--prompt",
        metavar="FILE",
        help="text with {question}, and {answer}, {exemplars} if wanted; or one of "
        + ", ".join(prompts.FORMS),
    )
    add("--exemplars", metavar="FILE", help="what {exemplars} stands for")
    data_dir.add_argument(group)  # holds the exemplars of prompts by name
    add("--samples", type=int, default=1, metavar="N", help="answers to a question")
    add(
        "--samples_per_request",
        type=int,
        metavar="N",
        help="answers asked for at once, whose prompt is charged once (default 8; with "
        "--checkpoint all)",
    )
    add("--top_logprobs", type=int, default=5, metavar="K", help="0 collects text alone")
    add("--api", default="completions", choices=sampling.APIS)
    add("--system", metavar="TEXT", help="a system message, with --api chat")
    add("--temperature", type=float, default=0.5)
    add("--top_p", type=float, default=1.0)
    add("--max_tokens", type=int, default=256, help="of an answer")
    add("--stop", action="append", metavar="TEXT", help="repeatable; default: that of the prompt")
    add("--seed", type=int, default=0)
    add("--extra_body", type=json.loads, default={}, metavar="JSON", help="more for the request")
    add("--teacher_tokenizer", metavar="FILE", help="for servers that name tokens by ids")
    add(
        "--logprobs_temperature",
        default="ask",
        metavar="T",
        help="that log-probabilities include (1: they are before it); 'ask' finds out by two "
        "short requests, 'unknown' records nothing",
    )
    add("--score_existing", metavar="FILE", help="score these answers instead of asking for new")
    add("--scored_by", default="prompt_logprobs", choices=sampling.SCORED_BY)


def _own(group: Any) -> None:
    student.add_names(group, required=False)
    group.add_argument(
        "--batch_size", type=int, default=16, metavar="B", help="answers decoded at a time"
    )


def add_filter(group: Any) -> None:
    """Adds the flags that `rules` reads, and those that choose among right and wrong answers."""
    add = group.add_argument
    add(
        "--mode",
        default="corrected",
        metavar="MODE",
        help="how answers are compared: corrected (the default), fu2023, fu2023_bbh, "
        "fu2023_bbh_direct, or one of lm-evaluation-harness, as gsm8k_cot:strict-match",
    )
    add("--any_answer", action="store_true", help="keep wrong answers beside right ones")
    add("--keep_wrong", action="store_true", help="write wrong answers to DIR/wrong")
    add(
        "--answer_line",
        action=argparse.BooleanOptionalAction,
        help="an answer ends with its first line that says 'answer is' (default: as the prompt, or "
        "the source)",
    )
    add("--min_chars", type=int, default=1)
    add("--max_chars", type=int)


def _limits(group: Any) -> None:
    add = group.add_argument
    add("--estimate", action="store_true", help="print what it would take, and ask nothing")
    add("--max_tokens_total", type=int, metavar="N", help="of prompts and answers")
    add("--max_cost", type=float, help="in the currency of the prices")
    add("--price_prompt", type=float, default=0.0, metavar="P", help="of a million tokens")
    add("--price_completion", type=float, default=0.0, metavar="P", help="of a million tokens")
    add("--concurrency", type=int, default=16, metavar="N", help="requests at one time")
    add("--requests_per_minute", type=float, metavar="N")
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="of an attempt")
    add("--attempts", type=int, default=10, metavar="N", help="of a request at most")


def check(args: argparse.Namespace) -> None:
    """Checks that the flags name a server and a model, or a student; questions and a prompt.

    Raises:
      ValueError: some are missing (all are named) or exclude each other, or a number is out of
        range.
    """
    names = ["questions", "prompt"]
    if args.checkpoint:
        _check_own(args)
    else:
        args.base_url = args.base_url or os.environ.get(URL_VARIABLE)
        names = ["base_url", "model", *names]
    if missing := [f"--{name}" for name in names if not getattr(args, name)]:
        raise ValueError(
            f"expected {', '.join(missing)} (or {URL_VARIABLE} for --base_url), or a teacher named "
            "by --gin_file"
        )
    if args.samples_per_request is None:
        args.samples_per_request = max(args.samples, 1) if args.checkpoint else _PER_REQUEST
    if args.mode not in answers.MODES:
        raise ValueError(f"--mode: unknown '{args.mode}'; choices: {', '.join(answers.MODES)}")
    least = {"concurrency": 1, "attempts": 1, "timeout": 0.001, "requests_per_minute": 0.001}
    for name, number in least.items():
        if getattr(args, name) is not None and not getattr(args, name) >= number:
            raise ValueError(f"--{name}: expected at least {number}, got {getattr(args, name)}")
    if not isinstance(args.extra_body, dict):
        raise ValueError(f"--extra_body: expected a JSON object, got {args.extra_body!r}")
    if wrong := sorted(_NOT_EXTRA & set(args.extra_body)):
        raise ValueError(
            f"--extra_body: {', '.join(wrong)} cannot be set there: replies are read whole, and "
            "flags say the rest"
        )
    _check_logprobs_temperature(args.logprobs_temperature)
    if args.system and args.api != "chat":
        raise ValueError("--system: only --api chat has a system message")


def _check_logprobs_temperature(value: str) -> None:
    if value in ("ask", "unknown"):
        return
    try:
        is_known = 0 < float(value) < math.inf
    except ValueError:
        is_known = False
    if not is_known:
        raise ValueError(
            f"--logprobs_temperature: expected 'ask', 'unknown' or a number above 0, got '{value}'"
        )


def _check_own(args: argparse.Namespace) -> None:
    if args.base_url:
        raise ValueError(
            "expected a server by --base_url or a student by --checkpoint, got both; with "
            "--checkpoint no server is asked"
        )
    if args.teacher_tokenizer:
        raise ValueError("--teacher_tokenizer: a student of --checkpoint has its own")


def key() -> str | None:
    """Returns the key of the environment; None without one.

    Raises:
      ValueError: no header can carry it; the message does not tell it.
    """
    found = os.environ.get(KEY_VARIABLE, "").strip()  # a file's last newline often comes along
    if not (found.isascii() and found.isprintable()):
        raise ValueError(f"{KEY_VARIABLE}: expected printable ASCII, got other characters in it")
    return found or None


def prompt(args: argparse.Namespace) -> tuple[prompts.Form, str | None]:
    """Returns the form of the prompt and the text of its exemplars.

    Raises:
      ValueError: the file is missing, or lacks what it needs.
    """
    form = prompts.FORMS.get(args.prompt)
    if form is None and not epath.Path(args.prompt).is_file():
        raise SchemaError(
            f"--prompt: there is no file '{args.prompt}'; by name: {', '.join(prompts.FORMS)}"
        )
    if form is None:
        form = prompts.Form(_text(args.prompt, "--prompt"), answer_line=False)
    exemplars = _text(args.exemplars, "--exemplars") if args.exemplars else None
    if exemplars is None and form.exemplars is not None:
        folder = data_dir.folder(args.data_dir) / _PROMPTS
        exemplars = _text(str(folder / form.exemplars), "--exemplars")
    if args.prompt == "hint" and exemplars is not None:
        exemplars = prompts.hinted(formats.read_exemplars(exemplars, "the exemplars"))
    prompts.check(form.template, f"--prompt '{args.prompt}'", exemplars=exemplars)
    return form, exemplars


def _text(path: str, flag: str) -> str:
    try:
        return epath.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{flag}: cannot read '{path}': {error}") from error


def asking(
    args: argparse.Namespace, form: prompts.Form, scored: dict[str, list[str]] | None
) -> sampling.Sampling | sampling.Scoring:
    """Returns what is asked."""
    if scored is not None and args.checkpoint:
        return sampling.OwnScoring(
            args.model, scored, args.top_logprobs, extra_body=args.extra_body
        )
    if scored is not None:
        return sampling.Scoring(
            args.model, scored, args.top_logprobs, args.scored_by, args.extra_body
        )
    return sampling.Sampling(
        model=args.model,
        api=args.api,
        num_samples=args.samples,
        per_request=args.samples_per_request,
        top_logprobs=args.top_logprobs,
        temperature=args.temperature,
        top_p=args.top_p,
        max_tokens=args.max_tokens,
        stop=tuple(form.stop if args.stop is None else args.stop),
        seed=args.seed,
        system=args.system,
        extra_body=args.extra_body,
    )


def rules(args: argparse.Namespace, *, answer_line: bool) -> filtering.Rules:
    """Returns what is kept; `answer_line` where no flag says so."""
    line = answer_line if args.answer_line is None else args.answer_line
    return filtering.Rules(args.mode, line, args.min_chars, args.max_chars)


def limits(args: argparse.Namespace) -> budget.Budget:
    """Returns what may be spent."""
    return budget.Budget(
        args.price_prompt, args.price_completion, args.max_tokens_total, args.max_cost
    )
