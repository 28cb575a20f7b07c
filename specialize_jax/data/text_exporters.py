"""Teacher records as text in the field names of other trainers.

| trainer | form                | as text                          | as chat                 |
|---------|---------------------|----------------------------------|-------------------------|
| TRL     | `prompt_completion` | `prompt`, `completion`           | the same, of messages   |
| TRL     | `messages`          |                                  | `messages`              |
| TRL     | `preference`        | `prompt`, `chosen`, `rejected`   | the same, of messages   |
| axolotl | `messages`          |                                  | `messages`              |
| axolotl | `alpaca`            | `instruction`, `input`, `output` |                         |
| axolotl | `preference`        | `prompt`, `chosen`, `rejected`   | `messages`, the same    |

TRL (read at commit f2cd577): SFTTrainer takes `prompt_completion` and `messages`, DPOTrainer
`preference` (https://huggingface.co/docs/trl/dataset_formats); GKDTrainer and GOLDTrainer take
`messages` (https://huggingface.co/docs/trl/gkd_trainer, https://huggingface.co/docs/trl/gold_trainer).
It writes a completion right behind its prompt, so that a text one begins with the newline that
stands between them; a chat template brings its own.

axolotl (read at commit 067b021): `messages` is its `type: chat_template`
(https://docs.axolotl.ai/docs/dataset-formats/conversation.html), `alpaca` its `type: alpaca`
(https://docs.axolotl.ai/docs/dataset-formats/inst_tune.html), `preference` with `rl: dpo` its
`type: chatml.prompt_pairs` or `llama3.prompt_pairs`, as chat `type: chat_template.default`, whose
`chosen` and `rejected` are one message each (https://docs.axolotl.ai/docs/rlhf.html).
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from specialize_jax.data import formats
from specialize_jax.schemas import Format, records

PROMPTS = ("step_by_step", "question")
"""How a question is put: as our zero-shot chain-of-thought format does, or as it stands."""
PREFERENCE = "preference"

_TEXT = pa.string()
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_CHAT = pa.list_(_MESSAGE)


class Form(NamedTuple):
    """A form of another trainer.

    Attributes:
      schema: of the file.
      row: (prompt, chain, rejected chain or "") -> its fields.
    """

    schema: pa.Schema
    row: Callable[[str, str, str], dict[str, Any]]


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema(list(types.items()))


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


_MESSAGES = Form(
    _schema(messages=_CHAT),
    lambda prompt, chain, _: {"messages": [_user(prompt), _assistant(chain)]},
)
# (trainer, form, whether as chat) -> what is written
FORMS: dict[tuple[str, str, bool], Form] = {
    ("trl", "prompt_completion", False): Form(
        _schema(prompt=_TEXT, completion=_TEXT),
        lambda prompt, chain, _: {"prompt": prompt, "completion": f"\n{chain}"},
    ),
    ("trl", "prompt_completion", True): Form(
        _schema(prompt=_CHAT, completion=_CHAT),
        lambda prompt, chain, _: {"prompt": [_user(prompt)], "completion": [_assistant(chain)]},
    ),
    ("trl", "messages", True): _MESSAGES,
    ("trl", PREFERENCE, False): Form(
        _schema(prompt=_TEXT, chosen=_TEXT, rejected=_TEXT),
        lambda prompt, chain, wrong: {
            "prompt": prompt,
            "chosen": f"\n{chain}",
            "rejected": f"\n{wrong}",
        },
    ),
    ("trl", PREFERENCE, True): Form(
        _schema(prompt=_CHAT, chosen=_CHAT, rejected=_CHAT),
        lambda prompt, chain, wrong: {
            "prompt": [_user(prompt)],
            "chosen": [_assistant(chain)],
            "rejected": [_assistant(wrong)],
        },
    ),
    ("axolotl", "messages", True): _MESSAGES,
    ("axolotl", "alpaca", False): Form(
        _schema(instruction=_TEXT, input=_TEXT, output=_TEXT),
        lambda prompt, chain, _: {"instruction": prompt, "input": "", "output": chain},
    ),
    ("axolotl", PREFERENCE, False): Form(
        _schema(prompt=_TEXT, chosen=_TEXT, rejected=_TEXT),
        lambda prompt, chain, wrong: {"prompt": prompt, "chosen": chain, "rejected": wrong},
    ),
    ("axolotl", PREFERENCE, True): Form(
        _schema(messages=_CHAT, chosen=_MESSAGE, rejected=_MESSAGE),
        lambda prompt, chain, wrong: {
            "messages": [_user(prompt)],
            "chosen": _assistant(chain),
            "rejected": _assistant(wrong),
        },
    ),
}


def find(trainer: str, form: str, *, chat: bool) -> Form:
    """Returns a form; one that is always of messages does not need `chat`.

    Raises:
      ValueError: the trainer has no such form; lists those that it has.
    """
    for as_chat in (chat, True):
        if (trainer, form, as_chat) in FORMS:
            return FORMS[trainer, form, as_chat]
    have = [name for to, name, as_chat in FORMS if to == trainer and (as_chat or not chat)]
    raise ValueError(
        f"--form: '{trainer}' has no text form '{form}'{' with --chat' if chat else ''}; choices: "
        f"{', '.join(dict.fromkeys(have))}"
    )


def put(question: str, prompt: str) -> str:
    """Returns how a question is put.

    Raises:
      ValueError: `prompt` is none of `PROMPTS`.
    """
    if prompt not in PROMPTS:
        raise ValueError(f"--prompt: expected one of {', '.join(PROMPTS)}, got {prompt!r}")
    if prompt == "question":
        return question
    return formats.render_inputs(Format.ZERO_SHOT_CHAIN_OF_THOUGHT, question)


def chains(rows: Iterable[Mapping[str, Any]], form: Form, prompt: str) -> Iterator[dict[str, Any]]:
    """Yields the fields of every record.

    Args:
      rows: of `schemas.records`.
      form: what is written.
      prompt: of `PROMPTS`.
    """
    for row in rows:
        yield form.row(put(row["question"], prompt), records.target_text(dict(row)), "")


class Pair(NamedTuple):
    """A right chain and a wrong one of a question."""

    question: str
    chosen: str
    rejected: str


def pairs(rows: Iterable[Mapping[str, Any]]) -> Iterator[Pair]:
    """Yields pairs of chains: of a question the first right with the first wrong, and so on.

    No chain stands in two pairs, so that a question with one wrong chain is not learned from many
    times over; what has no partner, or no verdict, is left out.

    >>> row = {"question": "1+1?", "token_bytes": [], "example_id": "a"}
    >>> told = [("2", True), ("3", False), ("II", True), ("?", None)]
    >>> [(p.chosen, p.rejected) for p in pairs(
    ...     {**row, "completion": text, "is_correct": right} for text, right in told)]
    [('2', '3')]

    Args:
      rows: of `schemas.records`, right and wrong ones in any order.
    """
    right: dict[str, list[str]] = collections.defaultdict(list)
    wrong: dict[str, list[str]] = collections.defaultdict(list)
    questions: dict[str, str] = {}
    for row in rows:
        if row["is_correct"] is not None:
            questions[row["example_id"]] = row["question"]
            of_kind = right if row["is_correct"] else wrong
            of_kind[row["example_id"]].append(records.target_text(dict(row)))
    for id_, question in questions.items():
        # The shorter list ends it.
        for chosen, rejected in zip(right[id_], wrong[id_], strict=False):
            yield Pair(question, chosen, rejected)
