"""`specialize-jax align`: teacher records become aligned examples in the student's tokens."""

import argparse
import collections
import concurrent.futures
import multiprocessing
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from specialize_jax.apps import progress, provenance
from specialize_jax.data.aligning import job, totals
from specialize_jax.data.aligning.job import Settings
from specialize_jax.data.aligning.totals import Totals
from specialize_jax.schemas import SchemaError, aligned, folders, records

EPILOG = """\
example:
  specialize-jax align \\
      --records out/line/records/gsm8k --records out/line/records/codex_top5_steps \\
      --teacher_tokenizer ../shared/data/tokenizer_tiktoken/p50k_base.tiktoken \\
      --student_tokenizer ../shared/data/tokenizer_t5/spiece.model \\
      --mode one_to_one --out out/line/aligned"""
# Folder of records, a part's entry in its info file, the part.
_Work = tuple[str, dict[str, Any], epath.Path]
TOKENIZER_FILE = "student_tokenizer.model"
_PARTS_AT_ONCE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--records",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of teacher records; repeatable. The first chain of a question also serves "
        "as its exemplar and gives the answer-only formats their answer",
    )
    parser.add_argument("--student_tokenizer", required=True, metavar="FILE", help="spiece.model")
    parser.add_argument(
        "--teacher_tokenizer",
        metavar="FILE",
        help="checks that the records' tokens are this tokenizer's (p50k_base.tiktoken)",
    )
    parser.add_argument(
        "--mode",
        default="one_to_one",
        help="how distributions are carried over: one_to_one, the published rule; soft, "
        "FuseLLM's, which takes a string for the nearest student token; marginal, what the "
        "teacher's candidates imply for the next student token",
    )
    parser.add_argument("--k_out", type=int, default=8, help="entries kept per student token")
    parser.add_argument(
        "--on_error",
        default="fail",
        help="what a bad row does: fail; skip, which leaves it out and lists it",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        help="processes for the work on the host (default: one per core); the output is the same",
    )
    parser.add_argument(
        "--runner",
        default="local",
        choices=("local", "beam"),
        help="who makes the parts: this process, or an Apache Beam pipeline (extra 'beam'); the "
        "files are the same",
    )
    parser.add_argument(
        "--pipeline_options",
        default="",
        metavar="OPTIONS",
        help="of the Beam pipeline, in one string, as '--runner=DirectRunner "
        "--direct_num_workers=4 --direct_running_mode=multi_processing'",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def main(args: argparse.Namespace) -> int:
    """Aligns every part; finished parts of an interrupted run are kept."""
    settings = Settings.load(
        mode=args.mode,
        k_out=args.k_out,
        student_tokenizer=args.student_tokenizer,
        teacher_tokenizer=args.teacher_tokenizer,
        on_error=args.on_error,
    )
    if args.processes < 1:
        raise ValueError(f"--processes: expected at least 1, got {args.processes}")
    infos = {folder: folders.read_info(folder, records.NAME) for folder in args.records}
    for folder, info in infos.items():
        job.check_info(info, settings, f"'{folder}'")
    out = folders.make_folder(args.out)
    work = [
        (folder, entry, epath.Path(folder) / entry["file"])
        for folder, info in infos.items()
        for entry in info["shards"]
    ]
    targets = [out / folders.part_name(number) for number in range(len(work))]
    _check_no_others(out, targets)
    if args.runner == "beam":
        _run_beam(work, targets, settings, shlex.split(args.pipeline_options))
    elif args.pipeline_options:
        raise ValueError("--pipeline_options: is for --runner beam")

    # What Beam has made is read here; what it had to leave out fails here.
    parts = _parts(work, targets, settings, args.processes)
    done = progress.bar("align", sum(info["rows"] for info in infos.values()))
    shards: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    by_source = {folder: Totals() for folder in infos}
    for (folder, entry, source), path, part in zip(work, targets, parts, strict=True):
        if part["rows"] + len(part["skipped"]) != entry["rows"]:
            rows = part["rows"] + len(part["skipped"])
            raise SchemaError(f"'{source}': expected {entry['rows']} rows, got {rows}")
        by_source[folder].merge(Totals.from_json(part["totals"]))
        examples = totals.worst(examples + part["examples"])
        skipped += [{"file": str(source), **row} for row in part["skipped"]]
        shards.append(folders.part_entry(path, part["rows"]))
        done(entry["rows"])
    if skipped and not sum(shard["rows"] for shard in shards):
        raise SchemaError(f"every record is bad; the first: {skipped[0]['error']}")
    content = _info(settings, infos, by_source, shards, examples, skipped)
    # The info file comes last: it says that the folder is finished.
    folders.write_bytes(out / TOKENIZER_FILE, epath.Path(args.student_tokenizer).read_bytes())
    provenance.write(out, "align")
    folders.write_json(out / folders.INFO_FILES[aligned.NAME], content)
    _print(content)
    return 0


def _check_no_others(out: epath.Path, targets: Sequence[epath.Path]) -> None:
    """Raises SchemaError for a part of another run, which this one would leave beside its own."""
    ours = {target.name for target in targets}
    for path in sorted(out.glob("part-*.parquet")):
        if path.name not in ours:
            raise SchemaError(
                f"'{path}' is of another run: these records have {len(ours)} parts; give another "
                "--out, or remove the folder"
            )


def _run_beam(
    work: Sequence[_Work], targets: Sequence[epath.Path], settings: Settings, options: list[str]
) -> None:
    try:
        from specialize_jax.data import beam_pipeline
    except ModuleNotFoundError as error:
        raise ValueError(f"--runner beam: {error}") from error
    parts = [
        beam_pipeline.Part(str(source), str(target), entry["sha256"])
        for (_, entry, source), target in zip(work, targets, strict=True)
    ]
    beam_pipeline.align_parts(parts, settings, options)


def _parts(
    work: Sequence[_Work],
    targets: Sequence[epath.Path],
    settings: Settings,
    processes: int,
) -> Iterator[dict[str, Any]]:
    """Yields what every part says of itself, in order, with so many processes in all."""

    def align(number: int, executor: concurrent.futures.Executor | None) -> dict[str, Any]:
        _, entry, source = work[number]
        return job.align_part(
            source,
            targets[number],
            settings,
            source_sha256=entry["sha256"],
            executor=executor,
        )

    if processes == 1:
        yield from (align(number, None) for number in range(len(work)))
        return
    # A fresh process each: a copy of one in which JAX runs may hang.
    fresh = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(processes, mp_context=fresh) as pool,
        # While the host works for one part, the device works for another.
        concurrent.futures.ThreadPoolExecutor(_PARTS_AT_ONCE) as threads,
    ):
        waiting: collections.deque[concurrent.futures.Future[dict[str, Any]]] = collections.deque()
        try:
            for number in range(len(work)):
                waiting.append(threads.submit(align, number, pool))
                if len(waiting) > _PARTS_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown(cancel_futures=True)


