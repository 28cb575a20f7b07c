"""A small run as its stages leave it on disk, with text that a page must not take for markup."""

import json
import math
import pathlib
from typing import Any

HOSTILE = "<script>alert('teacher')</script>"
FORMATS = (
    "zero_shot_answer_only",
    "zero_shot_chain_of_thought",
    "in_context_answer_only",
    "in_context_chain_of_thought",
)
STEPS = (200, 400, 600)
DATA_SETS = {"gsm8k": 1319, "multiarith": 400, "asdiv": 2305, "svamp": 1000}


def write_json(path: pathlib.Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: pathlib.Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes a folder of every stage under `root`; returns them by stage."""
    folders = {name: root / name for name in ("records", "aligned", "packed", "model")}
    write_json(folders["records"] / "teacher_info.json", teacher_info())
    write_json(folders["aligned"] / "alignment_info.json", alignment_info())
    write_json(folders["packed"] / "packed_info.json", packed_info())
    write_lines(folders["model"] / "metrics.jsonl", metrics())
    write_json(folders["model"] / "config.json", {"model": {"name": "t5_1_1_small"}, "seed": 3})
    (folders["model"] / "operative.gin").write_text("BATCH_SIZE = 64\n")
    for step in STEPS:
        write_evaluation(folders["model"] / "eval" / str(step), step)
    return folders


def teacher_info() -> dict[str, Any]:
    dropped = {"wrong_answer": 12_345, "length": 67}
    return {
        "schema": "teacher_records",
        "version": 1,
        "teacher": {"name": "code-davinci-002", "revision": None},
        "k": 5,
        "rows": 80_801,
        "kept": 80_801,
        "dropped": dropped,
        "shards": [],
    }


def packed_info() -> dict[str, Any]:
    train = {"rows": 4_321, "examples": 175_806, "encoder_fill": 0.953, "decoder_fill": 0.961}
    train |= {"formats": dict(zip(FORMATS, (7_101, 80_801, 7_102, 80_802), strict=True))}
    return {
        "schema": "packed_rows",
        "version": 1,
        "on_too_long": "drop",
        "too_long": {"inputs": 17},
        "splits": {"train": {**train, "coverage": 0.7654}},
        "shards": [],
    }


def alignment_info() -> dict[str, Any]:
    rates = {"many_teacher_tokens": 0.1, "different_string": 0.075, "end_of_sequence": 0.025}
    part = {"rows": 500, "cot_tokens": 40_000, "coverage": 0.8, "retained_mass": 0.976}
    part |= {"reasons": {k: int(v * 40_000) for k, v in rates.items()}, "one_hot_rate": rates}
    return {
        "schema": "aligned_examples",
        "version": 1,
        "mode": "one_to_one",
        "k_out": 8,
        "student_tokenizer": {"file": "spiece.model", "sha256": "0" * 64, "name": "t5"},
        "teachers": [{"teacher": {"name": "code-davinci-002"}, "rows": 500}],
        **part,
        "by_source": {"records": part},
        "shards": [],
        "examples": [good_example(), hostile_example()],
    }


def good_example() -> dict[str, Any]:
    """Returns an example with a link of every shape: 1-1, 2-1, 1-2, and an end without teacher."""
    teacher = [
        {"text": "\n", "logprob": -0.01, "top": [["\n", 0.99], [" ", 0.001]]},
        {"text": " babysitting", "logprob": -0.2, "top": [[" babysitting", 0.818]]},
        {"text": " $", "logprob": -0.3, "top": [[" $", 0.7], [" twelve", 0.0001]]},
        {"text": "12", "logprob": -0.1, "top": [["12", 0.9]]},
    ]
    student = [
        student_token("▁", 3, 0, 1, 1, 0, [["▁", 0.99]], 0.01),
        student_token("▁babys", 7, 1, 2, 2, 4, [["▁babys", 1.0]], 0.0),
        student_token("itting", 8, 1, 2, 2, 4, [["itting", 1.0]], 0.0),
        student_token("▁$12", 9, 2, 4, 2, 3, [["▁$12", 1.0]], 0.0),
        student_token("</s>", 1, 4, 4, 2, 5, [["</s>", 1.0]], 0.0),
    ]
    return {
        "example_id": "gsm8k-train-7",
        "sample_id": 0,
        "question": "How much is it?",
        "coverage": 0.2,
        "retained_mass": 0.99,
        "teacher": teacher,
        "student": student,
    }


def hostile_example() -> dict[str, Any]:
    token = {"text": HOSTILE, "logprob": -1.5, "top": [[HOSTILE, 0.5], ["<b>", 0.25]]}
    return {
        "example_id": f"id-{HOSTILE}",
        "sample_id": 1,
        "question": f"Q {HOSTILE}",
        "coverage": 0.1,
        "retained_mass": 0.5,
        "teacher": [token],
        "student": [student_token(HOSTILE, 5, 0, 1, 1, 0, [[HOSTILE, 0.5]], 0.5)],
    }


def student_token(
    piece: str, id: int, start: int, end: int, kind: int, reason: int, top: Any, tail: float
) -> dict[str, Any]:
    return {
        "piece": piece,
        "id": id,
        "teacher_start": start,
        "teacher_end": end,
        "kind": kind,
        "reason": reason,
        "top": top,
        "tail": tail,
    }


def metrics() -> list[dict[str, Any]]:
    """Returns train rows every 20 steps and held-out rows at `STEPS`; answer-only rows lack KL."""
    rows = []
    for step in range(20, STEPS[-1] + 1, 20):
        rows.append(metrics_row(step, "train", 0.25 + 1.5 * math.exp(-step / 150)))
        if step in STEPS:
            rows.append(metrics_row(step, "validation", 0.3125 + 1.5 * math.exp(-step / 150)))
    return rows


def metrics_row(step: int, split: str, loss: float) -> dict[str, Any]:
    row = {"step": step, "split": split, "time": 1.7e9 + step, "loss": loss}
    row |= {"kl_loss": 0.8 * loss, "ce_loss": 1.4 * loss, "coverage": 0.8125}
    row |= {f"loss/{name}": loss * (1 + 0.2 * i) for i, name in enumerate(FORMATS)}
    if split == "validation":
        row |= {f"accuracy/{name}": min(step / 1000, 1) for name in FORMATS[:2]}
    if split == "train":
        rate = 5e-4 * min(step / 100, 1)
        row |= {"learning_rate": rate, "grad_norm": 1.25, "tokens_per_second": 12_345.0}
    return row


def write_evaluation(folder: pathlib.Path, step: int) -> None:
    """Writes results and samples of one checkpoint in lm-evaluation-harness form."""
    time = "2024-05-01T12-00-00.123456"
    results = {}
    for index, name in enumerate(DATA_SETS):
        share = 0.1 + 0.05 * index + step / 5000
        results[name] = {"alias": name}
        for mode, extra in (("corrected", 0.0), ("fu2023", -0.02)):
            results[name] |= {
                f"exact_match,{mode}": share + extra,
                f"exact_match_stderr,{mode}": 0.01,
            }
    counts = {name: {"original": n, "effective": n} for name, n in DATA_SETS.items()}
    write_json(folder / f"results_{time}.json", {"results": results, "n-samples": counts})
    write_lines(folder / f"samples_gsm8k_{time}.jsonl", samples())


def samples() -> list[dict[str, Any]]:
    outputs = [
        (f"3 + 4 = 7 {HOSTILE}\nThe answer is 7", "7", "7", True, True),
        ("The answer is 12", "12", "13", False, False),
        ("The answer is 1,000", "1000", "1000", True, False),
    ]
    return [
        {
            "doc_id": number,
            "doc": {"question": f"Question {number}?"},
            "target": gold,
            "arguments": [[f"Q: Question {number}?\nA:", {"until": ["\n\n"]}]],
            "resps": [[output]],
            "filtered_resps": [extracted],
            "filter": mode,
            "exact_match": float(right),
        }
        for number, (output, extracted, gold, *rights) in enumerate(outputs)
        for mode, right in zip(("corrected", "fu2023"), rights, strict=True)
    ]
