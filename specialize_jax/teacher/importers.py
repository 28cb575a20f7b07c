"""Readers that turn published solutions into teacher records.

| source             | teacher            | log-probabilities                              |
|--------------------|--------------------|------------------------------------------------|
| `codex_top5_steps` | code-davinci-002   | the five most probable tokens of every step    |
| `gsm8k`            | the human authors  | none                                           |

Both give rows of `schemas.records`, right and wrong ones; `teacher.records` filters and writes.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from etils import epath

from specialize_jax import answers
from specialize_jax.schemas import NO_LOGPROB, SchemaError
from specialize_jax.teacher.steps import clean

# The old completions API shows a token that is not UTF-8 by itself as `bytes:` and escapes; a space
# that belongs to the token stands before the escapes. Notebook outputs doubled the backslashes.
_ESCAPED_TOKEN = re.compile(r"bytes:( ?)((?:\\{1,2}x[0-9a-f]{2})+)")
_CALCULATOR_MARK = re.compile(r"<<[^>]*>>")


class Source(NamedTuple):
    """Where records come from.

    Attributes:
      rows: data folder -> rows of `schemas.records` or, for a dropped sample, the reason.
      info: what `teacher_info.json` says of the source.
    """

    rows: Callable[[epath.Path], Iterator[dict[str, Any] | str]]
    info: dict[str, Any]


def read_jsonl(path: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields `file:line` and the object of every line.

    Raises:
      SchemaError: the file is missing, not UTF-8, or a line is not a JSON object.
    """
    if not path.exists():
        raise SchemaError(
            f"expected the file '{path}'; give the folder that holds '{path.parent.name}/' with "
            "--data_dir or SPECIALIZE_JAX_DATA"
        )
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise SchemaError(f"{path}:{number}: expected UTF-8: {error}") from error
    # Not `splitlines`: JSON strings may hold U+2028 and other characters that it breaks lines at.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        where = f"{path}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise SchemaError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise SchemaError(f"{where}: expected a JSON object, got {type(value).__name__}")
        yield where, value


def gsm8k_parts(answer: str, where: str) -> tuple[str, str]:
    """Splits a GSM8K answer into its worked solution and the final answer.

    Args:
      answer: the `answer` field, a solution with `<<3*2=6>>` marks and a last line `#### 6`.
      where: named in the error.

    Returns:
      The solution without marks and trailing newlines, and the final answer as written.

    Raises:
      SchemaError: there is no final answer.
    """
    solution, mark, gold = answer.rpartition("#### ")
    if not mark or not gold.strip():
        raise SchemaError(
            f"{where}: a question without a gold answer: expected a last line '#### <answer>', "
            f"got {answer[-40:]!r}"
        )
    return _CALCULATOR_MARK.sub("", solution).strip(), gold.strip()


def _gsm8k_questions(data_dir: epath.Path) -> list[tuple[str, str, str]]:
    """Returns question, solution and gold answer of every row of GSM8K train."""
    questions = []
    for where, row in read_jsonl(data_dir / "gsm8k" / "train.jsonl"):
        for name in ("question", "answer"):
            if not isinstance(row.get(name), str):
                got = repr(row[name]) if name in row else f"only {sorted(row)}"
                raise SchemaError(f"{where}: expected a string '{name}', got {got}")
        questions.append((row["question"], *gsm8k_parts(row["answer"], where)))
    return questions


def _row(index: int, sample: int, question: str, gold: str, **fields: Any) -> dict[str, Any]:
    """Returns a record without tokens, to be overridden by `fields`."""
    return {
        "example_id": f"gsm8k/train/{index}",
        "sample_id": sample,
        "question": question,
        "prompt": "",
        "finish_reason": "stop",
        "gold_answer": gold,
        "token_bytes": [],
        "token_ids": None,
        "token_logprobs": [],
        "topk_bytes": [],
        "topk_logprobs": [],
        "target_token_start": 0,
        "target_token_end": 0,
        "terminal_bytes": None,
        "terminal_logprobs": None,
        **fields,
    }


def _gsm8k(data_dir: epath.Path) -> Iterator[dict[str, Any] | str]:
    for index, (question, solution, gold) in enumerate(_gsm8k_questions(data_dir)):
        completion = f"{solution}\nThe answer is {gold}"
        answer = answers.extract(completion)
        correct = answer is not None and answers.equal(answer, gold)
        yield _row(
            index, 0, question, gold, completion=completion, answer=answer, is_correct=correct
        )


