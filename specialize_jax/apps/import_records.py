"""`specialize-jax import`: solutions that others wrote become teacher records."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from etils import epath

from specialize_jax import answers
from specialize_jax.apps import collect_flags, data_dir, provenance
from specialize_jax.schemas import SchemaError, faults, folders
from specialize_jax.schemas import records as schema
from specialize_jax.teacher import collect, filtering, importers, records

EPILOG = """\
examples:
  specialize-jax import --source gsm8k --source codex_top5_steps \\
      --data_dir ../shared/data --out out/line/records
  specialize-jax import --source codex_text_log --file train_codex_complex.txt --out out/records
  specialize-jax import --source chains --file chains.jsonl --form messages \\
      --field gold=answer --teacher NAME --keep_wrong --out out/records

forms of --source chains, and the fields that each reads:
  completion         question; completion
  prompt_completion  prompt; completion (texts or chat lists)
  messages           messages: a user's and an assistant's, perhaps a system's before
  rationale          question; rationale, then 'The answer is' and the field answer
  instruction        instruction, input; output
  gsm8k              question; answer, with a last line '#### 18' (also the gold answer)"""
CHAINS = "chains"


class _Import(NamedTuple):
    """A source as the flags want it.

    Attributes:
      rows: reads it.
      info: of its teacher.
      settings: what the records depend on, as the info file keeps it.
    """

    rows: Callable[[faults.Faults], Iterator[dict[str, Any] | str]]
    info: dict[str, Any]
    settings: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add = parser.add_argument
    add(
        "--source",
        action="append",
        required=True,
        choices=sorted([*importers.SOURCES, *importers.published.FILES, CHAINS]),
        metavar="NAME",
        help="repeatable; each becomes a folder of this name below --out; one of "
        + ", ".join([*importers.SOURCES, CHAINS, *importers.published.FILES]),
    )
    add("--file", metavar="FILE", help="a file of your own in the form of the source")
    data_dir.add_argument(parser)
    add("--out", required=True, metavar="DIR", help="folder to write below")
    add(
        "--on_error",
        default="fail",
        help="what a bad line does: fail; skip, which leaves it out and lists it",
    )
    _chains(parser.add_argument_group("how --source chains is read (jsonl, json, parquet, arrow)"))
    collect_flags.add_filter(parser.add_argument_group("what is kept"))


def _chains(group: Any) -> None:
    add = group.add_argument
    add("--form", choices=tuple(importers.FORMS), help="whose field names; see below")
    add(
        "--field",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="repeatable; names the field of a role: " + ", ".join(importers.ROLES),
    )
    add("--questions", metavar="FILE", help="questions and gold answers, found by id or text")
    add("--kind", default="number", choices=answers.KINDS, help="of answers (default number)")
    add("--answer_mark", metavar="TEXT", help="before the answer of a solution (default '#### ')")
    add("--teacher", default="unknown", metavar="NAME", help="who wrote the chains")


def main(args: argparse.Namespace) -> int:
    """Writes one records folder per source; finished ones are left as they are."""
    _check(args)
    for name in args.source:
        found = _chosen(args, name)
        out = epath.Path(args.out) / name
        if folders.schema_of(out) == schema.NAME:
            _check_same(out, found.settings)
            print(f"{name}: already in {out}")
        else:
            _write(args, name, found, out)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for flags that do not go together."""
    if args.file and len(args.source) > 1:
        raise ValueError(f"--file: goes with one --source, got {', '.join(args.source)}")
    of_chains = {name: getattr(args, name) for name in ("form", "field", "questions")}
    if CHAINS not in args.source and (given := [f"--{n}" for n, v in of_chains.items() if v]):
        raise ValueError(f"{', '.join(given)}: only --source {CHAINS} takes these")
    faults.check_on_error(args.on_error)


def _chosen(args: argparse.Namespace, name: str) -> _Import:
    """Returns a source as the flags want it.

    Raises:
      ValueError: it needs a file, or a data folder, and none is given.
    """
    if name == CHAINS:
        return _from_chains(args)
    if name in importers.published.FILES:
        return _from_published(args, importers.published.FILES[name])
    source = importers.SOURCES[name]
    if source.needs_file and not args.file:
        raise ValueError(f"--source {name}: no such file was published: expected --file FILE")
    data = epath.Path(args.data_dir or "") if args.file else data_dir.folder(args.data_dir)
    rules = collect_flags.rules(args, answer_line=source.answer_line)

    def rows(bad: faults.Faults) -> Iterator[dict[str, Any] | str]:
        return source.rows(data, file=args.file, rules=rules, faults=bad)

    file = epath.Path(args.file) if args.file else None
    info = {**source.info, "source": f"{name} in {file or data}"}
    return _Import(rows, info, _settings(args, rules, file))


