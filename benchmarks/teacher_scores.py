"""Scores of real teachers' published outputs under every extraction mode, beside published ones.

    python benchmarks/teacher_scores.py --data ../shared/data [--show 5]

Outputs of code-davinci-002, text-davinci-003 and GPT-4 (veronica320/Faithful-COT 3017843), of
code-davinci-002 on BIG-Bench Hard (suzgunmirac/BIG-Bench-Hard 9ee07bd) and of OpenAI's GSM8K models
(openai/grade-school-math 3101c7d) are read from files and scored by `evaluation.scoring`, as a
student's are. No model is run. `published` is what the authors of the outputs computed from these
same outputs: performance_summary.csv of the first, *_eval_metrics.jsonl of the second (with and
without their calculator), the `is_correct` of every solution in the third.

Then, for each pair of modes, how many answers one calls right and the other wrong, by what the two
read; `--show` prints some of each. Prints Markdown; takes a minute.
"""

import argparse
import collections
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from specialize_jax import answers
from specialize_jax.decoding import calculating
from specialize_jax.evaluation import scoring
from specialize_jax.evaluation.readers import Question

_FAITHFUL = {  # per cent, as published; None where nothing is
    ("GSM8K", "code002"): 63.3,
    ("GSM8K", "text003"): None,
    ("GSM8K", "gpt4"): None,
    ("SVAMP", "code002"): 77.3,
    ("ASDiv", "code002"): 80.0,
    ("MultiArith", "code002"): 96.5,
    ("AQUA", "code002"): 42.1,
    ("StrategyQA", "code002"): 72.5,
}
_FAITHFUL_KINDS = {
    "AQUA": ("option", "mmlu_flan_cot_fewshot"),
    "StrategyQA": ("boolean", None),
}
_BBH = {  # kind, per cent as published, the same with its authors' calculator
    "boolean_expressions": ("boolean", 92.8, 92.8),
    "date_understanding": ("option", 87.2, 87.2),
    "dyck_languages": ("text", 56.8, 56.8),
    "geometric_shapes": ("option", 54.4, 54.4),
    "multistep_arithmetic_two": ("number", 47.6, 60.4),
    "navigate": ("boolean", 96.4, 96.4),
    "object_counting": ("number", 93.2, 96.0),
    "penguins_in_a_table": ("option", 79.45, 79.45),
    "sports_understanding": ("boolean", 97.6, 97.6),
    "word_sorting": ("text", 40.4, 40.4),
}
_OPENAI = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


_REPORTED = (
    "Reported for code-davinci-002 in 2301.12726 (https://arxiv.org/abs/2301.12726; other prompts "
    "and outputs, second-hand, not confirmed): GSM8K 63.1, MultiArith 95.8, ASDiv 80.4, SVAMP 76.4."
)


class Outputs(NamedTuple):
    """One model's answers to one set.

    Attributes:
      name: of both.
      kind: of the answers, one of `answers.KINDS`.
      harness: the harness task whose patterns fit; None for none.
      rows: (what the model wrote, the gold answer).
      published: per cent right, as its authors computed from these outputs.
      published_after: the same behind their calculator.
      flags: which its authors call right, where they say it of every answer.
    """

    name: str
    kind: str
    harness: str | None
    rows: list[tuple[str, str]]
    published: float | None = None
    published_after: float | None = None
    flags: Sequence[bool] = ()


def faithful_cot(data: pathlib.Path) -> Iterator[Outputs]:
    """Yields the outputs of teacher_cot_text."""
    for (name, model), published in _FAITHFUL.items():
        predictions = _lines(data / "teacher_cot_text" / name / f"{model}_COT/predictions.jsonl")
        golds = _lines(data / "teacher_cot_text" / "data" / name / "test.jsonl")
        rows = [
            (p["completion"], gold_text(g["answer"]))
            for p, g in zip(predictions, golds, strict=True)
        ]
        kind, harness = _FAITHFUL_KINDS.get(name, ("number", "gsm8k_cot"))
        yield Outputs(f"{name}, {model}", kind, harness, rows, published)


def bbh(data: pathlib.Path) -> Iterator[Outputs]:
    """Yields the outputs of teacher_bbh_codex."""
    for task, (kind, published, after) in _BBH.items():
        path = data / "teacher_bbh_codex" / f"{task}_few_shot_template_0-255000.json"
        outputs = json.loads(path.read_text(encoding="utf-8"))["outputs"]
        rows = [(o["prediction"], o["target"]) for o in outputs]
        yield Outputs(f"BBH {task}", kind, "bbh_cot_fewshot", rows, published, after)


def openai(data: pathlib.Path) -> Iterator[Outputs]:
    """Yields the outputs of teacher_gsm8k_openai, which end in `A: 18`."""
    lines = _lines(data / "teacher_gsm8k_openai" / "example_model_solutions.jsonl")
    for model in _OPENAI:
        rows = [
            (x[model]["solution"], x["ground_truth"].rpartition("A:")[2].strip()) for x in lines
        ]
        flags = [x[model]["is_correct"] for x in lines]
        right = 100 * sum(flags) / len(flags)
        yield Outputs(f"GSM8K, {model}", "number", "gsm8k", rows, right, flags=flags)


