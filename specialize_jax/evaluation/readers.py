"""Test sets by name -> `Question` rows.

Public ones are read from files as their authors published them:

| name         | file (under data_dir)         | splits      | questions  | gold answer           |
|--------------|-------------------------------|-------------|------------|-----------------------|
| `gsm8k`      | `gsm8k/<split>.jsonl`         | test, train | 1319, 7473 | text after `####`     |
| `svamp`      | `svamp/SVAMP.json`            | test        | 1000       | `Answer`              |
| `asdiv`      | `asdiv/ASDiv.xml`             | test        | 2305       | `Answer` and its unit |
| `multiarith` | `mawps/mawpsmultiarith.jsonl` | test        | 600        | `target`              |

Every row of a file is kept. 56 ASDiv answers hold no number ("Bryan"); as in the code of 2301.12726
they stay in the denominator, where no prediction can be right; results count them, and `with_gold`
leaves them out. 90 ASDiv answers hold several numbers ("9; 11"): the last one counts, as in that
code. SVAMP bodies often lack their full stop: one is put in where it is missing, and none where it
is there (that code writes ". " always).

A module of a user's own adds its sets by `register`.
"""

import dataclasses
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from etils import epath

from specialize_jax import answers
from specialize_jax.schemas import SchemaError

DATA_DIR_VARIABLE = "SPECIALIZE_JAX_DATA"


@dataclasses.dataclass(frozen=True)
class Question:
    """One question of a test set.

    Attributes:
      id: unique over all sets, as "svamp/chal-1".
      question: its text.
      answer: the gold answer as the set gives it.
      kind: one of `answers.KINDS`.
      row: its place in the source file, from 0.
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
        trained for, the same elsewhere, or other abilities. Reports group by it.
      needs_data_dir: whether it reads files of the data folder.
      prompt: gives its worked exemplars for in-context formats, as the text of a prompt file; None
        where a run has to name such a file.
      harness: lm-evaluation-harness's task whose patterns fit the answers, as "gsm8k_cot"; None
        where it has none.
      render: (label of an in-context format, question, data folder, one of `PROMPT_MODES`) -> the
        whole prompt, for sets whose in-context prompts are of their own form; then `prompt` and
        files with exemplars do not count. Zero-shot formats never ask it.
      shots: worked exemplars in what `render` gives.
    """

    read: Callable[[epath.PathLike, str], list[Question]]
    role: str
    needs_data_dir: bool = True
    prompt: Callable[[], str] | None = None
    harness: str | None = None
    render: Callable[[str, Question, epath.PathLike, str], str] | None = None
    shots: int = 0


def register(name: str, question_set: QuestionSet) -> None:
    """Makes a set known by a name, as a module does for its own when it is imported.

    Raises:
      ValueError: another set has that name, or its role is unknown.
    """
    if question_set.role not in ROLES:
        raise ValueError(
            f"question set '{name}': unknown role '{question_set.role}'; choices: "
            f"{', '.join(ROLES)}"
        )
    if SETS.setdefault(name, question_set) is not question_set:
        raise ValueError(f"a question set '{name}' is registered already")


def read(name: str, data_dir: epath.PathLike | None = None, split: str = "test") -> list[Question]:
    """Reads a set by name.

    Args:
      name: one of `SETS`.
      data_dir: the folder that holds one folder a set; by default what SPECIALIZE_JAX_DATA names.
      split: one of those in the table above.

    Returns:
      Every question, in the order of the file.

    Raises:
      ValueError: unknown name or split; lists the choices.
      FileNotFoundError: the file is not there; names it and says how to give the folder.
      SchemaError: the file is malformed; names the line or item.
    """
    if name not in SETS:
        raise ValueError(
            f"unknown data set '{name}'; choices: {', '.join(SETS)}, and what EVAL_SETS_MODULE "
            "registers"
        )
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not data_dir and SETS[name].needs_data_dir:
        raise FileNotFoundError(
            f"no data folder given for '{name}': pass --data_dir or set {DATA_DIR_VARIABLE}"
        )
    return SETS[name].read(data_dir or "", split)


def gsm8k(data_dir: epath.PathLike, split: str = "test") -> list[Question]:
    """Reads GSM8K; the arguments and errors of all readers are those of `read`."""
    _check_split("gsm8k", split, ("test", "train"))
    path = _file(data_dir, "gsm8k", f"{split}.jsonl")
    questions = []
    for row, source in _json_lines(path, {"question": str, "answer": str}):
        _, mark, gold = source["answer"].rpartition("#### ")
        if not mark or not gold.strip():
            raise SchemaError(f"{path}, line {row + 1}: expected '#### <answer>' at the end")
        id_ = f"gsm8k/{split}/{row}"
        questions.append(Question(id_, source["question"], gold.strip(), row=row, source=source))
    return questions


