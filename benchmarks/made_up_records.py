"""Teacher records for benchmarks that need many: real texts and tokens, made-up distributions."""

import collections
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any


def rows(solutions: Sequence[tuple[str, Sequence[bytes]]]) -> Iterator[dict[str, Any]]:
    """Yields a record of each text and its tokens.

    Candidates are the sampled token (0.8) and what most often follows the one before it (0.04 each,
    four at most), so that there are about as many distinct ones as a teacher might give.
    """
    followers: dict[bytes, collections.Counter[bytes]] = collections.defaultdict(
        collections.Counter
    )
    for _, tokens in solutions:
        for before, token in itertools.pairwise([b"", *tokens]):
            followers[before][token] += 1
    for n, (text, tokens) in enumerate(solutions):
        steps = itertools.pairwise([b"", *tokens])
        names = [
            [token, *(t for t, _ in followers[before].most_common(5) if t != token)][:5]
            for before, token in steps
        ]
        answer = text.split("The answer is ")[-1]
        yield {
            "example_id": f"made_up/{n}",
            "sample_id": 0,
            "question": str(n),
            "prompt": "",
            "completion": text,
            "finish_reason": "stop",
            "gold_answer": answer,
            "answer": answer,
            "is_correct": True,
            "token_bytes": list(tokens),
            "token_ids": None,
            "token_logprobs": [math.log(0.8)] * len(names),
            "topk_bytes": names,
            "topk_logprobs": [[math.log(0.8), *[math.log(0.04)] * (len(k) - 1)] for k in names],
            "target_token_start": 0,
            "target_token_end": len(names),
            "terminal_bytes": None,
            "terminal_logprobs": None,
        }
