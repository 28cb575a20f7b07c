"""Public data sets from TensorFlow Datasets; the library is imported when rows are read.

TFDS keeps examples in the order of a hash of their keys, which for GSM8K are row numbers. That
order is undone here, so that a row has the number that it has in the authors' file.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_FIELDS = ("question", "answer")
_GSM8K_QUESTIONS = {
    "test": "f39f84f9fbeccade2bf8a44377c2941acd319fd244e67a061305dc264696883e",
    "train": "c491a92513b1c17cf59aa1216a705550e524b494777c3ecaabd27153736ae7b9",
}
"""SHA-256 of all questions of a split in the order of the file, a newline behind each."""

Load = Callable[[str, str | None], Iterable[Mapping[str, Any]]]


def gsm8k(
    split: str,
    *,
    data_dir: str | None = None,
    load: Load | None = None,
    expected: Mapping[str, str] = _GSM8K_QUESTIONS,
) -> list[dict[str, str]]:
    """Returns the rows of GSM8K, `question` and `answer`, as the authors' file has them.

    Args:
      split: "test" or "train".
      data_dir: TFDS's folder; None for its own (TFDS_DATA_DIR, else ~/tensorflow_datasets). What is
        not there is downloaded.
      load: (split, data_dir) -> examples, in TFDS's order; by default TFDS's own.
      expected: split -> hash of its questions.

    Raises:
      FileNotFoundError: TFDS is not installed, or it cannot give the set.
      ValueError: the questions are others than GSM8K's, or in an unknown order.
    """
    examples = [
        {name: _text(example[name]) for name in _FIELDS}
        for example in (load or _load)(split, data_dir)
    ]
    rows = dict(zip(_order(split, len(examples)), examples, strict=True))
    ordered = [rows[row] for row in range(len(examples))]
    found = digest(row["question"] for row in ordered)
    if found != expected.get(split):
        raise ValueError(
            f"GSM8K, split '{split}', from TensorFlow Datasets: {len(ordered)} rows, which are not "
            "the authors' in the order of their file; use the file (--data_dir)"
        )
    return ordered


def digest(questions: Iterable[str]) -> str:
    """Returns the SHA-256 of some texts, a newline behind each, in hexadecimal."""
    found = hashlib.sha256()
    for question in questions:
        found.update(f"{question}\n".encode())
    return found.hexdigest()


def _order(split: str, count: int) -> list[int]:
    """Returns the row of each of TFDS's examples: rows by the MD5 of "split" and row."""
    return sorted(range(count), key=lambda row: hashlib.md5(f"{split}{row}".encode()).digest())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _load(split: str, data_dir: str | None) -> Iterable[Mapping[str, Any]]:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise FileNotFoundError(
            "GSM8K is neither in the data folder (--data_dir) nor can it be had from TensorFlow "
            "Datasets, which is not installed (pip install tensorflow-datasets)"
        ) from error
    try:
        # In the order of the files; a network error has many types.
        read = tfds.ReadConfig(interleave_cycle_length=1)
        found = tfds.load(
            "gsm8k", split=split, data_dir=data_dir, shuffle_files=False, read_config=read
        )
    except Exception as error:
        raise FileNotFoundError(
            "GSM8K is not in the data folder (--data_dir), and TensorFlow Datasets cannot give it "
            f"(folder: {data_dir or 'its own'}): {type(error).__name__}: {error}"
        ) from error
    return tfds.as_numpy(found)
