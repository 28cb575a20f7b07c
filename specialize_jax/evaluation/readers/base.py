"""What a test set is, and the table of those that are known by name."""

import collections
import dataclasses
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from specialize_jax import answers
from specialize_jax.schemas import Format

DATA_DIR_VARIABLE = "SPECIALIZE_JAX_DATA"
MATH_PROMPT = "cot_prompts/prompt_simple_4_cases.txt"
"""The four GSM8K questions that 2301.12726 shows in context, in the data folder."""


@dataclasses.dataclass(frozen=True)
class Question:
    """One question of a test set.

    Attributes:
      id: unique over all sets, as "svamp/chal-1".
      question: its text.
      answer: the gold answer as the set gives it.
      kind: one of `answers.KINDS`.
      row: its place in the source file, from 0; files know a question by it. `read` numbers the
        questions of a set in which all are left at 0.
      source: the row itself, as JSON values.
    """

    id: str
    question: str
    answer: str
    kind: str = "number"
    row: int = 0
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def has_gold(self) -> bool:
        """Whether the gold answer holds an answer of its kind."""
        return answers.extract(self.answer, kind=self.kind) is not None


ROLES = ("in_distribution", "out_of_distribution", "generic")
PROMPT_MODES = ("corrected", "fu2023")
"""How `QuestionSet.render` writes a prompt: as it should be, or as 2301.12726's code does."""


class QuestionSet(NamedTuple):
    """A test set.

    Attributes:
      read: (data folder, split) -> its questions; see `read` for errors.
      role: what it measures in a student that was specialised, one of `ROLES`: what the student was
        trained for, the same elsewhere, or other abilities. Reports group by it. The sets here are
        seen from GSM8K; a module that specialises in something else registers a set again under a
        name of its own, as `SETS["coin_flip_2"]._replace(role="in_distribution")`.
      needs_data_dir: whether it cannot do without a data folder.
      prompt: gives its worked exemplars for in-context formats, as the text of a prompt file; None
        where it brings none.
      harness: lm-evaluation-harness's task whose patterns fit the answers, as "gsm8k_cot"; None
        where it has none.
      harness_direct: the same for answer-only formats, where that is another.
      render: (label of an in-context format, question, data folder, one of `PROMPT_MODES`) -> the
        whole prompt, for sets whose in-context prompts are of their own form; then exemplars do not
        count. Zero-shot formats never ask it.
      shots: worked exemplars in what `render` gives.
      splits: those that `read` takes; the first is the one that is scored.
      prompt_file: a prompt file of the data folder for in-context formats, where `prompt` is None.
    """

    read: Callable[[epath.PathLike, str], list[Question]]
    role: str
    needs_data_dir: bool = True
    prompt: Callable[[], str] | None = None
    harness: str | None = None
    render: Callable[[str, Question, epath.PathLike, str], str] | None = None
    shots: int = 0
    splits: Sequence[str] = ("test",)
    prompt_file: str | None = None
    harness_direct: str | None = None


SETS: dict[str, QuestionSet] = {}
GROUPS: dict[str, Sequence[str]] = {}
"""Names that stand for several sets, see `expand`."""


