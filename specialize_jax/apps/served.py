"""`specialize-jax collect` from a server or a student: asks, keeps replies, and makes records.

What was paid for lies in `DIR/requests/`: `settings.json`, and `journal.jsonl` with every reply.
The records are made from the journal alone, so that another filter asks nothing anew.
"""

import argparse
import asyncio
import itertools
import json
import pathlib
import time
from typing import Any

from specialize_jax.apps import collect_flags, progress, served_plan, served_records, serving
from specialize_jax.apps.local_teacher import LocalClient
from specialize_jax.decoding import voting
from specialize_jax.schemas import SchemaError, folders
from specialize_jax.teacher import asking, budget, filtering, first_look, sampling, summary, wire
from specialize_jax.teacher.client import Client, Pace, Refused, Transient
from specialize_jax.teacher.journal import Entry, Journal

_SETTINGS = "settings.json"
_LOOKED_AT = 5  # requests at most, one after another, before many are asked at once


def main(args: argparse.Namespace) -> int:
    """Collects as the flags say."""
    collect_flags.check(args)
    plan = served_plan.make(args)
    out = pathlib.Path(args.out)
    if folders.is_remote(args.out):
        raise ValueError(f"--out: replies are appended to a local file; '{args.out}' is none")
    settings = out / "requests" / _SETTINGS
    if folders.schema_of(out) and not settings.exists():
        raise SchemaError(f"'{out}' holds {folders.schema_of(out)} that no server gave")
    if args.estimate and not out.exists():
        _print_estimate(plan, set())
        return 0
    folders.make_folder(out)
    with Journal(out / "requests" / "journal.jsonl") as journal:
        if len(journal):
            _check_same(settings, plan.settings)
        waiting = _print_estimate(plan, journal)
        if args.estimate:
            return 0
        outcome = asking.Outcome(None, 0, None)
        if waiting:
            folders.write_json(settings, plan.settings)
            outcome = asyncio.run(_ask(args, plan, journal))
        served_records.write(args, plan, out, journal, outcome)
    if outcome.failed:
        raise Refused(
            f"{outcome.failed} requests got no answer (the last: {outcome.reason}); the same "
            "command asks for what is missing"
        )
    return 0


def _check_same(path: pathlib.Path, settings: dict[str, Any]) -> None:
    """Checks that what was answered was asked with these settings."""
    if changed := folders.differences(json.loads(path.read_text()), settings):
        raise SchemaError(
            f"'{path.parents[1]}' was collected with other settings ({changed}); give another "
            "--out, or remove the folder"
        )


def _print_estimate(plan: served_plan.Plan, there: Any) -> int:
    """Prints what is still to be asked, and returns how many requests that are."""
    jobs = asking.jobs(plan.asking, plan.questions, plan.prompt, there)
    found = budget.estimate(
        (
            (len(job.prompt.encode()), len(job.samples), plan.asking.longest(job.question))
            for job in jobs
        ),
        plan.budget,
        top_logprobs=plan.asking.top_logprobs,
    )
    print(
        f"to ask: {found.requests} requests for {found.answers} answers; about "
        f"{found.prompt_tokens:,} prompt tokens, {found.completion_tokens:,} tokens of answers at "
        f"most, cost {found.cost:.2f} at most, about {found.disk / 1e6:.1f} MB on disk at most"
    )
    return found.requests


async def _ask(
    args: argparse.Namespace, plan: served_plan.Plan, journal: Journal
) -> asking.Outcome:
    client = _client(args, plan)
    wanted = sum(len(plan.asking.samples(question)) for question in plan.questions)
    shown = _Shown(plan, journal, wanted)
    loop = asking.Loop(
        client, plan.asking, journal, plan.budget, decode=plan.decode, answered=shown.answered
    )
    try:
        jobs = asking.jobs(plan.asking, plan.questions, plan.prompt, journal)
        await _first(args, plan, client, journal, loop)
        return await loop.run(jobs, concurrency=args.concurrency)
    except Refused as error:
        if error.status == 404 and (models := await client.models()):
            raise Refused(f"{error}; its models: {', '.join(models)}") from None
        raise
    finally:
        if client.retries:
            counts = ", ".join(f"{n} {why}" for why, n in sorted(client.retries.items()))
            print(f"attempts that failed: {counts}")
        await client.close()


