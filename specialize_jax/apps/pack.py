"""`specialize-jax pack`: the mixture of formats becomes packed rows, which `train` reads."""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from specialize_jax import tokenizers
from specialize_jax.apps import gin_setup, progress, provenance, questions
from specialize_jax.data import windowed
from specialize_jax.data.packing import Lengths
from specialize_jax.schemas import batches, folders

if TYPE_CHECKING:
    from specialize_jax.data.corpus import Corpus

_WELL_FILLED = 0.95
EPILOG = """\
example:
  specialize-jax pack --gin_file=experiments/codex_gsm8k_cpu.gin --out out/line/packed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def main(args: argparse.Namespace) -> int:
    """Packs as the gin files say; a folder finished with the same settings is left as it is."""
    gin_setup.configured(args, run, out=args.out)()
    return 0


def run(
    out: str,
    *,
    mixture_or_task_name: str,
    mixture_or_task_module: str | None,
    corpus: Callable[[], "Corpus"],
    task_feature_lengths: Mapping[str, int],
    seed: int = 0,
    epochs: int = 1,
    examples_per_epoch: int | None = None,
    on_too_long: str = "drop",
) -> None:
    """Packs a mixture.

    Args:
      out: the folder to write.
      mixture_or_task_name: a registered seqio mixture or task.
      mixture_or_task_module: imported first; None if a gin file imports it.
      corpus: gives the aligned examples, the student tokenizer and K.
      task_feature_lengths: lengths of a row, "inputs" and "targets".
      seed: of order, mixing and exemplars.
      epochs: packed epochs; each has its own order and exemplars.
      examples_per_epoch: None for as many as show the largest task once.
      on_too_long: "drop" (counted), "truncate" (counted) or "error".
    """
    folder = folders.make_folder(out)
    try:
        lengths = Lengths(**task_feature_lengths)
    except TypeError as error:
        raise ValueError(
            f"TASK_FEATURE_LENGTHS: expected 'inputs' and 'targets', got {task_feature_lengths}"
        ) from error
    source = corpus()
    validation_ids = sorted({row["example_id"] for row in source.rows["validation"]})
    settings = {
        "mixture_or_task_name": mixture_or_task_name,
        "task_feature_lengths": lengths._asdict(),
        "k_out": source.k,
        "num_exemplars": source.num_exemplars,
        "seed": seed,
        "epochs": epochs,
        "examples_per_epoch": examples_per_epoch,
        "on_too_long": on_too_long,
        "validation": _digest(validation_ids),
        "aligned": [_digest(info["shards"]) for info in source.info],
    }
    if folders.schema_of(folder) == batches.NAME:
        check_same_settings(folder, settings)
        print(f"already packed: {out}")
        return
    # TensorFlow loads here, and nowhere else in a run.
    from specialize_jax.data import mixing

    gin_setup.import_module("MIXTURE_OR_TASK_MODULE", mixture_or_task_module)
    provider = mixing.find(mixture_or_task_name)
    tokenizer = source.info[0]["student_tokenizer"]
    content = epath.Path(source.tokenizer_file).read_bytes()
    folders.write_bytes(folder / tokenizer["file"], content)
    recorder = questions.Recorder(source, tokenizers.load(folder / tokenizer["file"]).decode)
    held_out = questions.held_out_of(source, seed)
    # Before the info file, which says that the folder is finished.
    provenance.write(folder, "pack", gin=True)
    info = mixing.write_folder(
        folder,
        provider,
        lengths=lengths,
        k=source.k,
        vocab_size=source.vocab_size,
        seed=seed,
        epochs=epochs,
        examples_per_epoch=examples_per_epoch,
        on_too_long=on_too_long,  # type: ignore[arg-type]  # checked there
        progress=progress.bar,
        saw=lambda split, example: recorder.see(split, example.inputs),
        at_end=lambda: questions.write(folder, recorder, held_out),
        student_tokenizer=tokenizer,
        validation_ids=validation_ids,
        settings=settings,
    )
    print_summary(info)


def check_same_settings(folder: epath.Path, settings: dict[str, Any]) -> None:
    """Checks that a finished folder was packed with these settings.

    Raises:
      ValueError: it was not; every differing setting is named.
    """
    before = folders.read_info(folder, batches.NAME).get("settings", {})
    if changed := folders.differences(before, settings):
        raise ValueError(
            f"'{folder}' was packed with other settings ({changed}); give another "
            "--out, or remove the folder"
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def better_lengths(info: dict) -> tuple[int, int] | None:
    """Returns lengths for which both sides of the training rows would fill alike.

    None where both are well filled, or where no such lengths, in multiples of 8, are others.
    """
    train, lengths = info["splits"]["train"], Lengths(**info["lengths"])
    if min(train["encoder_fill"], train["decoder_fill"]) >= _WELL_FILLED:
        return None
    tokens = train["encoder_tokens"], train["decoder_tokens"]
    better = windowed.suggestion(tokens, lengths, 8)
    return None if better == lengths else better


def print_summary(info: dict) -> None:
    """Prints what a packed folder holds."""
    for split, numbers in info["splits"].items():
        formats = ", ".join(f"{name} {n}" for name, n in numbers["formats"].items())
        print(
            f"{split}: {numbers['examples']} examples in {numbers['rows']} rows ({formats}); "
            f"filled: encoder {numbers['encoder_fill']:.1%}, "
            f"decoder {numbers['decoder_fill']:.1%}; coverage {numbers['coverage']:.2%}"
        )
    if better := better_lengths(info):
        inputs, targets = better
        print(
            f"less than {_WELL_FILLED:.0%} of a side is filled; TASK_FEATURE_LENGTHS = "
            f"{{'inputs': {inputs}, 'targets': {targets}}} has the proportion of these examples"
        )
    for what, number in sorted(info["too_long"].items()):
        print(f"{info['on_too_long']}: {number} x {what}")
    if info["too_long"]:
        print(f"TASK_FEATURE_LENGTHS = {info['lengths_that_hold_all']} holds all of them")
