"""Lines of a samples file of lm-evaluation-harness: what a model wrote, read and scored.

`samples_<task>_<timestamp>.jsonl` holds one line for every question and extraction mode (`filter`).
`resps` holds the texts, all of a question's samples: `[[first, second, ...]]`. `filtered_resps` and
`exact_match` are of the first one. Where samples vote, `maj@k` says whether the vote of the first k
is right, and `votes` (ours) what was voted for. `too_long` (ours) marks a question whose prompt was
longer than the model's limit: it was not asked, its text is empty, and it counts as wrong.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax.schemas import folders
from specialize_jax.schemas.targets import SchemaError

METRIC = "exact_match"
VOTE = re.compile(r"maj@[1-9]\d*", re.ASCII)
NOT_FOUND = "[invalid]"

_SAMPLE = {
    "doc_id": int,
    "doc": dict,
    "target": str,
    "arguments": dict,
    "resps": list,
    "filtered_resps": list,
    "filter": str,
    "metrics": list,
    "doc_hash": str,
    "prompt_hash": str,
    "target_hash": str,
    METRIC: float,
}


def vote_name(k: int) -> str:
    """Returns the metric of the majority of the first `k` samples, as "maj@8"."""
    return f"maj@{k}"


def build_sample(
    *,
    doc_id: int,
    doc: Mapping[str, Any],
    target: str,
    prompt: str,
    generation: Mapping[str, Any],
    responses: Sequence[str],
    mode: str,
    answer: str | None,
    correct: bool,
    votes: Mapping[str, tuple[str | None, bool]] | None = None,
    too_long: bool = False,
) -> dict[str, Any]:
    """Returns one line of a samples file.

    Args:
      doc_id: row of the question in its source file, from 0.
      doc: that row.
      target: the gold answer as text.
      prompt: what the model was given.
      generation: how it was decoded; JSON values.
      responses: what it wrote, at least one text.
      mode: the extraction mode.
      answer: what was extracted from the first text; None for nothing.
      correct: whether it equals the gold answer.
      votes: `vote_name` -> (what was voted for, None for nothing; whether that is right).
      too_long: whether the prompt was not asked, since it was too long.
    """
    votes = votes or {}
    line = {
        "doc_id": doc_id,
        "doc": dict(doc),
        "target": target,
        "arguments": arguments(prompt, generation),
        "resps": [list(responses)],
        "filtered_resps": [_shown(answer)],
        "filter": mode,
        "metrics": [METRIC, *votes],
        "doc_hash": text_hash(json.dumps(dict(doc), indent=2, ensure_ascii=False)),
        "prompt_hash": text_hash(prompt),
        "target_hash": text_hash(target),
        METRIC: float(correct),
        **{name: float(right) for name, (_, right) in votes.items()},
    }
    if votes:
        line["votes"] = {name: _shown(voted) for name, (voted, _) in votes.items()}
    return line | ({"too_long": True} if too_long else {})


def _shown(answer: str | None) -> str:
    return NOT_FOUND if answer is None else answer


def arguments(prompt: str, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `arguments` field: one request, of a prompt and how to decode it."""
    return {"gen_args_0": {"arg_0": prompt, "arg_1": dict(generation)}}


def validate_sample(sample: Any, where: str) -> None:
    """Checks one line of a samples file.

    Args:
      sample: the parsed line.
      where: what to call it in errors, as a path and line number.

    Raises:
      SchemaError: says what was expected, what came, and in which field.
    """
    check_fields(sample, _SAMPLE, where)
    if sample["doc_id"] < 0:
        raise SchemaError(f"{where}: expected doc_id >= 0, got {sample['doc_id']}")
    _check_metrics(sample, where)
    prompt = prompt_of(sample, where)
    for field, text in (("prompt_hash", prompt), ("target_hash", sample["target"])):
        if sample[field] != text_hash(text):
            raise SchemaError(
                f"{where}: '{field}' is not the SHA-256 of its text: expected {text_hash(text)}, "
                f"got {sample[field]!r}"
            )
    for field in ("resps", "filtered_resps"):
        if len(sample[field]) != 1:
            raise SchemaError(
                f"{where}: expected one entry in '{field}', got {sample[field]!r:.80}"
            )
    responses_of(sample, where)
    if not isinstance(sample["filtered_resps"][0], str):
        raise SchemaError(
            f"{where}: expected text in 'filtered_resps', got {sample['filtered_resps']!r:.80}"
        )


