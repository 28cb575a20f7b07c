"""Questions that a teacher is asked, and answers that are there, from JSON-lines files."""

import collections
from collections.abc import Sequence

from etils import epath

from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError
from specialize_jax.teacher import importers


def read(path: str, *, limit: int | None = None) -> list[Question]:
    """Reads questions.

    Args:
      path: as `teacher.importers.questions.read`.
      limit: only the first of them.

    Raises:
      SchemaError: the file is missing, or a line is not as said.
    """
    _check_there(path, "--questions")
    return [
        Question(asked.id, asked.question, asked.answer, asked.kind, row=asked.row)
        for asked in importers.questions.read(path, limit=limit)
    ]


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


def _check_there(path: str, flag: str) -> None:
    if not epath.Path(path).is_file():
        raise SchemaError(f"{flag}: there is no file '{path}'")
