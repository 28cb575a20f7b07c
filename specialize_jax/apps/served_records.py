"""From the replies of a server, as the journal keeps them, to teacher records."""

import argparse
import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from specialize_jax.apps import collect_flags, provenance, served_plan
from specialize_jax.decoding import voting
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import folders
from specialize_jax.schemas import records as schema
from specialize_jax.teacher import asking, filtering, records, sampling, summary, wire
from specialize_jax.teacher.client import public
from specialize_jax.teacher.journal import Journal

MEASURED = "measured.json"
_DECISIVE = ("filter", "answers", "logprobs_temperature")


def write(
    args: argparse.Namespace,
    plan: served_plan.Plan,
    out: pathlib.Path,
    journal: Journal,
    outcome: asking.Outcome,
) -> None:
    """Writes records from what the journal holds, in the order of the questions.

    A folder that says the same already is left as it is; one that was made by another filter, or
    from fewer answers, is written again.

    Raises:
      SchemaError: no answer is kept.
    """
    info = _info(args, plan, out, journal, outcome)
    if folders.schema_of(out) == schema.NAME:
        done = folders.read_info(out, schema.NAME)
        if not folders.differences(done, {name: info[name] for name in _DECISIVE}):
            print(f"already collected: {out}")
            return
        records.clear(out)
    records.clear(out / records.WRONG)
    provenance.write(out, "collect")
    tally = summary.Tally(voting.majority_vote, plan.rules.mode)
    counts: collections.Counter[str] = collections.Counter()
    kept: collections.Counter[str] = collections.Counter()
    reject = records.keep_any if args.any_answer else records.wrong_answer

    def rows() -> Iterator[dict[str, Any] | str]:
        for row in _rows(plan, journal, tally):
            if not isinstance(row, str):
                counts.update(row["counts"])
                kept.update([row["example_id"]] if reject(row) is None else [])
            yield row
        # Everything is known once the last row is made, and the info file is written after it.
        info["summary"] = tally.summary() | {
            "kept_per_question": summary.histogram(kept, len(plan.questions))
        }
        info["left_out"] = dict(counts)

    done = records.write(rows(), out, info, reject=reject)
    if args.keep_wrong and done["dropped"].get("wrong_answer"):
        again = _rows(plan, journal, summary.Tally(voting.majority_vote, plan.rules.mode))
        records.write(again, out / records.WRONG, info, reject=records.right_answer)
    _print(out, done)


def _info(
    args: argparse.Namespace,
    plan: served_plan.Plan,
    out: pathlib.Path,
    journal: Journal,
    outcome: asking.Outcome,
) -> dict[str, Any]:
    settings = plan.settings
    path = out / "requests" / MEASURED
    # Absent where the server would not be measured.
    measured = json.loads(path.read_text()) if path.exists() else {}
    prompt, completion = journal.tokens
    wanted = sum(len(plan.asking.samples(question)) for question in plan.questions)
    used = {"any_answer": args.any_answer, "keep_wrong": args.keep_wrong}
    return {
        "teacher": {"name": args.model, "revision": settings.get("checkpoint")},
        "tokenizer": {"name": plan.tokenizer, "sha256": settings["tokenizer"]},
        "sampling": settings,
        "logprobs_temperature": _included(args, plan, measured),
        "prompt_template_sha256": settings["prompt_template_sha256"],
        "source": f"specialize-jax collect from {measured.get('server') or _asked(args)}",
        "filter": {**dataclasses.asdict(plan.rules), **used},
        "answers": {"wanted": wanted, "there": len(journal)},
        "stopped": outcome.stopped,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "perhaps_lost_tokens": journal.lost,
            "cost": plan.budget.cost(prompt, completion),
        },
    }


def _asked(args: argparse.Namespace) -> str:
    return str(args.checkpoint or public(args.base_url))


def _included(
    args: argparse.Namespace, plan: served_plan.Plan, measured: dict[str, Any]
) -> float | None:
    """What a flag says of a server counts, also where something was measured before."""
    by_server = isinstance(plan.asking, sampling.Sampling) and plan.local is None
    said = collect_flags.said_temperature(args)
    if by_server and plan.asking.top_logprobs and said is not None:
        return said
    return measured.get("logprobs_temperature")


def _rows(
    plan: served_plan.Plan, journal: Journal, tally: summary.Tally
) -> Iterator[dict[str, Any] | str]:
    for question in plan.questions:
        choices = _choices(plan, journal, question)
        for sample, choice in choices:
            tally.add(question, sample, filtering.judged_text(choice, plan.rules))
        yield from filtering.rows(
            question,
            plan.prompt(question),
            choices,
            plan.rules,
            top_logprobs=plan.asking.top_logprobs,
            decode=plan.decode,
        )


def _choices(
    plan: served_plan.Plan, journal: Journal, question: Question
) -> list[tuple[int, wire.Choice]]:
    """Returns (sample, answer) of what the journal holds of a question, by sample."""
    found: dict[int, wire.Choice] = {}
    for samples, body in journal.replies(question.id):
        choices = plan.asking.read(json.loads(body), question, samples, plan.decode)
        found.update(zip(samples, choices, strict=True))
    return sorted(found.items(), key=lambda pair: pair[0])


def _print(out: epath.PathLike, done: dict[str, Any]) -> None:
    dropped = ", ".join(f"{number} {reason}" for reason, number in done["dropped"].items())
    left_out = ", ".join(f"{number} {what}" for what, number in done["left_out"].items() if number)
    used, found = done["usage"], done["summary"]
    shares = {"first sample": "first_sample_accuracy", "majority": "majority_accuracy"}
    told = [f"{words} {found[name]:.1%}" for words, name in shares.items() if name in found]
    told += [f"pass@{k} {share:.1%}" for k, share in found.get("pass_at_k", {}).items()]
    print(
        f"{done['rows']} of {found['samples']} answers kept in {out} (dropped: "
        f"{dropped or 'none'}; top {done['k']} of every step; left out: {left_out or 'none'})\n"
        f"teacher: {', '.join(told) or 'no gold answers to judge it by'}; "
        f"{used['prompt_tokens']:,} + {used['completion_tokens']:,} tokens, cost "
        f"{used['cost']:.2f}" + (f"; stopped by --{done['stopped']}" if done["stopped"] else "")
    )