def _client(args: argparse.Namespace, plan: served_plan.Plan) -> Client | LocalClient:
    """Returns who is asked; a student's parameters are read here."""
    if plan.local is None:
        return Client(
            args.base_url,
            collect_flags.key(),
            timeout=args.timeout,
            attempts=args.attempts,
            pace=Pace(args.requests_per_minute),
            connections=args.concurrency,
            say=progress.say,
        )
    asked, step = plan.local
    decoder = serving.Decoder(
        asked,
        asked.restore(step),
        max_length=args.max_tokens,
        input_length=asked.input_length(args.input_length, args.max_tokens),
        batch_size=args.batch_size,
        max_logprobs=max(plan.asking.top_logprobs, 1),
    )
    jobs = asking.jobs(plan.asking, plan.questions, plan.prompt, ())
    return LocalClient(decoder, plan.local.path, args.model, plan.asking, jobs)


async def _first(
    args: argparse.Namespace,
    plan: served_plan.Plan,
    client: Client | LocalClient,
    journal: Journal,
    loop: asking.Loop,
) -> None:
    """Asks the first question alone, and looks at what comes before more is spent."""
    path = pathlib.Path(args.out) / "requests" / served_records.MEASURED
    if path.exists():
        return

    was_seen = bool(len(journal))

    def look(choices: list[wire.Choice]) -> None:
        nonlocal was_seen
        was_seen = any(choice.text.strip() for choice in choices)
        top = plan.asking.top_logprobs
        if note := first_look.check(choices, top_logprobs=top, decode=plan.decode):
            progress.say(f"note: {note}")

    jobs = asking.jobs(plan.asking, plan.questions, plan.prompt, journal)
    for job in itertools.islice(jobs, _LOOKED_AT):  # answers may be empty
        if was_seen:
            break
        await loop.first(job, look)
    try:
        included = await _included(args, plan, client, journal)
    except (Refused, Transient) as error:
        progress.say(f"note: the temperature that log-probabilities include is not known: {error}")
        return
    folders.write_json(path, {"logprobs_temperature": included, "server": client.url})


async def _included(
    args: argparse.Namespace,
    plan: served_plan.Plan,
    client: Client | LocalClient,
    journal: Journal,
) -> float | None:
    """Returns the temperature that log-probabilities include; None where it is not known."""
    asked = plan.asking
    if isinstance(client, LocalClient):
        return 1.0 if asked.top_logprobs else None
    if not isinstance(asked, sampling.Sampling) or not asked.top_logprobs:
        return None
    if args.logprobs_temperature != "ask":
        known = args.logprobs_temperature
        return None if known == "unknown" else float(known)
    if asked.temperature == 1.0:
        return 1.0
    question = plan.questions[0]
    included, tokens = await first_look.temperature_of_logprobs(
        client, asked, question, plan.prompt(question), plan.decode
    )
    journal.add(Entry(question.id, (), tokens, "{}"))
    return included


class _Shown:
    """The progress of asking: share of right answers, tokens a second, cost."""

    def __init__(self, plan: served_plan.Plan, journal: Journal, wanted: int):
        self._plan, self._journal = plan, journal
        self._tally = summary.Tally(voting.majority_vote, plan.rules.mode)
        self._start, self._tokens = time.monotonic(), 0
        self._bar = progress.bar("collect", wanted, done=len(journal))

    def answered(
        self, job: asking.Job, found: list[tuple[int, wire.Choice]], tokens: tuple[int, int]
    ) -> None:
        """Takes a reply."""
        for sample, choice in found:
            text = filtering.judged_text(choice, self._plan.rules)
            self._tally.add(job.question, sample, text)
        self._tokens += tokens[1]
        speed = self._tokens / max(time.monotonic() - self._start, 1e-9)
        cost = self._plan.budget.cost(*self._journal.tokens)
        right = self._tally.right / max(self._tally.judged, 1)
        self._bar(len(found), note=f"{right:.1%} right, {speed:.0f} tokens/s, cost {cost:.2f}")
