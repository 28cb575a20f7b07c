"""`specialize-jax tokenizer`: a SentencePiece model for a student that starts from nothing."""

import argparse
from collections.abc import Iterable, Iterator

from etils import epath

from specialize_jax import tokenizers
from specialize_jax.schemas import folders, records

EPILOG = """\
example:
  specialize-jax tokenizer --records out/quickstart/records --vocab_size 320 \\
      --out out/quickstart/student.model
A student with published weights brings its own: Flan-T5's is spiece.model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--records",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of teacher records whose prompts and answers are learned from; repeatable",
    )
    parser.add_argument("--vocab_size", type=int, required=True, help="pieces in all")
    parser.add_argument(
        "--model_type", default="unigram", choices=tokenizers.MODEL_TYPES, help="unigram as T5's"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the .model file to write")


def main(args: argparse.Namespace) -> int:
    """Learns and writes the model; one that is there already is replaced by its equal."""
    path = epath.Path(args.out)
    if path.suffix != ".model":
        raise ValueError(f"--out: expected a file that ends in .model, got '{args.out}'")
    model = tokenizers.train(texts(args.records), args.vocab_size, args.model_type)
    folders.make_folder(path.parent)
    folders.write_bytes(path, model)
    print(f"{args.vocab_size} pieces in {path}")
    return 0


def texts(sources: Iterable[str]) -> Iterator[str]:
    """Yields the prompt and the target of every record."""
    for folder in sources:
        info = folders.read_info(folder, records.NAME)
        for _, table in folders.read_parts(folder, info, records.ARROW_SCHEMA):
            for row in table.to_pylist():
                yield row["prompt"]
                yield records.target_text(row)
