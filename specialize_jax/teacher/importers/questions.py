"""Files of questions, with or without gold answers."""

from etils import epath

from specialize_jax.schemas import SchemaError
from specialize_jax.teacher.importers import files, gold


def read(
    path: epath.PathLike, *, limit: int | None = None, kind: str = "number"
) -> list[gold.Asked]:
    """Reads questions.

    Args:
      path: a line each: `question`, and perhaps `answer` (the gold answer; GSM8K's own, a solution
        that ends in `#### 18`, is one), `id`, `kind` (of `answers.KINDS`). Without `id` it is the
        file's name and the line's number, from 0.
      limit: only the first of them.
      kind: of those whose line names none.

    Raises:
      SchemaError: the file is missing, or a line is not as said.
    """
    found = []
    stem = epath.Path(path).name.removesuffix(".jsonl")
    for number, (where, row) in enumerate(files.read_jsonl(epath.Path(path))):
        if limit is not None and number >= limit:
            break
        row = {name: value for name, value in row.items() if value is not None}
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise SchemaError(f"{where}: expected a string 'question', got {sorted(row)}")
        own = gold.check_kind(row.get("kind", kind), where)
        answer = str(row.get("answer", ""))
        if gold.MARK in answer:
            answer = gold.gsm8k_parts(answer, where)[1]
        id_ = str(row.get("id", f"{stem}/{number}"))
        found.append(gold.Asked(id_, row["question"], answer, own, number))
    return found