def register(name: str, question_set: QuestionSet) -> None:
    """Makes a set known by a name, as a module does for its own when it is imported.

    Raises:
      ValueError: another set or a group has that name, or its role is unknown.
    """
    if question_set.role not in ROLES:
        raise ValueError(
            f"question set '{name}': unknown role '{question_set.role}'; choices: "
            f"{', '.join(ROLES)}"
        )
    if name in GROUPS or SETS.setdefault(name, question_set) is not question_set:
        raise ValueError(f"a question set '{name}' is registered already")


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of sets with every group replaced by its sets; each set once.

    Raises:
      ValueError: a name is neither; lists the choices.
    """
    found = dict.fromkeys(part for name in names for part in GROUPS.get(name, (name,)))
    for name in found:
        _find(name)
    return tuple(found)


def _find(name: str) -> QuestionSet:
    if name not in SETS:
        raise ValueError(
            f"unknown data set '{name}'; choices: {', '.join(SETS)}, the groups "
            f"{', '.join(GROUPS)}, and what EVAL_SETS_MODULE registers"
        )
    return SETS[name]


def folder(data_dir: epath.PathLike | None) -> epath.PathLike:
    """Returns the data folder: what is given, else what SPECIALIZE_JAX_DATA names, else ""."""
    return data_dir or os.environ.get(DATA_DIR_VARIABLE) or ""


def read(
    name: str, data_dir: epath.PathLike | None = None, split: str | None = None
) -> list[Question]:
    """Reads a set by name.

    Args:
      name: one of `SETS`.
      data_dir: the folder that holds one folder a set; by default what SPECIALIZE_JAX_DATA names.
      split: one of the set's `splits`; by default its first.

    Returns:
      Every question, in the order of the file.

    Raises:
      ValueError: unknown name or split; lists the choices. Or two questions have the same id or
        row.
      FileNotFoundError: the file is not there; names it and says how to give the folder.
      SchemaError: the file is malformed; names the line or item.
    """
    found = _find(name)
    split = found.splits[0] if split is None else split
    if split not in found.splits:
        raise ValueError(f"unknown split '{split}' of '{name}'; choices: {', '.join(found.splits)}")
    data_dir = folder(data_dir)
    if not data_dir and found.needs_data_dir:
        raise FileNotFoundError(
            f"no data folder given for '{name}': pass --data_dir or set {DATA_DIR_VARIABLE}"
        )
    return _told_apart(name, found.read(data_dir, split))


def _told_apart(name: str, questions: Sequence[Question]) -> list[Question]:
    """Returns the questions of a set, with rows where it gives none.

    Raises:
      ValueError: two of them have the same id or row.
    """
    if not any(question.row for question in questions):
        questions = [dataclasses.replace(one, row=row) for row, one in enumerate(questions)]
    for key in ("id", "row"):
        counts = collections.Counter(getattr(question, key) for question in questions)
        if repeated := [value for value, count in counts.items() if count > 1]:
            raise ValueError(
                f"set '{name}': expected another {key} for every question, got "
                f"{repeated[0]!r} {counts[repeated[0]]} times"
            )
    return list(questions)


def exemplars(name: str, data_dir: epath.PathLike | None = None) -> tuple[str, str]:
    """Returns the worked exemplars that a set brings: (text of a prompt file, where it is from).

    Raises:
      ValueError: it brings none, or its file is not in the data folder.
    """
    found = _find(name)
    if found.prompt is not None:
        return found.prompt(), f"exemplars of '{name}'"
    if found.prompt_file is None:
        raise ValueError(f"set '{name}' brings no exemplars: name a prompt file (EVAL_EXEMPLARS)")
    path = epath.Path(folder(data_dir)) / found.prompt_file
    if not path.is_file():
        raise ValueError(
            f"the exemplars of set '{name}' are not there: '{path}'; pass --data_dir, or name a "
            "prompt file (EVAL_EXEMPLARS)"
        )
    return path.read_text(encoding="utf-8"), str(path)


def modes(name: str, fmt: Format, questions: Sequence[Question]) -> tuple[str, ...]:
    """Returns the extraction modes to report for questions of a set, asked in a format."""
    own = _find(name)
    direct = own.harness_direct or own.harness
    harness = own.harness if fmt.is_chain_of_thought else direct
    return answers.modes_of(*{question.kind for question in questions}, harness=harness)


def sample(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """Returns a random subset in the order of the set.

    A larger `n` with the same seed holds the smaller subset, so that a quick look is a part of the
    long one. With `n` at or above the number of questions it is all of them.

    Args:
      questions: the set.
      n: how many, at least 1.
      seed: of the choice.

    Raises:
      ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"expected a sample of at least 1 question, got n={n}")
    order = list(range(len(questions)))
    random.Random(seed).shuffle(order)
    return [questions[index] for index in sorted(order[:n])]


def with_gold(questions: Sequence[Question]) -> list[Question]:
    """Returns the questions whose gold answer holds an answer of their kind."""
    return [question for question in questions if question.has_gold]
