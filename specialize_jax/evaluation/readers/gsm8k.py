"""GSM8K: plain, with sub-questions, with large numbers, and the paper's validation rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from specialize_jax.evaluation.readers import files
from specialize_jax.evaluation.readers.base import MATH_PROMPT, Question, QuestionSet
from specialize_jax.schemas import SchemaError

Rows = Iterable[Mapping[str, Any]]
ELSEWHERE: dict[str, Callable[[str], Rows]] = {}
"""Where rows come from if the data folder has none: "gsm8k" -> (split -> rows, as in the file).

Empty here, for evaluation knows no library of data sets; `data.tfds_rows` fills it.
"""
_FIELDS = {"question": str, "answer": str}
_DEV200 = ("cot_prompts", "validation_index.npy")


def gsm8k(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads GSM8K; the arguments and errors of all readers are those of `base.read`."""
    return [
        Question(f"gsm8k/{split}/{row}", source["question"], gold, row=row, source=source)
        for row, source, gold in _rows(data_dir, split)
    ]


def dev200(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads the rows of GSM8K train that 2301.12726's repository validates on.

    They are training questions: a student is clean on them only if they were kept out, as
    VALIDATION does; the check against the training questions finds the others.
    """
    path = files.find(data_dir, *_DEV200)
    try:
        with path.open("rb") as file:
            index = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SchemaError(f"{path}: expected a list of row numbers: {error}") from error
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise SchemaError(
            f"{path}: expected a list of row numbers, got {index.dtype} {index.shape}"
        )
    train = gsm8k(data_dir, "train")
    if len(outside := index[(index < 0) | (index >= len(train))]):
        raise SchemaError(f"{path}: row {outside[0]} is not among the {len(train)} of GSM8K train")
    return [train[row] for row in sorted({*index.tolist()})]


def socratic(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads GSM8K whose solutions ask a sub-question before every step.

    `source["steps"]` lists them as {"question", "solution"}; questions and gold answers are those
    of `gsm8k`.
    """
    path = files.find(data_dir, "gsm8k", f"{split}_socratic.jsonl")
    questions = []
    for row, source, gold in _solved(path, files.json_lines(path, _FIELDS)):
        steps = _steps(source["answer"], f"{path}, line {row + 1}")
        source = {**source, "steps": steps}
        id_ = f"gsm8k_socratic/{split}/{row}"
        questions.append(Question(id_, source["question"], gold, row=row, source=source))
    return questions


def gsm_hard(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads GSM8K's test questions with large numbers put in; gold answers may be fractions."""
    path = files.find(data_dir, "gsm_hard", "gsmhardv2.jsonl")
    fields = {"input": str, "target": (int, float)}
    return [
        Question(
            f"gsm_hard/{row}",
            source["input"],
            files.number(source["target"]),
            "number",
            row,
            source,
        )
        for row, source in files.json_lines(path, fields)
    ]


def _rows(data_dir: epath.PathLike, split: str) -> Iterator[tuple[int, dict[str, Any], str]]:
    folder = epath.Path(data_dir) / "gsm8k" if data_dir else None
    if "gsm8k" in ELSEWHERE and not (folder and folder.is_dir()):
        where = f"gsm8k, split '{split}', not from a file"
        rows = enumerate(
            files.checked(dict(row), _FIELDS, f"{where}, row {number}")
            for number, row in enumerate(ELSEWHERE["gsm8k"](split))
        )
        return _solved(where, rows)
    try:
        path = files.find(data_dir, "gsm8k", f"{split}.jsonl")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or take it from TFDS by --tfds_data_dir") from error
    return _solved(path, files.json_lines(path, _FIELDS))


def _solved(
    where: epath.PathLike, rows: Iterable[tuple[int, dict[str, Any]]]
) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields (row, source, gold answer), which is what follows the last `####`."""
    for row, source in rows:
        _, mark, gold = source["answer"].rpartition("#### ")
        if not mark or not gold.strip():
            raise SchemaError(f"{where}, line {row + 1}: expected '#### <answer>' at the end")
        yield row, source, gold.strip()


def _steps(answer: str, where: str) -> list[dict[str, str]]:
    steps = []
    for line in answer.rpartition("#### ")[0].removesuffix("\n").split("\n"):
        question, mark, solution = line.partition(" ** ")
        if not mark or not question.strip():
            raise SchemaError(f"{where}: expected 'sub-question ** step', got {line[:80]!r}")
        steps.append({"question": question.strip(), "solution": solution.strip()})
    return steps


_IN = QuestionSet(
    gsm8k,
    "in_distribution",
    harness="gsm8k_cot",
    splits=("test", "train"),
    prompt_file=MATH_PROMPT,
)
SETS = {
    "gsm8k": _IN._replace(needs_data_dir=False),
    "gsm8k_socratic": _IN._replace(read=socratic),
    "gsm8k_dev200": _IN._replace(read=dev200, splits=("validation",)),
    "gsm_hard": _IN._replace(read=gsm_hard, role="out_of_distribution", splits=("test",)),
}
