"""`specialize-jax quickstart`: the whole product on an embedded world, stage by stage.

Every stage is a subcommand with a gin file, printed as it is run; nothing is done here that a
person could not type. What a stage finished is noted in `<out>/quickstart.json`, so that the same
command goes on after an interruption, and says so when there is nothing left to do.
"""

import argparse
import contextlib
import ctypes
import datetime
import fcntl
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from specialize_jax import __version__
from specialize_jax.apps import gin_setup
from specialize_jax.apps import main as entry
from specialize_jax.evaluation import scoring
from specialize_jax.schemas import Format, SchemaError, folders, results

EPILOG = """\
example:
  specialize-jax quickstart
  specialize-jax quickstart --out out/three_steps --gin.miniworld.Settings.max_steps=3
--gin_file and --gin.NAME=VALUE go to every stage that gin configures, after the packaged files.
The same command goes on after an interruption; --fresh starts over."""
NOTES = "quickstart.json"
RESULTS = "results.json"
PRETRAIN = "experiments/quickstart_pretrain.gin"
SPECIALIZE = "experiments/quickstart.gin"
_LOCK = ".lock"
# What stands in the folder, besides the notes and the lock.
_PRODUCTS = (
    *("generic", "records", "student.model", "aligned", "packed", "student", "report"),
    RESULTS,
)
_BYTES_NEEDED = 200 * 2**20
_SETS = "miniworld_"
# Format -> what it is called in the results.
_PROMPTS = {
    Format.ZERO_SHOT_CHAIN_OF_THOUGHT.label: "zero_shot",
    Format.IN_CONTEXT_CHAIN_OF_THOUGHT.label: "in_context",
    Format.ZERO_SHOT_ANSWER_ONLY.label: "zero_shot_answer",
    Format.IN_CONTEXT_ANSWER_ONLY.label: "in_context_answer",
}


