"""Teacher records for benchmarks that need many: real texts and tokens, made-up distributions.

GSM8K's human solutions in p50k_base tokens. Beyond 7,473 answers a solution comes again with other
numbers, as several samples for one question do. At every step the teacher "recorded" what was
written and the four tokens that most often follow the token before it.
"""

import collections
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from specialize_jax import tokenizers

_CANDIDATES = 5


def rows(data: pathlib.Path, number: int) -> Iterator[dict[str, Any]]:
    """Yields teacher records.

    Args:
      data: folder of public data sets.
      number: how many.
    """
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