def token_to_bytes(token: str) -> bytes:
    r"""Returns the bytes of a token string as the old completions API shows it.

    Args:
      token: as ` Nat`, or `bytes: \xc3` for a token that is not UTF-8 by itself.
    """
    match = _ESCAPED_TOKEN.fullmatch(token)
    if match is None:
        return token.encode()
    return match[1].encode() + bytes.fromhex(match[2].replace("\\", "").replace("x", ""))


def candidates(pairs: list[list[Any]], where: str) -> tuple[list[bytes], list[float], int]:
    """Turns printed candidates of a step into bytes and natural log-probabilities.

    Args:
      pairs: [token, probability] each; probabilities are rounded, so that 0 means "below 0.00005".
      where: named in the error.

    Returns:
      Names, log-probabilities (most probable first), and how many were dropped for lack of mass.

    Raises:
      SchemaError: their mass exceeds 1 by more than rounding explains.
    """
    logprobs = [(token_to_bytes(token), math.log(p) if p > 0 else -math.inf) for token, p in pairs]
    try:
        names, kept, _ = clean(logprobs)
    except ValueError as error:
        raise SchemaError(f"{where}: {error}: {pairs}") from error
    return names, kept, len(pairs) - len(names)


def _codex(data_dir: epath.Path) -> Iterator[dict[str, Any] | str]:
    golds = [gold for _, _, gold in _gsm8k_questions(data_dir)]
    for where, record in read_jsonl(data_dir / "codex_top5_steps" / "codex_top5_steps.jsonl"):
        try:
            row = _codex_row(record, golds, where)
        except SchemaError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise SchemaError(
                f"{where}: expected integers 'question_index' and 'generation_index', a string "
                "'question' and 'steps', each [[token, probability], ...] with the sampled token "
                f"first; got {str(record)[:80]} ({type(error).__name__}: {error})"
            ) from error
        yield row


def _codex_row(record: dict[str, Any], golds: list[str], where: str) -> dict[str, Any] | str:
    """Returns the row of a record or why it is dropped; bad records raise whatever they raise."""
    index, generation, question = (
        record[name] for name in ("question_index", "generation_index", "question")
    )
    for name, value, kind in (
        ("question_index", index, int),
        ("generation_index", generation, int),
        ("question", question, str),
    ):
        if not isinstance(value, kind):
            raise SchemaError(f"{where}: expected '{name}' of {kind.__name__}, got {value!r}")
    if not 0 <= index < len(golds):
        raise SchemaError(
            f"{where}: expected a 'question_index' in [0, {len(golds)}), a row of gsm8k/train, "
            f"got {index}"
        )
    if not record["steps"]:
        raise SchemaError(f"{where}: expected at least one of 'steps', got {record['steps']!r}")
    sampled = [step[0][0] for step in record["steps"]]
    # The guard of 2301.12726's code: the first two tokens echo the prompt (` step`, newline).
    if sampled[:2] != [" step", "\n"] or sampled[-1].strip("\n"):
        return "format"
    end = len(sampled)
    while end and not sampled[end - 1].strip("\n"):
        end -= 1
    steps = [
        candidates(step[1:], f"{where}: step {number}")
        for number, step in enumerate(record["steps"])
    ]
    tokens = [token_to_bytes(token) for token in sampled]
    gold = golds[index]
    answer = answers.extract(b"".join(tokens[2:end]).decode())
    return _row(
        index,
        generation,
        question,
        gold,
        completion=b"".join(tokens).decode(),
        answer=answer,
        is_correct=answer is not None and answers.equal(answer, gold),
        token_bytes=tokens,
        token_logprobs=[
            math.log(step[0][1]) if step[0][1] > 0 else NO_LOGPROB for step in record["steps"]
        ],
        topk_bytes=[names for names, _, _ in steps],
        topk_logprobs=[logprobs for _, logprobs, _ in steps],
        target_token_start=2,
        target_token_end=end,
        terminal_bytes=steps[end][0],
        terminal_logprobs=steps[end][1],
        dropped_candidates=sum(dropped for _, _, dropped in steps),
    )


SOURCES = {
    "codex_top5_steps": Source(
        _codex,
        {
            "teacher": {"name": "code-davinci-002", "revision": None},
            "tokenizer": {"name": "p50k_base", "sha256": None},
            # papers.md A.2: scripts/codex_decode_gsm8k.py of the reference repository
            "sampling": {"temperature": 0.5, "max_tokens": 256, "logprobs": 5},
        },
    ),
    "gsm8k": Source(
        _gsm8k,
        {
            "teacher": {"name": "GSM8K authors (worked solutions)", "revision": None},
            "tokenizer": {"name": None, "sha256": None},
            "sampling": {},
        },
    ),
}