def _check_metrics(sample: Mapping[str, Any], where: str) -> None:
    names = sample["metrics"]
    for name in {METRIC, *(name for name in names if VOTE.fullmatch(str(name)))}:
        if (value := sample.get(name)) not in (0.0, 1.0) or isinstance(value, bool):
            raise SchemaError(f"{where}: expected {name} 0.0 or 1.0, got {value!r}")


def prompt_of(sample: Mapping[str, Any], where: str) -> str:
    """Returns the prompt of a sample.

    Raises:
      SchemaError: `arguments` has another form.
    """
    try:
        prompt = sample["arguments"]["gen_args_0"]["arg_0"]
    except (KeyError, TypeError):
        prompt = None
    if not isinstance(prompt, str):
        raise SchemaError(
            f"{where}: expected 'arguments' {{'gen_args_0': {{'arg_0': prompt, ...}}}}, "
            f"got {sample.get('arguments')!r:.120}"
        )
    return prompt


def responses_of(sample: Mapping[str, Any], where: str) -> list[str]:
    """Returns the model's texts in a sample, at least one.

    Raises:
      SchemaError: `resps` has another form.
    """
    match sample.get("resps"):
        case [[_, *_] as texts] if all(isinstance(text, str) for text in texts):
            return list(texts)
    raise SchemaError(f"{where}: expected 'resps' [[text, ...]], got {sample.get('resps')!r:.120}")


def write_samples(
    folder: epath.PathLike, task: str, samples: Iterable[Mapping[str, Any]], stamp: str
) -> epath.Path:
    """Writes `samples_<task>_<timestamp>.jsonl`, whole or not at all; returns its path."""
    check_name(task, "samples")
    lines = []
    for number, sample in enumerate(samples, start=1):
        validate_sample(sample, f"samples of '{task}', line {number}")
        lines.append(json_line(sample))
    path = folders.make_folder(folder) / f"samples_{task}_{stamp}.jsonl"
    folders.write_bytes(path, "".join(lines).encode())
    return path


def read_samples(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads and checks a samples file.

    Raises:
      SchemaError: names the file and the line.
    """
    samples = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line:
            samples.append(folders.parse_json(line, f"{path}, line {number}"))
            validate_sample(samples[-1], f"{path}, line {number}")
    return samples


def check_fields(value: Any, fields: Mapping[str, Any], where: str) -> None:
    """Checks that a parsed JSON value is an object with these fields, of these types.

    Raises:
      SchemaError: it is not.
    """
    if not isinstance(value, dict):
        raise SchemaError(f"{where}: expected an object, got {type(value).__name__}")
    missing = [name for name in fields if name not in value]
    if missing:
        raise SchemaError(f"{where}: missing {missing}; has {sorted(value)}")
    for name, types in fields.items():
        types = types if isinstance(types, tuple) else (types,)
        found = value[name]
        # bool is an int to Python, not to a reader of the file; NaN is no number to JSON.
        wrong = isinstance(found, bool) or not isinstance(found, types)
        if wrong or (isinstance(found, float) and not math.isfinite(found)):
            expected = " or ".join(type_.__name__ for type_ in types)
            raise SchemaError(f"{where}: expected '{name}' as {expected}, got {found!r:.80}")


def check_name(task: str, where: str) -> None:
    """Checks that file names can carry a task's name.

    Raises:
      SchemaError: they cannot.
    """
    if not re.fullmatch(r"[\w.-]+", task, re.ASCII):
        raise SchemaError(
            f"{where}: expected a task name of letters, digits, '_', '.', '-', got {task!r}"
        )


def text_hash(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def json_line(value: Mapping[str, Any]) -> str:
    """Returns a value as one line of JSON, newline included."""
    # A lone surrogate (a model's half character) cannot be UTF-8; escaped it survives.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return text + "\n"


def read_text(path: epath.PathLike) -> str:
    """Returns a file's text.

    Raises:
      SchemaError: it cannot be read.
    """
    try:
        return epath.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"cannot read '{path}': {error}") from error
