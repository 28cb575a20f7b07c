"""Small evaluated runs on disk, in the form that `evaluate` writes."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from specialize_jax.schemas import results

ROLES = {
    "gsm8k": "in_distribution",
    "svamp": "out_of_distribution",
    "own": "out_of_distribution",
    "bbh": "generic",
}
FORMAT = "zero_shot_chain_of_thought"
GREEDY = {"max_gen_toks": 8}


def write(
    folder: pathlib.Path,
    right: Mapping[str, Mapping[int, float]],
    *,
    step: int,
    formats: Sequence[str] = (FORMAT,),
    modes: Sequence[str] = ("corrected",),
    date: float = 0.0,
    prompt: str = "Q: {row}",
    configs: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] = GREEDY,
) -> None:
    """Writes the evaluation of one checkpoint.

    Args:
      folder: the MODEL_DIR.
      right: set -> row -> whether the answer is right, the same in every format and mode.
      step: of the checkpoint.
      formats: asked in.
      modes: scored under.
      date: of the evaluation; a later one counts.
      prompt: with the row put in.
      configs: more that defines every task.
      generation: how answers were decoded.
    """
    out, stamp, tasks = folder / "eval" / str(step), results.timestamp(date), []
    for name, answers in right.items():
        for label in formats:
            task = f"{name}_{label}"
            share = sum(answers.values()) / len(answers)
            tasks.append(
                results.TaskResult(
                    task=task,
                    scores=dict.fromkeys(modes, (share, 0.0)),
                    original=len(answers),
                    effective=len(answers),
                    config={
                        "dataset": name,
                        "role": ROLES.get(name),
                        "format": label,
                        **(configs or {}),
                    },
                )
            )
            lines = [
                _line(row, prompt.format(row=row), bool(value), mode, generation)
                for mode in modes
                for row, value in answers.items()
            ]
            results.write_samples(out, task, lines, stamp)
    config = {"gen_kwargs": dict(generation)}
    results.write_results(out, results.build_results(tasks, config=config, date=date), stamp)


def _line(
    row: int, prompt: str, right: bool, mode: str, generation: Mapping[str, Any]
) -> dict[str, Any]:
    return results.build_sample(
        doc_id=row,
        doc={"question": f"What is {row}?"},
        target=str(row),
        prompt=prompt,
        generation=generation,
        responses=["The answer is 1"],
        mode=mode,
        answer="1",
        correct=right,
    )
