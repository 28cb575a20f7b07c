"""`specialize-jax select MODEL_DIR`: the checkpoint that validates best, and how sure that is."""

import argparse
from collections.abc import Mapping
from typing import Any

from specialize_jax.evaluation import selected, selection

EPILOG = """\
example:
  specialize-jax select out/line/model
  specialize-jax select out/line/model --by weighted \\
      --weights in_distribution=1 out_of_distribution=1 generic=0.5
Reads the files that `evaluate` wrote under MODEL_DIR/eval, writes MODEL_DIR/selected.json."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a run that was evaluated")
    parser.add_argument(
        "--by", choices=selection.BY, default=None, help="rule; out_of_distribution by default"
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=_weight,
        metavar="NAME=WEIGHT",
        help="of sets and roles, for --by weighted",
    )
    parser.add_argument("--mode", default="corrected", help="extraction mode that counts")
    parser.add_argument(
        "--formats", nargs="+", metavar="FORMAT", help="asked in; all there are by default"
    )
    parser.add_argument(
        "--calculator", metavar="KIND", help="that computed in the answers; none by default"
    )
    parser.add_argument(
        "--steps", nargs="+", type=int, metavar="STEP", help="to choose from; all by default"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals")


def _weight(text: str) -> tuple[str, float]:
    name, sign, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=WEIGHT, as svamp=2, got '{text}'"
        ) from None


def main(args: argparse.Namespace) -> int:
    """Chooses as the flags say; `--weights` alone means `--by weighted`.

    Raises:
      ValueError: a name has two weights.
    """
    given = args.weights or ()
    if len(weights := dict(given)) < len(given):
        raise ValueError(f"--weights: expected every name once, got {[name for name, _ in given]}")
    names = ("mode", "formats", "calculator", "steps", "resamples", "seed", "confidence")
    run(
        args.model_dir,
        by=args.by or (selection.WEIGHTED if weights else selection.BY[0]),
        weights=weights or None,
        **{name: getattr(args, name) for name in names},
    )
    return 0


def run(model_dir: str, **rule: Any) -> None:
    """Chooses a checkpoint, writes `selected.json` and prints why.

    Arguments and errors are those of `evaluation.selected.build`.
    """
    value = selected.build(model_dir, **rule)
    path = selected.write(model_dir, value)
    for line in describe(value):
        print(line)
    print(f"written: {path}")


def describe(value: Mapping[str, Any]) -> list[str]:
    """Returns the lines that tell a person what was chosen and why."""
    rule = value["rule"]
    level = f"{100 * rule['confidence']:g}%"
    counted = ", ".join(
        f"{name} {entry['weight']:.2f} ({entry['questions']} questions, {entry['part']})"
        for name, entry in value["sets"].items()
    )
    lines = [f"chosen: step {value['step']}, by {rule['by']}, {rule['mode']}: {counted}"]
    lines.append(
        f"{'step':>10}{'score':>9}  {level + ' interval':<18}{'best':>6}  lead of the chosen"
    )
    for row in value["checkpoints"]:
        mark = "*" if row["step"] == value["step"] else " "
        lead = "" if row["lead"] is None else _points(row["lead"])
        lines.append(
            f"{mark}{row['step']:>9}{row['score']['value']:>9.2%}  {_ends(row['score']):<18}"
            f"{row['best']:>6.0%}  {lead}"
        )
    if value["warning"]:
        lines.append(f"warning: {value['warning']}")
    lines.append(f"step {value['step']} on questions kept apart from the choice, unless marked +:")
    for kind in ("sets", "roles"):
        for name, found in value["chosen"][kind].items():
            mark = " " if found["held_out"] else "+"
            of = f"n = {found['n']}, {found['part']}" if kind == "sets" else "mean"
            shown = name if kind == "sets" else name.replace("_", "-")
            lines.append(f" {mark}{shown:<40}{found['value']:>9.2%}  {_ends(found):<18}{of}")
    return lines + [f"note: {note}" for note in value["notes"]]


def _ends(found: Mapping[str, float]) -> str:
    return f"[{found['low']:.2%}, {found['high']:.2%}]"


def _points(lead: Mapping[str, float]) -> str:
    value, low, high = (100 * lead[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"
