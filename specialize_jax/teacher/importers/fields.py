"""Which fields of a row hold a question, its chain and its answer; nothing is guessed.

| form                | question                 | chain                                      |
|---------------------|--------------------------|--------------------------------------------|
| `completion`        | `question`               | `completion`                               |
| `prompt_completion` | `prompt`                 | `completion`                               |
| `messages`          | `messages`: the user's   | `messages`: the assistant's                |
| `rationale`         | `question`               | `rationale`, then "The answer is" `answer` |
| `instruction`       | `instruction`, `input`   | `output`                                   |
| `gsm8k`             | `question`               | `answer`, with a last line `#### 18`       |

A form names some of `ROLES`; `--field ROLE=NAME` names others, or the same otherwise. A name with
dots, as `175b.solution`, is a field of an inner object, where no field of that very name is there.
Only `gsm8k` names a gold answer (its own last line); elsewhere one is read where a field, or a file
of questions, is named for it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from specialize_jax.schemas import SchemaError
from specialize_jax.teacher.importers import gold

_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt", "model")


@dataclasses.dataclass(frozen=True)
class Fields:
    """The names of the fields by their role; None where a role is not there.

    Attributes:
      question: text, or a chat list with the user's message.
      input: text that stands below the question, if it is not blank.
      chain: text, a chat list with the assistant's message, or a list of texts: several chains.
      final: the final answer that the chain comes to, where the chain does not say it.
      solution: instead of a chain, a worked solution in GSM8K's form.
      messages: instead of question and chain, a chat list of both.
      gold: the right answer.
      id: of the question; without it, equal texts are one question.
      kind: of the answer.
      role: of a message.
      content: of a message.
    """

    question: str | None = None
    input: str | None = None
    chain: str | None = None
    final: str | None = None
    solution: str | None = None
    messages: str | None = None
    gold: str | None = None
    id: str | None = None
    kind: str | None = None
    role: str = "role"
    content: str = "content"


ROLES = tuple(field.name for field in dataclasses.fields(Fields))
FORMS = {
    "completion": Fields(question="question", chain="completion"),
    "prompt_completion": Fields(question="prompt", chain="completion"),
    "messages": Fields(messages="messages"),
    "rationale": Fields(question="question", chain="rationale", final="answer"),
    "instruction": Fields(question="instruction", input="input", chain="output"),
    "gsm8k": Fields(question="question", solution="answer", gold="answer"),
}


def named(form: str | None, pairs: Iterable[str], *, has_questions: bool = False) -> Fields:
    """Returns the fields of a form, or of none, with others in their place.

    Args:
      form: of `FORMS`; None for what `pairs` name alone.
      pairs: `ROLE=NAME` each; `ROLE=` takes a role away.
      has_questions: whether questions come from a file of their own.

    Raises:
      ValueError: an unknown form or role, or the roles do not make a question and a chain.
    """
    if form is not None and form not in FORMS:
        raise ValueError(f"--form: unknown '{form}'; choices: {', '.join(FORMS)}")
    found = dataclasses.asdict(FORMS[form] if form else Fields())
    for pair in pairs:
        role, mark, name = pair.partition("=")
        if not mark or role not in ROLES:
            raise ValueError(
                f"--field: expected ROLE=NAME with a role of {', '.join(ROLES)}, got '{pair}'"
            )
        found[role] = name or None
    fields = Fields(**found)
    chains = [n for n in ("chain", "solution", "messages") if getattr(fields, n) is not None]
    asked = [n for n in ("question", "messages") if getattr(fields, n) is not None]
    by_id = has_questions and fields.id is not None
    if len(chains) != 1 or not (len(asked) == 1 or (by_id and not asked)):
        raise ValueError(
            "expected fields that give one question (question, messages, or id with --questions) "
            f"and one chain (chain, solution or messages), got {chains + asked or 'none'}: name a "
            f"--form ({', '.join(FORMS)}) or each --field ROLE=NAME"
        )
    if fields.final is not None and fields.chain is None:
        raise ValueError("--field final=NAME: goes with a field 'chain' only")
    if fields.role is None or fields.content is None:
        raise ValueError("--field: 'role' and 'content' of a message need names")
    return fields


def get(row: Mapping[str, Any], name: str) -> Any:
    """Returns a field, of an inner object where its name has dots; None where it is not there."""
    if name in row:
        return row[name]
    outer, dot, rest = name.partition(".")
    inner = row.get(outer)
    return get(inner, rest) if dot and isinstance(inner, Mapping) else None


def question(row: Mapping[str, Any], fields: Fields, where: str) -> tuple[str, str]:
    """Returns the text of a row's question, and the system's message before it, or "".

    Raises:
      SchemaError: there is none, or no single one.
    """
    name = fields.messages or fields.question or ""
    value = get(row, name)
    if isinstance(value, list):
        return _asked(value, fields, f"{where}: '{name}'", alone=fields.messages is None)
    text = _text(row, name, where)
    below = get(row, fields.input) if fields.input else None
    if below is not None and not isinstance(below, str):
        raise SchemaError(f"{where}: expected a text '{fields.input}', got {below!r:.80}")
    return (f"{text}\n{below}" if below and below.strip() else text), ""


def chains(
    row: Mapping[str, Any], fields: Fields, where: str, *, mark: str = gold.MARK
) -> list[str]:
    """Returns the chains of a row, each with its answer.

    Args:
      row: the row.
      fields: where they are.
      where: named in errors.
      mark: of the last line of a worked solution.

    Raises:
      SchemaError: there is none.
    """
    if fields.solution is not None:
        text = _text(row, fields.solution, where)
        # A model's solution may come to no answer; a gold answer must.
        if mark not in text and fields.gold not in (None, fields.solution):
            return [gold.without_marks(text)]
        return [gold.with_answer(*gold.gsm8k_parts(text, where, mark))]
    name = fields.messages or fields.chain or ""
    value = get(row, name)
    listed = isinstance(value, list) and bool(value)
    if listed and all(isinstance(one, str) for one in value):
        found = list(value)
    elif listed:
        found = [_answered(value, fields, f"{where}: '{name}'", alone=fields.messages is None)]
    else:
        found = [_text(row, name, where)]
    if fields.final is None:
        return found
    final = get(row, fields.final)
    if not isinstance(final, str | int | float) or not str(final).strip():
        raise SchemaError(f"{where}: expected a final answer '{fields.final}', {_got(row, final)}")
    return [gold.with_answer(chain, str(final).strip()) for chain in found]


def kind(row: Mapping[str, Any], fields: Fields, default: str, where: str) -> str:
    """Returns the kind of a row's answer.

    Raises:
      SchemaError: it is unknown.
    """
    return gold.check_kind(default if fields.kind is None else get(row, fields.kind), where)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = get(row, name)
    if not isinstance(value, str) or not value.strip():
        raise SchemaError(f"{where}: expected a string '{name}', {_got(row, value)}")
    return value


def _got(row: Mapping[str, Any], value: Any) -> str:
    return f"got only {sorted(row)}" if value is None else f"got {value!r:.80}"


def _asked(listed: list[Any], fields: Fields, where: str, *, alone: bool) -> tuple[str, str]:
    turns = _turns(listed, fields, where)
    expected = ["user"] if alone else ["user", "assistant"]
    system = [text for role, text in turns if role == "system"]
    _check_turns(turns, expected, where)
    return next(text for role, text in turns if role == "user"), "\n".join(system)


def _answered(listed: list[Any], fields: Fields, where: str, *, alone: bool) -> str:
    turns = _turns(listed, fields, where)
    _check_turns(turns, ["assistant"] if alone else ["user", "assistant"], where)
    return turns[-1][1]


def _check_turns(turns: list[tuple[str, str]], expected: list[str], where: str) -> None:
    roles = [role for role, _ in turns]
    while roles and roles[0] == "system":
        roles.pop(0)
    if roles != expected:
        raise SchemaError(
            f"{where}: expected one message of each of {', '.join(expected)}, in this order (and "
            f"perhaps system before them), got {[role for role, _ in turns]}"
        )


def _turns(listed: list[Any], fields: Fields, where: str) -> list[tuple[str, str]]:
    """Returns (role, text) of messages, the roles by the names that we use."""
    found = []
    for message in listed:
        if not isinstance(message, Mapping):
            raise SchemaError(f"{where}: expected messages, got {message!r:.80}")
        role, content = message.get(fields.role), message.get(fields.content)
        if isinstance(content, list):  # parts, of which we know those of text
            content = "".join(_part(part, where) for part in content)
        if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
            raise SchemaError(
                f"{where}: expected messages with texts '{fields.role}' and '{fields.content}', "
                f"got {message!r:.80}"
            )
        same = {**dict.fromkeys(_USER, "user"), **dict.fromkeys(_ASSISTANT, "assistant")}
        found.append((same.get(role, role), content))
    return found


def _part(part: Any, where: str) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise SchemaError(f"{where}: expected parts of text in a message, got {part!r:.80}")
    return part["text"]