def gold_text(answer: object) -> str:
    """Returns a gold answer as text: yes and no for booleans, several numbers with `;` between."""
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    if isinstance(answer, list):
        return "; ".join(map(str, answer))
    return str(answer)


def scores(outputs: Outputs, calculator: str = "none") -> list[dict[str, scoring.Score]]:
    """Returns every answer's score under every mode, behind a calculator of the kind."""
    modes = answers.modes_of(outputs.kind, harness=outputs.harness)
    return [
        scoring.score(
            calculating.revised(response, calculator),
            Question(str(row), "", gold, outputs.kind),
            modes,
        )
        for row, (response, gold) in enumerate(outputs.rows)
    ]


def share(found: Sequence[dict[str, scoring.Score]], mode: str) -> float:
    """Returns the per cent of answers that a mode calls right."""
    return 100 * sum(row[mode].correct for row in found) / len(found)


def table(everything: Iterable[tuple[Outputs, list[dict[str, scoring.Score]]]]) -> list[str]:
    """Returns Markdown rows: per cent right under each mode, and as published."""
    lines = [
        "| outputs | n | `corrected` | published | `corrected`, calculator after | published, with "
        "calculator | the paper's | the harness's | `flexible-extract` |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for outputs, found in everything:
        papers = [share(found, mode) for mode in found[0] if mode.startswith("fu2023")]
        harness = [share(found, mode) for mode in found[0] if ":" in mode]
        columns = [
            share(found, "corrected"),
            outputs.published,
            share(scores(outputs, "after"), "corrected"),
            outputs.published_after,
            (papers + [None])[0],
            *(harness + [None, None])[:2],
        ]
        cells = ["-" if value is None else f"{value:.1f}" for value in columns]
        lines.append(f"| {outputs.name} | {len(found):,} | " + " | ".join(cells) + " |")
    return lines


def against_flags(
    everything: Iterable[tuple[Outputs, list[dict[str, scoring.Score]]]],
) -> tuple[int, int]:
    """Returns how many answers their authors flagged, and on how many `corrected` differs."""
    pairs = [
        (flag, row["corrected"].correct)
        for outputs, found in everything
        if outputs.flags
        for flag, row in zip(outputs.flags, found, strict=True)
    ]
    return len(pairs), sum(flag != correct for flag, correct in pairs)


def category(ours: str | None, theirs: str | None) -> str:
    """Says in a few words how another mode's reading of a text differs from `corrected`'s."""
    if ours is None or theirs is None:
        return "it reads something" if ours is None else "it reads nothing"
    if ours == theirs:
        return "it reads the gold answer otherwise"
    plain, other = (_plain(ours), _plain(theirs))
    if plain == other:
        return "the same, written otherwise"
    if plain.lstrip("-") == other.lstrip("-"):
        return "sign"
    if plain.startswith(other):
        return "it cuts the end off"
    if plain.endswith(other):
        return "it cuts the start off"
    return "it reads another place, or more"


def _plain(answer: str) -> str:
    answer = answer.strip("$. ").replace(",", "")
    return answer.rstrip("0").rstrip(".") if "." in answer else answer


def disagreements(
    found: Sequence[dict[str, scoring.Score]], mode: str
) -> dict[tuple[str, str], list[int]]:
    """Groups the answers that `corrected` and a mode judge differently.

    Returns:
      (which of the two calls it right, `category`) -> rows.
    """
    groups = collections.defaultdict(list)
    for row, result in enumerate(found):
        ours, theirs = result["corrected"], result[mode]
        if ours.correct != theirs.correct:
            right = "corrected" if ours.correct else mode
            groups[right, category(ours.answer, theirs.answer)].append(row)
    return dict(groups)


def _lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Prints the table and the disagreements."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    flags.add_argument("--show", type=int, default=0, help="texts of each disagreement")
    args = flags.parse_args()
    sets = [*faithful_cot(args.data), *openai(args.data), *bbh(args.data)]
    everything = [(outputs, scores(outputs)) for outputs in sets]
    print("\n".join(table(everything)))
    print(
        "\nFlagged by their authors: {:,}; `corrected` differs on {}.".format(
            *against_flags(everything)
        )
    )
    print(_REPORTED)
    print("\n| outputs | mode | right only there | how they differ | n |\n|---|---|---|---|---:|")
    for outputs, found in everything:
        for mode in [mode for mode in found[0] if mode != "corrected"]:
            for (right, how), rows in disagreements(found, mode).items():
                print(f"| {outputs.name} | `{mode}` | `{right}` | {how} | {len(rows)} |")
                for row in rows[: args.show]:
                    response, gold = outputs.rows[row]
                    read = found[row]["corrected"].answer, found[row][mode].answer
                    print(f"    {row}: gold {gold[-30:]!r} read {read} in {response[-150:]!r}")


if __name__ == "__main__":
    main()
