"""`specialize-jax convert`: checkpoints of Hugging Face and t5x <-> ours, a tensor at a time."""

import argparse
import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from specialize_jax import convert, report
from specialize_jax.apps import carry, progress, provenance, student
from specialize_jax.convert import families, remote
from specialize_jax.training import checkpoints, streamed

EPILOG = """\
examples:
  specialize-jax convert --from hf --to orbax flan-t5-small out/flan_t5_small
  specialize-jax convert --from t5x --to orbax --size flan_t5_xxl \\
      gs://t5-data/pretrained_models/t5x/flan_t5_xxl/checkpoint_1114000 out/flan_t5_xxl
  specialize-jax convert --from orbax --to hf out/line/model out/line/hf
`train` takes a DST in our form as INITIAL_CHECKPOINT_PATH, `evaluate` as MODEL_DIR; for the latter
a tokenizer has to come along with SRC, or be given by --tokenizer."""
_CHECKPOINTS = "checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--from",
        dest="source_form",
        required=True,
        choices=("hf", "t5x", "orbax"),
        help="form of SRC: a Hugging Face folder, a t5x checkpoint, or a MODEL_DIR of ours",
    )
    parser.add_argument(
        "--to", dest="target_form", required=True, choices=("orbax", "hf"), help="form of DST"
    )
    parser.add_argument("source", metavar="SRC", help="folder to read, local or gs://")
    parser.add_argument("target", metavar="DST", help="folder to write; absent or empty")
    parser.add_argument(
        "--dtype",
        help=f"of the parameters: {' or '.join(convert.DTYPES)}; default: as they are stored",
    )
    parser.add_argument(
        "--checkpoint_step", type=int, metavar="N", help="of a MODEL_DIR; default: the last"
    )
    parser.add_argument("--size", help="of a t5x checkpoint, a name of models.t5.SIZES")
    parser.add_argument(
        "--vocab_size", type=int, metavar="V", help="rows of the embedding, padding included"
    )
    parser.add_argument(
        "--tokenizer", metavar="FILE", help="a .model or tokenizer.json that SRC does not hold"
    )
    parser.add_argument(
        "--like",
        metavar="DIR",
        help="Hugging Face folder whose tokenizer and generation config DST gets; default: the one "
        "that SRC came from, where that is known",
    )
    parser.add_argument(
        "--base_model",
        metavar="NAME",
        help="for the model card, from orbax to hf: what the student was trained from, by its name "
        "on the hub; default: what its config.json says",
    )


class Source(NamedTuple):
    """What is converted.

    Attributes:
      config: of the model.
      params: its parameters, in the dtype that is wanted.
      name: of the model, for people.
      step: of training; 0 where unknown.
      prefix: of the names of tensors in a Hugging Face folder; None where there was none.
      files: a Hugging Face folder whose other files belong to the model; None where there is none.
      tokenizer: the student's tokenizer file; None where there is none.
    """

    config: Any
    params: convert.Lazy
    name: str
    step: int
    prefix: str | None
    files: epath.Path | None
    tokenizer: epath.Path | None


def main(args: argparse.Namespace) -> int:
    """Converts; what was noteworthy is printed."""
    if args.dtype is not None:
        convert.check_dtype(args.dtype)
    target = epath.Path(args.target)
    with remote.explained(target), contextlib.ExitStack() as stack:
        _check_fresh(target)
        if args.like is not None and not epath.Path(args.like).is_dir():
            raise ValueError(f"--like: expected a Hugging Face folder, found no '{args.like}'")
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always", UserWarning)
            source = stack.enter_context(_opened(args))
        for warning in noted:
            print(f"note: {warning.message}")
        counted = _counted(source, args.target_form)
        if args.target_form == "hf":
            _to_hf(counted, target, args)
        else:
            _to_orbax(counted, target, args)
    _print_summary(source, target)
    return 0


def _check_fresh(target: epath.Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"DST '{target}' exists and is not empty; remove it, or give another")


