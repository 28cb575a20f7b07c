"""`specialize-jax collect`: a teacher answers questions; right answers become teacher records."""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from specialize_jax.apps import collect_flags, gin_setup, progress, provenance, served
from specialize_jax.schemas import SchemaError, folders
from specialize_jax.schemas import records as schema
from specialize_jax.teacher import collect, records

EPILOG = """\
example:
  specialize-jax collect --base_url http://localhost:8000/v1 --model NAME \\
      --questions train.jsonl --prompt complex --samples 8 --out out/records
  specialize-jax collect --checkpoint out/quickstart/student \\
      --questions train.jsonl --prompt prompt.txt --samples 8 --out out/records
  specialize-jax collect --gin_file=experiments/quickstart.gin --out out/quickstart/records"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    collect_flags.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Asks a server, as the flags say, or the teacher that gin files name."""
    if not args.gin_file:
        return served.main(args)
    if args.base_url or args.checkpoint or args.model or args.questions:
        raise ValueError(
            "expected a teacher by --gin_file or a server by --base_url (or a student by "
            "--checkpoint), got both"
        )
    gin_setup.configured(args, run, out=args.out)()
    return 0


def run(
    out: str,
    *,
    teacher: collect.Teacher,
    questions: Callable[[], Sequence[collect.Question]],
    num_samples: int = 1,
    top_logprobs: int = 5,
    seed: int = 0,
) -> None:
    """Samples a teacher and keeps its right answers.

    Args:
      out: the folder to write.
      teacher: who answers; see `teacher.collect.Teacher`.
      questions: gives what is asked.
      num_samples: answers a question.
      top_logprobs: candidates recorded at every step.
      seed: of the samples.

    Raises:
      ValueError: a number is out of range.
      SchemaError: no answer was right, or the folder holds records of other settings.
    """
    asked = questions()
    collect.check_questions(asked)
    rows = collect.rows(
        teacher, asked, num_samples=num_samples, top_logprobs=top_logprobs, seed=seed
    )
    try:
        # As it reads in the file, where tuples are lists.
        described = json.loads(json.dumps(dict(teacher.info)))
        sampling, kept = described["sampling"], {k: described[k] for k in ("teacher", "tokenizer")}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "TEACHER: expected an object whose `info` holds 'teacher', 'tokenizer' and 'sampling' "
            f"as JSON values, got {getattr(teacher, 'info', teacher)!r}"
        ) from error
    sampling = {
        **sampling,
        "n": num_samples,
        "logprobs": top_logprobs,
        "seed": seed,
        "questions": len(asked),
        "questions_sha256": collect.digest(asked),
    }
    info = {**kept, "sampling": sampling, "source": "specialize-jax collect"}
    if folders.schema_of(out) == schema.NAME:
        done = folders.read_info(out, schema.NAME)
        check_same_settings(out, done, info)
        print(f"already collected: {out}")
    else:
        bar = progress.bar("collect", len(asked) * num_samples)
        # Before the info file, which says that the folder is finished.
        provenance.write(folders.make_folder(out), "collect", gin=True)
        done = records.write(_counted(rows, bar), out, info)
    dropped = ", ".join(f"{number} {reason}" for reason, number in done["dropped"].items())
    print(
        f"{done['rows']} of {done['rows'] + sum(done['dropped'].values())} answers kept in {out} "
        f"(dropped: {dropped or 'none'}; top {done['k']} of every step)"
    )


def check_same_settings(out: str, done: dict[str, Any], info: dict[str, Any]) -> None:
    """Checks that finished records were collected with these settings.

    Raises:
      SchemaError: they were not; every differing setting is named.
    """
    described = {name: info[name] for name in ("teacher", "tokenizer", "sampling")}
    if changed := folders.differences(done, described):
        raise SchemaError(
            f"'{out}' was collected with other settings ({changed}); give another --out, or remove "
            "the folder"
        )


def _counted(rows: Iterable[Any], done: Callable[[int], None]) -> Iterator[Any]:
    for row in rows:
        yield row
        done(1)