def _info(
    settings: Settings,
    infos: dict[str, dict[str, Any]],
    by_source: dict[str, Totals],
    shards: list[dict[str, Any]],
    examples: list[dict[str, Any]],
    skipped: list[dict[str, Any]],
) -> dict[str, Any]:
    """Returns the content of `alignment_info.json`."""
    everything = Totals()
    for one in by_source.values():
        everything.merge(one)
    student, teacher = settings.student, settings.teacher
    return {
        "schema": aligned.NAME,
        "version": folders.VERSION,
        "mode": settings.mode,
        "k_out": settings.k_out,
        "student_tokenizer": {
            "file": TOKENIZER_FILE,
            "name": student.name,
            "sha256": settings.student_sha256,
            "vocab_size": student.vocab_size,
        },
        "teacher_tokenizer": {"name": teacher.name, "sha256": teacher.sha256} if teacher else None,
        "teachers": [
            {name: info.get(name) for name in ("teacher", "tokenizer", "sampling", "k", "source")}
            for info in infos.values()
        ],
        **everything.summary(),
        "by_source": {folder: totals.summary() for folder, totals in by_source.items()},
        "skipped": skipped,
        "shards": shards,
        "examples": examples,
    }


def _print(info: dict[str, Any]) -> None:
    for title, numbers in [*info["by_source"].items(), ("all", info)]:
        mass = numbers["retained_mass"]
        mass_text = "" if mass is None else f", retained mass {mass:.3f}"
        print(
            f"{title}: {numbers['rows']} examples ({numbers['rows_with_logprobs']} with "
            f"log-probabilities), {numbers['cot_tokens']} tokens, "
            f"coverage {numbers['coverage']:.2%}{mass_text}"
        )
        for reason, number in numbers["reasons"].items():
            print(f"  one-hot, {reason}: {number} ({numbers['one_hot_rate'][reason]:.2%})")
    for row in info["skipped"]:
        print(f"skipped: {row['error']}")