@contextlib.contextmanager
def _opened(args: argparse.Namespace) -> Iterator[Source]:
    """Opens SRC in whichever form it is."""
    path = epath.Path(args.source)
    tokenizer = epath.Path(args.tokenizer) if args.tokenizer else None
    files = epath.Path(args.like) if args.like else None
    name = path.name
    if args.source_form == "hf":
        with convert.open_hf(path, vocab_size=args.vocab_size) as found:
            tokenizer = tokenizer or carry.tokenizer_of(path)
            params = found.params.astype(args.dtype)
            yield Source(found.config, params, name, 0, found.prefix, files or path, tokenizer)
    elif args.source_form == "t5x":
        config, params, at = convert.open_t5x(path, args.size, vocab_size=args.vocab_size)
        tokenizer = tokenizer or (files and carry.tokenizer_of(files))
        params, name = params.astype(args.dtype), args.size or name
        yield Source(config, params, name, at or 0, None, files, tokenizer)
    else:
        with remote.explained(path):
            source = _own(path, args, files, tokenizer)
        yield source


def _own(
    path: epath.Path,
    args: argparse.Namespace,
    files: epath.Path | None,
    tokenizer: epath.Path | None,
) -> Source:
    """Opens a MODEL_DIR, or one of its checkpoints."""
    path, step = student.locate(path)
    step = step if args.checkpoint_step is None else args.checkpoint_step
    folder = path / _CHECKPOINTS
    run = checkpoints.read_config(folder)
    step = checkpoints.latest_step(folder) if step is None else step
    if step is None:
        raise ValueError(f"no checkpoints in '{folder}'")
    family = families.of_name(run.get("family", "t5"))
    try:
        config = family.config_type(**run["model"])
    except TypeError as error:
        raise ValueError(f"'{folder}/config.json' does not describe a student: {error}") from error
    params = remote.reading(path, convert.Lazy(*streamed.open_params(folder, step)))
    if args.vocab_size is not None:
        config, params = convert.fit_vocabulary(config, params, args.vocab_size, path)
    stored = run.get("student_tokenizer")
    if tokenizer is None and stored is not None:
        tokenizer = path / stored["file"]
    files = files or carry.origin(path)
    params, prefix = params.astype(args.dtype), carry.prefix(path)
    return Source(config, params, run["name"], step, prefix, files, tokenizer)


def _counted(source: Source, form: str) -> Source:
    """The same source, with a bar that counts the tensors read, as many as DST's form has."""
    if form == "hf":
        rows = families.of_config(source.config).table(source.config)
        total = sum(len(row.tensors()) for row in rows)
    else:
        total = sum(len(list(convert.pieces(s.shape))) for s in source.params.shapes.values())
    done = progress.bar("tensors", total)

    def read(path: str, index: tuple[slice, ...]) -> np.ndarray:
        part = source.params.read(path, index)
        done(1)
        return part

    return source._replace(params=dataclasses.replace(source.params, read=read))


def _to_hf(source: Source, target: epath.Path, args: argparse.Namespace) -> None:
    if source.tokenizer is not None and source.tokenizer.parent != source.files:
        carry.check_tokenizer(source.tokenizer, source.config.vocab_size)
    convert.write_hf(
        source.config, source.params, target, source=source.files, prefix=source.prefix
    )
    if source.tokenizer is not None:
        carry.put_tokenizer(source.tokenizer, target)
    if args.source_form == "orbax":
        model_dir, _ = student.locate(epath.Path(args.source))
        base_model = args.base_model or carry.hub_name(source.files)
        card = report.model_card(model_dir, source.step, base_model=base_model)
        (target / "README.md").write_text(card)


def _to_orbax(source: Source, target: epath.Path, args: argparse.Namespace) -> None:
    target.mkdir(parents=True, exist_ok=True)
    stored = None
    if source.tokenizer is not None:
        stored = carry.keep_tokenizer(source.tokenizer, target, source.config.vocab_size)
    if source.files is not None:
        carry.keep_files(source.files, target)
    provenance.write(target, "convert")
    streamed.write_params(
        target / _CHECKPOINTS,
        source.step,
        source.params.shapes,
        source.params.read,
        convert.pieces,
        config={
            "family": families.of_config(source.config).family,
            "name": source.name,
            "model": dataclasses.asdict(source.config),
            "student_tokenizer": stored,
            "hf_prefix": source.prefix,
            "converted_from": {"form": args.source_form, "path": args.source},
        },
    )


def _print_summary(source: Source, target: epath.Path) -> None:
    leaves = source.params.shapes.values()
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    kinds = ", ".join(sorted({leaf.dtype.name for leaf in leaves}))
    print(f"{source.name}: {count:,} parameters, {size:,} bytes, {kinds}")
    if source.tokenizer is None:
        print("note: no tokenizer came along; give one with --tokenizer")
    if source.files is None:
        print("note: no generation_config.json and the like came along; --like DIR has them")
    print(f"written: {target}")
