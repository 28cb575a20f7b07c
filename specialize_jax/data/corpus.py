"""Aligned folders read into memory and split by question; no TensorFlow."""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from specialize_jax.data.formats import NUM_EXEMPLARS, Exemplar
from specialize_jax.data.packing import keep_largest
from specialize_jax.schemas import SchemaError, aligned, folders

SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Aligned folders read into memory and split by question.

    Attributes:
      rows: split -> rows of `schemas.aligned.to_rows`, in the order of the files.
      pool: one exemplar for every training question: the first chain that stands for it.
      pool_index: question -> place in `pool`.
      info: `alignment_info.json` of each folder.
      tokenizer_file: the student tokenizer, which all folders share.
      k: entries per target token.
      num_exemplars: worked questions in an in-context prompt.
      vocab_size: of the student.
    """

    rows: dict[str, list[dict[str, Any]]]
    pool: list[Exemplar]
    pool_index: dict[str, int]
    info: list[dict[str, Any]]
    tokenizer_file: str
    k: int
    num_exemplars: int
    vocab_size: int


def choose_validation(example_ids: Sequence[str], validation: int | str) -> set[str]:
    """Chooses the questions that are kept out of training.

    Args:
      example_ids: of all questions.
      validation: how many of them (ours: those whose SHA-256 comes first, so that a question's
        place does not depend on the others), or the path of an .npy file with rows of GSM8K train
        (as in the reference repository).

    Returns:
      Their example ids.

    Raises:
      SchemaError: the file is missing or no list of integers; or no training question would remain.
    """
    if isinstance(validation, int):
        unique = sorted(set(example_ids), key=lambda i: hashlib.sha256(i.encode()).digest())
        if not 0 <= validation < len(unique):
            raise SchemaError(
                f"VALIDATION: expected fewer than the {len(unique)} questions there are, "
                f"got {validation}"
            )
        return set(unique[:validation])
    try:
        with epath.Path(validation).open("rb") as file:
            rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SchemaError(f"cannot read validation rows from '{validation}': {error}") from error
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise SchemaError(
            f"'{validation}': expected a list of row numbers, got {rows.dtype} {rows.shape}"
        )
    return {f"gsm8k/train/{int(row)}" for row in rows}


def _read_folder(folder: str, k_out: int | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    info = folders.read_info(folder, aligned.NAME)
    if k_out is not None and k_out > info["k_out"]:
        raise SchemaError(
            f"'{folder}' stores K_out={info['k_out']} entries per token, but K_OUT={k_out} was "
            f"configured; align again with --k_out {k_out} or configure at most {info['k_out']}"
        )
    schema = aligned.arrow_schema(info["k_out"], info["student_tokenizer"]["vocab_size"])
    rows = []
    for entry, table in folders.read_parts(folder, info, schema):
        for number, row in enumerate(aligned.to_rows(table)):
            where = f"'{folder}/{entry['file']}' row {number}"
            aligned.check_soft(row["soft"], row["targets"], where)
            if k_out is not None and k_out < info["k_out"]:
                row["soft"] = keep_largest(row["soft"], k_out)
            rows.append(row)
    return info, rows


@functools.lru_cache(maxsize=1)
def read_corpus(
    aligned_dirs: tuple[str, ...],
    validation: int | str,
    k_out: int | None,
    num_exemplars: int = NUM_EXEMPLARS,
    train_on_validation: bool = False,
) -> Corpus:
    """Reads aligned folders; the last corpus read is kept.

    Args:
      aligned_dirs: folders written by `specialize-jax align` with the same student tokenizer.
      validation: see `choose_validation`.
      k_out: entries kept per target token; None for all that are stored.
      num_exemplars: worked questions in an in-context prompt, >= 1.
      train_on_validation: whether the validation questions stay in training and among the
        exemplars too, as in 2301.12726's code: held-out numbers are then contaminated.

    Raises:
      SchemaError: a folder is missing, unfinished or damaged, tokenizers differ, or K_out is larger
        than stored.
      ValueError: the number of exemplars is out of range.
    """
    if num_exemplars < 1:
        raise ValueError(f"NUM_EXEMPLARS: expected at least 1, got {num_exemplars}")
    if not aligned_dirs:
        raise SchemaError("expected at least one aligned folder (ALIGNED_DIRS), got none")
    infos, everything = [], []
    for folder in aligned_dirs:
        info, rows = _read_folder(folder, k_out)
        infos.append(info)
        everything += rows
    for name in ("sha256", "vocab_size"):
        found = {str(info["student_tokenizer"][name]) for info in infos}
        if len(found) > 1:
            raise SchemaError(f"aligned folders of several student tokenizers: {name}s {found}")
    widths = {info["k_out"] for info in infos}
    if k_out is None and len(widths) > 1:
        raise SchemaError(f"aligned folders store different K_out {widths}; configure K_OUT")
    tokenizer = infos[0]["student_tokenizer"]
    tokenizer_file = epath.Path(aligned_dirs[0]) / tokenizer["file"]
    folders.check_hash(tokenizer_file, tokenizer)

    held_out = choose_validation([row["example_id"] for row in everything], validation)
    held_out_questions = {r["question"] for r in everything if r["example_id"] in held_out}
    split = collections.defaultdict(list)
    for row in everything:
        # By text as well as by id, so that a question that stands twice stays on one side.
        out = row["example_id"] in held_out or row["question"] in held_out_questions
        if out:
            split["validation"].append(row)
        if not out or train_on_validation:
            split["train"].append(row)
    pool: dict[str, Exemplar] = {}
    for row in split["train"]:
        if row["gold_answer"] is not None:
            exemplar = Exemplar(row["question"], row["targets_pretokenized"], row["gold_answer"])
            pool.setdefault(row["question"], exemplar)
    return Corpus(
        rows={name: split[name] for name in SPLITS},
        pool=list(pool.values()),
        pool_index={question: index for index, question in enumerate(pool)},
        info=infos,
        tokenizer_file=str(tokenizer_file),
        k=k_out or widths.pop(),
        num_exemplars=num_exemplars,
        vocab_size=tokenizer["vocab_size"],
    )