class Stage(NamedTuple):
    """One command.

    Attributes:
      name: unique.
      title: what it does, for a person.
      argv: of `specialize-jax`.
      product: below the output folder; it is there when the stage is done.
    """

    name: str
    title: str
    argv: list[str]
    product: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--out", default="out/quickstart", metavar="DIR", help="folder to write (%(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="remove what is there and start over")


def stages(out: str, extra: Sequence[str] = ()) -> list[Stage]:
    """Returns the commands, in their order.

    Args:
      out: the folder.
      extra: gin flags that every gin-configured command gets last; those that only evaluation
        reads go to it alone.
    """

    def gin(command: str, file: str, **macros: str) -> list[str]:
        bound = [f"--gin.{name}={value}" for name, value in macros.items()]
        given = [flag for flag in extra if command == "evaluate" or not is_for_evaluation(flag)]
        return [command, f"--gin_file={file}", *bound, *given]

    def quoted(part: str) -> str:
        return repr(f"{out}/{part}")

    def aligned(part: str) -> str:
        return f"({quoted(part)},)"

    tokenizer = f"{out}/student.model"
    return [
        Stage(
            "collect_generic",
            "a teacher solves generic tasks",
            [*gin("collect", PRETRAIN), f"--out={out}/generic/records"],
            "generic/records/teacher_info.json",
        ),
        Stage(
            "collect",
            "the teacher solves stories, four times each; its right answers are kept",
            [*gin("collect", SPECIALIZE), f"--out={out}/records"],
            "records/teacher_info.json",
        ),
        Stage(
            "tokenizer",
            "the student gets a tokenizer of its own",
            [
                "tokenizer",
                *(f"--records={out}/{part}" for part in ("generic/records", "records")),
                "--model_type=bpe",
                "--vocab_size=256",
                f"--out={tokenizer}",
            ],
            "student.model",
        ),
        *(
            Stage(
                name,
                title,
                [
                    "align",
                    f"--records={out}/{part}records",
                    f"--student_tokenizer={tokenizer}",
                    "--mode=one_to_one",
                    f"--out={out}/{part}aligned",
                ],
                f"{part}aligned/alignment_info.json",
            )
            for name, title, part in (
                ("align_generic", "generic answers in the student's tokens", "generic/"),
                ("align", "the teacher's distributions over the student's tokens", ""),
            )
        ),
        Stage(
            "pack_generic",
            "generic tasks as rows",
            [
                *gin("pack", PRETRAIN, ALIGNED_DIRS=aligned("generic/aligned")),
                f"--out={out}/generic/packed",
            ],
            "generic/packed/packed_info.json",
        ),
        Stage(
            "pretrain",
            "a student learns the generic tasks: something to lose",
            gin(
                "train",
                PRETRAIN,
                ALIGNED_DIRS=aligned("generic/aligned"),
                PACKED_DIR=quoted("generic/packed"),
                MODEL_DIR=quoted("generic/student"),
            ),
            "generic/student/checkpoints/config.json",
        ),
        Stage(
            "pack",
            "the four formats as rows",
            [*gin("pack", SPECIALIZE, ALIGNED_DIRS=aligned("aligned")), f"--out={out}/packed"],
            "packed/packed_info.json",
        ),
        Stage(
            "specialize",
            "the student matches the teacher's distributions",
            gin(
                "train",
                SPECIALIZE,
                ALIGNED_DIRS=aligned("aligned"),
                PACKED_DIR=quoted("packed"),
                INITIAL_CHECKPOINT_PATH=quoted("generic/student"),
                MODEL_DIR=quoted("student"),
            ),
            "student/checkpoints/config.json",
        ),
        Stage(
            "evaluate",
            "every family, before and after, zero-shot and in-context",
            gin(
                "evaluate",
                SPECIALIZE,
                ALIGNED_DIRS=aligned("aligned"),
                MODEL_DIR=quoted("student"),
            ),
            "student/eval",
        ),
        Stage(
            "report",
            "one page about all of it",
            [
                "report",
                *(f"{out}/{part}" for part in ("records", "aligned", "packed", "student")),
                f"--out={out}/report",
            ],
            "report/index.html",
        ),
    ]


def main(args: argparse.Namespace) -> int:
    """Runs what is not done yet, then writes the results and prints them."""
    if not args.out:
        raise ValueError("--out: expected a folder, got an empty name")
    out = os.path.normpath(args.out)
    folder = epath.Path(out)
    extra = gin_setup.flags(args)
    todo = stages(out, extra)
    check_room(folder)
    check_ours(folder)
    if extra:
        check_flags(todo)
    folders.make_folder(folder)
    with lock(folder) as locked:
        if args.fresh:
            clear(folder)
        notes = open_notes(folder, extra)
        ran = 0
        # However the folder is spelled, its stages are the same.
        for number, (stage, noted) in enumerate(zip(todo, stages("OUT", extra), strict=True), 1):
            done = notes["stages"].get(stage.name, {})
            if done.get("command") == noted.argv and (folder / stage.product).exists():
                print(f"[{number}/{len(todo)}] {stage.name}: done before, {done['seconds']:.0f} s")
                continue
            command = shlex.join(["specialize-jax", *stage.argv])
            print(f"\n[{number}/{len(todo)}] {stage.name}: {stage.title}\n$ {command}", flush=True)
            start = time.monotonic()
            run(stage, locked)
            ran += 1
            seconds = round(time.monotonic() - start, 1)
            notes["stages"][stage.name] = {"command": noted.argv, "seconds": seconds}
            folders.write_json(folder / NOTES, notes)
        value = summarize(folder, notes)
        folders.write_json(folder / RESULTS, value)
        print(f"\n{table(value)}\n")
        if not ran:
            print("all of it was done before; --fresh starts over")
        for name, path in (("numbers", RESULTS), ("report", "report/index.html")):
            print(f"{name}: {(folder / path).resolve()}")
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            print(
                "no display here: copy the report's folder to where a browser is, or serve it by "
                f"python3 -m http.server --directory {shlex.quote(f'{out}/report')}"
            )
    return 0


def is_for_evaluation(flag: str) -> bool:
    """Returns whether a gin flag binds a macro that only `evaluate` reads."""
    of_training = ("EVAL_PERIOD", "EVAL_STEPS", "EVAL_ACCURACY_QUESTIONS")
    is_of_training = flag.startswith(tuple(f"--gin.{name}=" for name in of_training))
    return flag.startswith(("--gin.EVAL_", "--gin.MAX_DECODE_LENGTH=")) and not is_of_training


def check_flags(todo: Sequence[Stage]) -> None:
    """Parses the gin flags of every stage, in a process of its own, before anything is done.

    Raises:
      ValueError: one does not parse; its message stands above.
    """
    argvs = [stage.argv for stage in todo if any("--gin_file" in arg for arg in stage.argv)]
    code = "from specialize_jax.apps import quickstart; quickstart.parse_all()"
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(argvs), text=True)
    if done.returncode:
        raise ValueError("these flags do not fit every stage, see above; nothing was done")