def _from_published(args: argparse.Namespace, published: importers.published.Published) -> _Import:
    data = data_dir.folder(args.data_dir)
    if args.file:
        raise ValueError(f"--file: this source is '{published.file}'; use --source {CHAINS}")
    questions = data / published.questions if published.questions else None
    return _text(args, data / published.file, questions, published.layout, published.info)


def _from_chains(args: argparse.Namespace) -> _Import:
    if not args.file:
        raise ValueError(f"--source {CHAINS}: expected --file FILE")
    fields = importers.named(args.form, args.field, has_questions=bool(args.questions))
    layout = importers.chains.Layout(fields, args.kind)
    if args.answer_mark:
        layout = dataclasses.replace(layout, mark=args.answer_mark)
    info = {
        "teacher": {"name": args.teacher, "revision": None},
        "tokenizer": {"name": None, "sha256": None},
        "sampling": {},
    }
    questions = epath.Path(args.questions) if args.questions else None
    return _text(args, epath.Path(args.file), questions, layout, info)


def _text(
    args: argparse.Namespace,
    file: epath.Path,
    questions: epath.Path | None,
    layout: importers.chains.Layout,
    info: dict[str, Any],
) -> _Import:
    """Returns chains of text as a source."""
    rules = collect_flags.rules(args, answer_line=False)
    asked = importers.questions.read(questions, kind=layout.kind) if questions else None
    if asked is not None:
        collect.check_questions(asked)

    def rows(bad: faults.Faults) -> Iterator[dict[str, Any] | str]:
        return importers.chains.rows(file, layout, rules, questions=asked, faults=bad)

    settings = _settings(args, rules, file) | {
        "layout": dataclasses.asdict(layout),
        "questions_sha256": folders.sha256(questions) if questions else None,
    }
    return _Import(rows, {**info, "source": str(file)}, settings)


def _settings(
    args: argparse.Namespace, rules: filtering.Rules, file: epath.Path | None
) -> dict[str, Any]:
    kept = {name: getattr(args, name) for name in ("any_answer", "keep_wrong", "on_error")}
    if file is not None and not file.is_dir():
        importers.check_there(file)
    return {
        "filter": {**dataclasses.asdict(rules), **kept},
        "file_sha256": folders.sha256(file) if file is not None and file.is_file() else None,
    }


def _check_same(out: epath.Path, settings: dict[str, Any]) -> None:
    """Raises SchemaError where finished records were made by other settings."""
    done = folders.read_info(out, schema.NAME)
    known = {name: value for name, value in settings.items() if name in done}
    if changed := folders.differences(done, known):
        raise SchemaError(
            f"'{out}' was imported with other settings ({changed}); give another --out, or remove "
            "the folder"
        )


def _write(args: argparse.Namespace, name: str, found: _Import, out: epath.Path) -> None:
    bad = faults.Faults(args.on_error)
    folders.make_folder(out)
    for folder in (out, out / records.WRONG):
        records.clear(folder)
    # Before the info file, which says that the folder is finished.
    provenance.write(out, "import")
    info: dict[str, Any] = {**found.info, **found.settings, "unjudged": 0, "skipped": bad.found}

    def rows() -> Iterator[dict[str, Any] | str]:
        for row in found.rows(bad):
            if not isinstance(row, str) and row["is_correct"] is None:
                info["unjudged"] += 1
            yield row

    done = records.write(
        rows(), out, info, reject=records.keep_any if args.any_answer else records.not_wrong
    )
    if args.keep_wrong and done["dropped"].get("wrong_answer"):
        again = found.rows(faults.Faults("skip"))
        records.write(again, out / records.WRONG, found.info, reject=records.right_answer)
    _print(name, out, done)


def _print(name: str, out: epath.Path, done: dict[str, Any]) -> None:
    dropped = ", ".join(f"{n} {reason}" for reason, n in done["dropped"].items()) or "none"
    top = f"top {done['k']}" if done["k"] else "text alone, for match_sample"
    print(f"{name}: {done['rows']} records in {out} (dropped: {dropped}; {top})")
    if done["unjudged"]:
        print(f"  {done['unjudged']} without a gold answer: neither right nor wrong")
    if done["skipped"]:
        print(f"  left out, the first of {len(done['skipped'])}: {done['skipped'][0]}")
    if "note" in done:
        print(f"  note: {done['note']}")
