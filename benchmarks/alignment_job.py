"""Answers per second of `specialize-jax align`, the whole job: Parquet to Parquet.

    python benchmarks/alignment_job.py --data_dir ../shared/data --answers 20000

The records are made from GSM8K's human solutions in p50k_base tokens. Beyond 7,473 answers a
solution comes again with other numbers, as several samples for one question do. At every step the
teacher "recorded" what was written and the four tokens that most often follow the token before it.
Each run starts processes of its own, so loading and compiling count too; on a busy machine the
processor time says more than the wall time.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from specialize_jax import tokenizers
from specialize_jax.alignment.transfer import MODES
from specialize_jax.schemas import folders, records
from specialize_jax.teacher import records as record_files

_CANDIDATES = 5


def main() -> None:
    """Prints answers per second for each mode and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = os.environ.get("SPECIALIZE_JAX_DATA", "../shared/data")
    parser.add_argument("--data_dir", default=default, help="folder of public data sets")
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--rows_per_part", type=int, default=1000)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--records", help="keeps the records in this folder, for the next run")
    flags = parser.parse_args()
    data = pathlib.Path(flags.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(flags.records or folder) / "records"
        if not (source / folders.INFO_FILES[records.NAME]).exists():
            rows = _rows(data, flags.answers)
            info = {"teacher": {"name": "made up"}, "tokenizer": None, "sampling": {}, "source": ""}
            record_files.write(rows, source, info, rows_per_part=flags.rows_per_part)
        for mode in flags.modes.split(","):
            for processes in flags.processes.split(","):
                _run(data, source, pathlib.Path(folder) / "out", mode, processes)


def _rows(data: pathlib.Path, number: int) -> Iterator[dict[str, Any]]:
    teacher = tokenizers.load(data / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    assert isinstance(teacher, tokenizers.TiktokenTokenizer)
    with open(data / "gsm8k" / "train.jsonl", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    texts = [re.sub(r"<<.*?>>", "", problem["answer"]) for problem in problems]
    texts = [text.replace("#### ", "The answer is ") for text in texts]
    # As models write: "3 + 4 = 7", where people write "3+4=7".
    texts = [re.sub(r" ?([-+*/=]) ?(?=[\d$(])", r" \1 ", text) for text in texts]
    tokens = [teacher.token_bytes(teacher.encode(text)) for text in texts]
    follows: dict[bytes, collections.Counter[bytes]] = collections.defaultdict(collections.Counter)
    for answer in tokens:
        for before, token in zip([b"\n\n", *answer], [*answer, b"\n\n"], strict=True):
            follows[before][token] += 1
    likely = {
        before: [token for token, _ in counts.most_common(_CANDIDATES)]
        for before, counts in follows.items()
    }
    for index in range(number):
        rng = np.random.Generator(np.random.Philox([0, index]))
        which, again = index % len(texts), index // len(texts)
        text, answer = texts[which], tokens[which]
        if again:
            text = re.sub(
                r"[1-9]\d*",
                lambda found, rng=rng: str(
                    rng.integers(10 ** (len(found[0]) - 1), 10 ** len(found[0]))
                ),
                text,
            )
            answer = teacher.token_bytes(teacher.encode(text))
        yield _row(
            f"gsm8k/train/{which}", again, problems[which]["question"], text, answer, likely, rng
        )


def _row(
    example_id: str,
    sample_id: int,
    question: str,
    text: str,
    tokens: list[bytes],
    likely: dict[bytes, list[bytes]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    written = [*tokens, b"\n\n"]
    names, logprobs = [], []
    top = rng.uniform(0.5, 0.97, len(written))
    rest = np.array([0.5, 0.25, 0.12, 0.06])
    for before, token, p in zip([b"\n\n", *tokens], written, top, strict=True):
        others = [other for other in likely.get(before, ()) if other != token][: _CANDIDATES - 1]
        names.append([token, *others])
        logprobs.append(np.log([p, *(1 - p) * rest[: len(others)]]).tolist())
    answer = text.rsplit(" ", 1)[-1]
    return {
        "example_id": example_id,
        "sample_id": sample_id,
        "question": question,
        "prompt": "",
        "completion": text + "\n\n",
        "finish_reason": "stop",
        "gold_answer": answer,
        "answer": answer,
        "is_correct": True,
        "token_bytes": written,
        "token_ids": None,
        "token_logprobs": [step[0] for step in logprobs],
        "topk_bytes": names,
        "topk_logprobs": logprobs,
        "target_token_start": 0,
        "target_token_end": len(tokens),
        "terminal_bytes": None,
        "terminal_logprobs": None,
    }


def _run(
    data: pathlib.Path, source: pathlib.Path, out: pathlib.Path, mode: str, processes: str
) -> None:
    command = [
        *(sys.executable, "-m", "specialize_jax.apps.main", "align"),
        *("--records", source, "--out", out, "--mode", mode, "--processes", processes),
        *("--student_tokenizer", data / "tokenizer_t5" / "spiece.model"),
    ]
    wall, cpu = time.perf_counter(), _processor_seconds()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    wall, cpu = time.perf_counter() - wall, _processor_seconds() - cpu
    rows = folders.read_info(out, "aligned_examples")["rows"]
    shutil.rmtree(out)
    print(
        f"{mode}, {processes} processes: {rows} answers in {wall:.1f} s, {rows / wall:,.0f}/s; "
        f"{cpu / rows * 1e6:,.0f} us of processor time each",
        flush=True,
    )


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