def parse_all() -> None:
    """Parses the commands that standard input gives, as JSON, without running them."""
    for argv in json.load(sys.stdin):
        args, module = entry.parse(argv)
        given = {"out": args.out} if "out" in args else {}
        try:
            gin_setup.configured(args, module.run, **given)
        except ValueError as error:
            sys.exit(f"specialize-jax {argv[0]}: error: {error}")


def run(stage: Stage, inherited: int) -> None:
    """Runs a stage in a process of its own.

    Args:
      stage: what to run.
      inherited: a file descriptor that the process keeps open as long as it lives.

    Raises:
      KeyboardInterrupt: it was interrupted, or SIGTERM came and was handed on to it.
      ValueError: it failed; what is finished is kept.
    """
    code = f"from specialize_jax.apps import quickstart; quickstart.child({os.getpid()})"
    command = [sys.executable, "-c", code, *stage.argv]
    process = subprocess.Popen(command, pass_fds=[inherited])
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if status in (128 + signal.SIGINT, -signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGTERM):
        raise KeyboardInterrupt
    if status:
        how = f"status {status}" if status > 0 else f"signal {-status}"
        raise ValueError(
            f"stage '{stage.name}' ended with {how}; what is finished is kept. Once what it says "
            "above is mended, the same command goes on from here"
        )


def child(parent: int) -> None:
    """Runs the subcommand of `sys.argv[1:]`, and ends when `parent` is killed.

    Linux does that when asked; elsewhere the stage runs to its end, and `lock` waits for it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # killed before that
        sys.exit(1)
    sys.argv[0] = "specialize-jax"
    sys.exit(entry.main())


def check_ours(folder: epath.Path) -> None:
    """Checks that the folder is new, empty, or an earlier quickstart's.

    Raises:
      SchemaError: it holds something else.
    """
    if not folder.is_dir() or (folder / NOTES).exists():
        return
    if strange := sorted(path.name for path in folder.iterdir() if path.name != _LOCK):
        raise SchemaError(
            f"'{folder}' holds files that no quickstart wrote ({', '.join(strange[:3])}; it has no "
            f"{NOTES}); name an empty or new folder with --out"
        )


def clear(folder: epath.Path) -> None:
    """Removes what quickstarts write, and nothing else."""
    folders.write_json(folder / NOTES, {"stages": {}})  # whose folder this is, if it ends halfway
    for name in _PRODUCTS:
        path = pathlib.Path(folder, name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / NOTES).unlink()


def check_room(folder: epath.Path) -> None:
    """Checks that the disk has room for the run.

    Raises:
      SchemaError: it has not.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < _BYTES_NEEDED:
        raise SchemaError(
            f"the disk of '{existing}' has {free / 2**20:.0f} MiB free, the quickstart writes up "
            f"to {_BYTES_NEEDED / 2**20:.0f} MiB; make room, or name a folder elsewhere with --out"
        )


