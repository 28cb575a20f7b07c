"""Questions that a teacher is asked, and answers that are there, from JSON-lines files."""

import collections
from collections.abc import Sequence

from etils import epath

from specialize_jax import answers
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError
from specialize_jax.teacher import importers


def read(path: str, *, limit: int | None = None) -> list[Question]:
    """Reads questions.

    Args:
      path: a line each: `question`, and perhaps `answer` (the gold answer; GSM8K's own, a solution
        that ends in `#### 18`, is one), `id`, `kind` (of `answers.KINDS`). Without `id` it is the
        file's name and the line's number, from 0.
      limit: only the first of them.

    Raises:
      SchemaError: the file is missing, or a line is not as said.
    """
    _check_there(path, "--questions")
    found = []
    stem = epath.Path(path).name.removesuffix(".jsonl")
    for number, (where, row) in enumerate(importers.read_jsonl(epath.Path(path))):
        if limit is not None and number >= limit:
            break
        row = {name: value for name, value in row.items() if value is not None}
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise SchemaError(f"{where}: expected a string 'question', got {sorted(row)}")
        if not _is_unicode(row["question"]):
            raise SchemaError(f"{where}: 'question' holds half a character (a lone surrogate)")
        kind = row.get("kind", "number")
        if kind not in answers.KINDS:
            raise SchemaError(
                f"{where}: unknown kind '{kind}'; choices: {', '.join(answers.KINDS)}"
            )
        gold = str(row.get("answer", ""))
        if "#### " in gold:
            gold = importers.gsm8k_parts(gold, where)[1]
        id_ = str(row.get("id", f"{stem}/{number}"))
        found.append(Question(id_, row["question"], gold, kind, row=number))
    return found


def check_gold(questions: Sequence[Question], path: str) -> None:
    """Checks that every question has a gold answer, which the filter compares answers with.

    Raises:
      SchemaError: some have none; names the first and counts them.
    """
    without = [question for question in questions if not question.has_gold]
    if without:
        raise SchemaError(
            f"'{path}': {len(without)} of {len(questions)} questions have no gold answer of their "
            f"kind, the first in line {without[0].row + 1} ('{without[0].id}', answer "
            f"{without[0].answer!r}); right answers cannot be told from wrong ones: give them, or "
            "keep every answer by --any_answer"
        )


def read_answers(path: str, questions: Sequence[Question]) -> dict[str, list[str]]:
    """Reads answers that are there already.

    Args:
      path: a line each: `completion` (or `answer`), and `id` or `question`, by which the question
        is found.
      questions: what they answer.

    Returns:
      Question id -> answers, in the order of the file.

    Raises:
      SchemaError: the file is missing, or a line is not as said, or answers another question.
    """
    _check_there(path, "--score_existing")
    by_text = {question.question: question.id for question in questions}
    ids = {question.id for question in questions}
    found: dict[str, list[str]] = collections.defaultdict(list)
    for where, row in importers.read_jsonl(epath.Path(path)):
        text = row.get("completion", row.get("answer"))
        if not isinstance(text, str) or not text.strip():
            raise SchemaError(f"{where}: expected a string 'completion', got {sorted(row)}")
        id_ = str(row["id"]) if "id" in row else by_text.get(str(row.get("question")))
        if id_ not in ids:
            raise SchemaError(
                f"{where}: expected the 'id' or the 'question' of one of the {len(ids)} questions, "
                f"got {str({k: row[k] for k in ('id', 'question') if k in row})[:120]}"
            )
        found[str(id_)].append(text)
    return dict(found)


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can say a text: JSON can spell more."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _check_there(path: str, flag: str) -> None:
    if not epath.Path(path).is_file():
        raise SchemaError(f"{flag}: there is no file '{path}'")