def svamp(data_dir: epath.PathLike, split: str = "test") -> list[Question]:
    """Reads SVAMP, with one full stop between body and question."""
    _check_split("svamp", split)
    path = _file(data_dir, "svamp", "SVAMP.json")
    fields = {"ID": str, "Body": str, "Question": str, "Answer": (int, float)}
    questions = []
    for row, item in enumerate(_json_list(path)):
        source = _checked(item, fields, f"{path}, item {row}")
        body = source["Body"].strip()
        stop = "" if body.endswith((".", "?", "!", ",")) else "."
        text = f"{body}{stop} {source['Question'].strip()}"
        gold = _number(source["Answer"])
        questions.append(Question(f"svamp/{source['ID']}", text, gold, row=row, source=source))
    return questions


def asdiv(data_dir: epath.PathLike, split: str = "test") -> list[Question]:
    """Reads ASDiv: body, a space, question; the gold answer keeps its unit ("9 (apples)")."""
    _check_split("asdiv", split)
    path = _file(data_dir, "asdiv", "ASDiv.xml")
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise SchemaError(f"{path}, line {error.position[0]}: expected XML: {error}") from error
    questions = []
    for row, problem in enumerate(root.iter("Problem")):
        texts = {child.tag: (child.text or "").strip() for child in problem}
        fields = dict.fromkeys(("ID", "Body", "Question", "Answer"), str)
        source = _checked({**problem.attrib, **texts}, fields, f"{path}, problem {row}")
        text = f"{source['Body']} {source['Question']}"
        questions.append(
            Question(f"asdiv/{source['ID']}", text, source["Answer"], row=row, source=source)
        )
    return questions


def multiarith(data_dir: epath.PathLike, split: str = "test") -> list[Question]:
    """Reads MultiArith from its plain form (`input`, `target`)."""
    _check_split("multiarith", split)
    path = _file(data_dir, "mawps", "mawpsmultiarith.jsonl")
    return [
        Question(
            f"multiarith/{row}", source["input"], _number(source["target"]), row=row, source=source
        )
        for row, source in _json_lines(path, {"input": str, "target": (int, float)})
    ]


SETS: dict[str, QuestionSet] = {
    "gsm8k": QuestionSet(gsm8k, "in_distribution"),
    "svamp": QuestionSet(svamp, "out_of_distribution"),
    "asdiv": QuestionSet(asdiv, "out_of_distribution"),
    "multiarith": QuestionSet(multiarith, "out_of_distribution"),
}


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


def _check_split(name: str, split: str, choices: Sequence[str] = ("test",)) -> None:
    if split not in choices:
        raise ValueError(f"unknown split '{split}' of '{name}'; choices: {', '.join(choices)}")


def _file(data_dir: epath.PathLike, *parts: str) -> epath.Path:
    path = epath.Path(data_dir).joinpath(*parts)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected '{path}'; pass the folder that holds '{'/'.join(parts)}' by --data_dir or "
            f"{DATA_DIR_VARIABLE}"
        )
    return path


def _json_lines(path: epath.Path, fields: Mapping[str, Any]) -> Iterator[tuple[int, dict]]:
    """Yields (row from 0, object) of a JSON-lines file; every line must be one."""
    # Not splitlines: it also splits at U+2028 and its like, which JSON strings may hold.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for row, line in enumerate(lines):
        where = f"{path}, line {row + 1}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise SchemaError(f"{where}: expected one JSON object: {error}") from error
        yield row, _checked(value, fields, where)


def _json_list(path: epath.Path) -> list[Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SchemaError(f"{path}, line {error.lineno}: expected JSON: {error}") from error
    if not isinstance(value, list):
        raise SchemaError(f"{path}: expected a JSON list, got {type(value).__name__}")
    return value


def _checked(value: Any, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a source row after checking that it has the fields, of these types, not empty."""
    if not isinstance(value, dict):
        raise SchemaError(f"{where}: expected an object, got {type(value).__name__}")
    for name, types in fields.items():
        found = value.get(name)
        if not isinstance(found, types) or isinstance(found, bool) or found == "":
            raise SchemaError(f"{where}: expected '{name}', got {found!r}; has {sorted(value)}")
    return value


def _number(value: int | float) -> str:
    """Returns 51.0 as "51" and 2.5 as "2.5"."""
    return str(int(value)) if value == int(value) else str(value)