@contextlib.contextmanager
def lock(folder: epath.Path) -> Iterator[int]:
    """Keeps a second quickstart out of the folder; waits for one that is at work there.

    Yields:
      The file descriptor that holds the lock. Stages inherit it: as long as one of them lives, also
      without its parent, the folder is locked.
    """
    with open(folder / _LOCK, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another quickstart that is at work in '{folder}'", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def open_notes(folder: epath.Path, extra: Sequence[str]) -> dict[str, Any]:
    """Returns what earlier runs in the folder finished; empty notes where nothing was.

    Args:
      folder: of the quickstart.
      extra: gin flags of this run. Those of evaluation alone may differ from the earlier ones.

    Raises:
      SchemaError: what was finished is of another version or of other settings.
    """
    flags = [flag for flag in extra if not is_for_evaluation(flag)]
    here = {"version": __version__, "flags": flags, "gin_files": gin_hash(flags)}
    path = folder / NOTES
    try:
        notes = json.loads(path.read_text()) if path.exists() else {}
        kept = {
            name: {"command": stage["command"], "seconds": float(stage["seconds"])}
            for name, stage in notes.get("stages", {}).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # Damaged. Nothing is lost: a stage that is done says so when it is run again.
        notes, kept = {}, {}
    if kept:
        if changed := folders.differences(notes, here):
            raise SchemaError(
                f"'{folder}' is of another quickstart ({changed}); --fresh starts over, "
                "or name another folder with --out"
            )
    return {**here, "stages": kept}


def gin_hash(flags: Sequence[str]) -> str:
    """Identifies the gin files that the stages read."""
    digest = hashlib.sha256()
    packaged = [
        path
        for path in sorted(gin_setup.PACKAGED.rglob("*.gin"))
        if path.parent.name != "experiments" or path.name.startswith("quickstart")
    ]
    for path in (*packaged, *(epath.Path(flag.removeprefix("--gin_file=")) for flag in flags)):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def summarize(folder: epath.Path, notes: dict[str, Any]) -> dict[str, Any]:
    """Returns what `results.json` holds: accuracies before and after, settings, versions.

    Raises:
      SchemaError: a file of the evaluation is missing.
    """
    found = (folder / "student" / "eval").iterdir()
    steps = sorted(int(path.name) for path in found if path.name.isdigit())
    if len(steps) < 2 or steps[0] != 0:
        raise SchemaError(
            f"expected evaluations of step 0 and of a later one, got {steps}: leave "
            "CHECKPOINT_FIRST at True and EVAL_CHECKPOINTS at 'all'"
        )
    evals = (folder / "student" / "eval" / str(step) for step in (steps[0], steps[-1]))
    first, last = map(read_accuracies, evals)
    families: dict[str, Any] = {}
    for task, (n, before) in first.items():
        _, after = last[task]
        name, label = task
        row = {
            "n": n,
            "before": before,
            "after": after,
            "interval": {
                "before": scoring.wilson(round(before * n), n),
                "after": scoring.wilson(round(after * n), n),
            },
        }
        families.setdefault(name.removeprefix(_SETS), {})[_PROMPTS[label]] = row
    made = json.loads((folder / "student" / "train_provenance.json").read_text())
    return {
        "families": families,
        "steps": {"before": steps[0], "after": steps[-1]},
        "seconds": {name: stage["seconds"] for name, stage in notes["stages"].items()},
        "settings": {
            f"{part}.gin": (folder / path / f"{part}.gin").read_text()
            for part, path in (("collect", "records"), ("pack", "packed"), ("train", "student"))
        },
        "versions": made["versions"],
        "specialize_jax": __version__,
        "git_commit": made["git_commit"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def read_accuracies(folder: epath.Path) -> dict[tuple[str, str], tuple[int, float]]:
    """Returns (set, format) -> (questions, accuracy) of the latest results in a folder."""
    paths = sorted(folder.glob("results_*.json"))
    if not paths:
        raise SchemaError(
            f"no results in '{folder}'; remove '{folder.parent}', and the same command "
            "makes them anew"
        )
    value = results.read_results(paths[-1])
    found = {}
    for task, row in value["results"].items():
        config, n = value["configs"][task], value["n-samples"][task]["effective"]
        found[config["dataset"], config["format"]] = n, row["exact_match,corrected"]
    return found


def table(value: dict[str, Any]) -> str:
    """Returns the results as lines for a person."""
    shown = [p for p in _PROMPTS.values() if any(p in rows for rows in value["families"].values())]
    titles = "".join(f"{prompt.replace('_', '-') + ', before -> after':>38}" for prompt in shown)
    lines = [f"{'accuracy':<16}{'n':>5}{titles}"]
    for name, rows in value["families"].items():
        cells = ""
        for row in (rows[prompt] for prompt in shown):
            low, high = row["interval"]["after"]
            cells += f"{row['before']:>12.1%} -> {row['after']:6.1%} [{low:6.1%},{high:7.1%}]"
        lines.append(f"{name:<16}{rows[shown[0]]['n']:>5}{cells}")
    total = sum(value["seconds"].values())
    lines.append(f"in brackets the 95% interval of what is after; {total:.0f} s in all")
    return "\n".join(lines)
