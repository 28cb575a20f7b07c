"""Several small evaluated runs on disk, so that a report has something to compare."""

import pathlib
from typing import Any

from specialize_jax.evaluation import selected
from specialize_jax.schemas import results
from tests.report import fixtures

FORMATS = ("zero_shot_chain_of_thought", "in_context_chain_of_thought")
SETS = {
    "gsm8k": ("in_distribution", 40),
    "svamp": ("out_of_distribution", 60),
    "sorting": ("generic", 20),
}
SHAPE = {
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_heads": 4,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "vocab_size": 128,
    "relative_buckets": 32,
    "activation": "gated-gelu",
    "tied_embeddings": False,
}


def write(root: pathlib.Path) -> list[pathlib.Path]:
    """Writes three runs: two sizes, one trained on fewer formats, one with all that decoding does.

    Of the first, a checkpoint was chosen.
    """
    small = write_run(root / "small", d_model=16, right=0.25)
    for kind, date, share in (("none", 5.0, 0.25), ("equations", 9.0, 0.5)):
        write_step(small, 200, share, calculator=kind, votes=True, date=date)
    large = write_run(root / "large", d_model=64, right=0.5)
    narrow = write_run(root / "narrow", d_model=64, right=0.45, trained=FORMATS[:1])
    selected.write(small, selected.build(small))
    return [small, large, narrow]


def write_run(
    folder: pathlib.Path, *, d_model: int, right: float, trained: tuple[str, ...] = FORMATS
) -> pathlib.Path:
    """Writes a MODEL_DIR with evaluations of steps 0, 100 and 200."""
    config = {"family": "t5", "model": SHAPE | {"d_model": d_model}}
    fixtures.write_json(folder / "checkpoints" / "config.json", config)
    row = {"step": 200, "split": "train", "loss": 1.0, **{f"loss/{name}": 1.0 for name in trained}}
    fixtures.write_lines(folder / "metrics.jsonl", [row])
    for step, share in ((0, 0.05), (100, right / 2), (200, right)):
        write_step(folder, step, share)
    return folder


def write_step(
    folder: pathlib.Path,
    step: int,
    share: float,
    *,
    calculator: str = "none",
    votes: bool = False,
    date: float = 0.0,
    generation: dict[str, Any] | None = None,
) -> None:
    """Writes one evaluation, in which so large a share is right (of the generic set the rest)."""
    out, stamp, tasks = folder / "eval" / str(step), results.timestamp(date), []
    for label in FORMATS:
        for name, (role, n) in SETS.items():
            count = round(n * (share if role != "generic" else 0.6 - share))
            more = min(n, count + 5)
            voted = {"maj@1": count, "maj@4": more} if votes else {}
            lines = [_line(name, row, row < count, row < more, voted) for row in range(n)]
            task = f"{name}_{label}"
            results.write_samples(out, task, lines, stamp)
            tasks.append(
                results.TaskResult(
                    task=task,
                    scores={"corrected": (count / n, 0.0)},
                    votes={key: {"corrected": (k / n, 0.0)} for key, k in voted.items()},
                    original=n,
                    effective=n,
                    config={
                        "dataset": name,
                        "role": role,
                        "format": label,
                        "calculator": calculator,
                    },
                )
            )
    config = {"gen_kwargs": generation or {"max_gen_toks": 8, "do_sample": False}}
    results.write_results(out, results.build_results(tasks, config=config, date=date), stamp)


def _line(name: str, row: int, right: bool, more: bool, voted: dict[str, int]) -> dict[str, Any]:
    total = 2 * row + 3
    said = total if right else total + 100
    answer = f"{row} + {row + 3} = {said} {fixtures.HOSTILE}. The answer is {said}"
    doc = {"question": f"{row} and {row + 3} in {name}? {fixtures.HOSTILE}"}
    if name == "gsm8k":
        doc["answer"] = f"She has {row}+{row + 3}=<<{row}+{row + 3}={total}>>{total}.\n#### {total}"
    votes = {key: (str(total), more if key == "maj@4" else right) for key in voted}
    return results.build_sample(
        doc_id=row,
        doc=doc,
        target=str(total),
        prompt=f"Q: {doc['question']}",
        generation={"max_gen_toks": 8},
        responses=[answer],
        mode="corrected",
        answer=str(said),
        correct=right,
        votes=votes,
    )
