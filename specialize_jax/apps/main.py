"""Entry point of `specialize-jax`: finds the subcommand and turns known errors into one line.

A subcommand is a module of this room with `add_arguments(parser)` and `main(args) -> exit status`.
It is imported when it is asked for, so that `--help` is quick and needs neither gin nor JAX.
"""

import argparse
import importlib
import os
import signal
import sys
import types
from collections.abc import Sequence

from specialize_jax import __version__
from specialize_jax.apps import gin_setup

# name -> (module, one-line help, whether gin files configure it)
COMMANDS: dict[str, tuple[str, str, bool]] = {
    "quickstart": ("quickstart", "the whole product on an embedded world, in minutes", True),
    "import": ("import_records", "turn solutions that others wrote into teacher records", False),
    "collect": ("collect", "sample a teacher and keep its right answers", True),
    "tokenizer": ("tokenizer", "learn a tokenizer for a student from nothing", False),
    "align": ("align", "carry teacher records to a student's tokens", False),
    "export": ("export", "aligned examples or records as a file of another trainer", False),
    "pack": ("pack", "mix the four formats and pack them into rows", True),
    "train": ("train", "train a student on packed rows", True),
    "compile": ("compile", "compile a run's training step for TPUs, without TPUs", True),
    "evaluate": ("evaluate", "score checkpoints on the evaluation sets", True),
    "generate": ("generate", "ask a trained student", False),
    "select": ("select", "choose a run's checkpoint by its validation scores", False),
    "serve": ("serve", "a trained student behind the interface of OpenAI's servers", False),
    "convert": ("convert", "checkpoints of Hugging Face and t5x to ours, and back", False),
    "report": ("report", "one page from the files of a run", False),
    "verify": ("verify", "check hashes and invariants of any folder we write", False),
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser; the arguments of `command` alone are filled in."""
    parser = argparse.ArgumentParser(
        prog="specialize-jax",
        description="Turn a large teacher's worked solutions into a small specialist.",
        epilog="`specialize-jax COMMAND --help` tells a command's flags.",
    )
    parser.add_argument("--version", action="version", version=f"specialize_jax {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text, is_gin) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == command:
            imported = importlib.import_module(f"specialize_jax.apps.{module}")
            subparser.epilog = getattr(imported, "EPILOG", None)
            if is_gin:
                gin_setup.add_arguments(subparser)
            imported.add_arguments(subparser)
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, types.ModuleType]:
    """Returns the arguments of a command line, gin bindings among them, and the module to run."""
    command = next((arg for arg in argv if not arg.startswith("-")), None)
    parser = build_parser(command)
    bindings, rest = gin_setup.split_bindings(argv)
    args = parser.parse_args(rest)
    module, _, is_gin = COMMANDS[args.command]
    if is_gin and os.getcwd() not in sys.path:
        # Modules that gin files name are looked for where gin files are.
        sys.path.insert(0, os.getcwd())
    if bindings and not is_gin:
        parser.error(f"'{args.command}' is not configured by gin, got {bindings[0]}")
    args.gin_bindings = bindings
    return args, importlib.import_module(f"specialize_jax.apps.{module}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status: 0 done, 1 failed, 2 wrong usage."""
    # TensorFlow writes many lines of no use to a person; errors still come through as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    args, imported = parse(sys.argv[1:] if argv is None else argv)
    try:
        return imported.main(args)
    except KeyboardInterrupt:
        print(f"specialize-jax {args.command}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("SPECIALIZE_JAX_TRACEBACK"):
            raise
        # gin adds lines that tell in which call of a configurable it happened.
        message = str(error).split("\n  In call to configurable", 1)[0]
        from tqdm import tqdm  # an unfinished bar gives up its line to the message

        tqdm.write(f"specialize-jax {args.command}: error: {message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
