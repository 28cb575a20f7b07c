r"""What a server calls a token, and the bytes that it stands for.

Servers name tokens in three ways. The surest counts:

| form   | example                            | bytes                                     |
|--------|------------------------------------|-------------------------------------------|
| id     | `token_id:9288`, `token_ids: [..]` | the teacher's tokenizer knows them        |
| bytes  | `"bytes": [32, 195]`               | as they stand                             |
| string | `" the"`, `bytes: \xc3`            | UTF-8; old servers escape parts of it     |

A string with U+FFFD stands for bytes that were lost, and several tokens may share it; some servers
send its three bytes as `bytes`. Such a name is ambiguous: nothing may be learned from it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from specialize_jax.teacher.importers import token_to_bytes

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_REPLACEMENT = "\ufffd"
_LOST = _REPLACEMENT.encode()

Decode = Callable[[int], bytes]


class NeedsTokenizer(ValueError):
    """A server names tokens by ids, and nobody told which tokenizer they are of."""


class Name(NamedTuple):
    """A token.

    Attributes:
      bytes: what it stands for; None where that is ambiguous.
      id: in the teacher's vocabulary; None where unknown.
    """

    bytes: bytes | None
    id: int | None


def read(
    string: str, raw: Sequence[int] | None, token_id: int | None, decode: Decode | None
) -> Name:
    """Returns the token that a server names.

    Args:
      string: its string.
      raw: its bytes, where given.
      token_id: its id, where given beside the string.
      decode: id -> bytes, by the teacher's tokenizer; None without one.

    Raises:
      NeedsTokenizer: the string is an id and there is no `decode`.
    """
    found = _TOKEN_ID.fullmatch(string)
    if found:
        token_id = int(found[1])
        if decode is None:
            raise NeedsTokenizer(
                f"the server names tokens by ids ('{string}'): give the teacher's tokenizer by "
                "--teacher_tokenizer, or ask the server for strings"
            )
    if token_id is not None and decode is not None:
        return Name(decode(token_id), token_id)
    value = token_to_bytes(string) if raw is None else bytes(raw)
    return Name(None if _REPLACEMENT in string or _LOST in value else value, token_id)


def fill(names: Sequence[Name], text: bytes) -> list[tuple[Name, int]] | None:
    """Gives ambiguous tokens the bytes that the text has in their place.

    One ambiguous token between known ones has bytes that the text tells. Of several in a row only
    their joint bytes are known: they become one token.

    Args:
      names: the tokens of a text.
      text: all of it; tokens may go on behind it (a stop sequence).

    Returns:
      Tokens, and how many of `names` each stands for; None where the text does not tell.
    """
    done: list[tuple[Name, int]] = []
    at = 0  # bytes of the text that are told
    here = 0
    while here < len(names):
        name = names[here]
        if name.bytes is not None:
            done.append((name, 1))
            at += len(name.bytes)
            here += 1
            continue
        run = _run(names, here, known=False)
        following = names[here + run : here + run + _run(names, here + run, known=True)]
        behind = b"".join(other.bytes or b"" for other in following)
        end = text.find(behind, at + run) if behind else len(text)
        if end < at + run:  # each stands for at least one byte
            return None
        done.append((Name(text[at:end], name.id if run == 1 else None), run))
        at, here = end, here + run
    return done


def _run(names: Sequence[Name], start: int, *, known: bool) -> int:
    """Returns how many names from a place on are all known, or all ambiguous."""
    end = start
    while end < len(names) and (names[end].bytes is not None) == known:
        end += 1
    return end - start


def candidates(step: Any, decode: Decode | None) -> tuple[list[tuple[bytes, float]], int]:
    """Reads the candidates of a step, in any of the forms in which servers write them.

    Args:
      step: a dictionary string -> log-probability (completions), a list of objects with `token`,
        `logprob` and perhaps `bytes` (chat), a dictionary id -> object with `logprob` and perhaps
        `decoded_token` (vLLM's `prompt_logprobs`), or None.
      decode: as for `read`.

    Returns:
      (bytes, log-probability) of those whose bytes are known, and how many are not.
    """
    known: list[tuple[bytes, float]] = []
    ambiguous = 0
    for string, raw, token_id, logprob in _entries(step):
        name = read(string, raw, token_id, decode)
        if name.bytes is None:
            ambiguous += 1
        else:
            known.append((name.bytes, min(float(logprob), 0.0)))
    return known, ambiguous


def _entries(step: Any) -> list[tuple[str, Any, int | None, float]]:
    """Returns (string, bytes, id, log-probability) of each candidate."""
    if isinstance(step, Mapping):
        return [
            (str(value.get("decoded_token", f"token_id:{key}")), None, int(key), value["logprob"])
            if isinstance(value, Mapping)
            else (key, None, None, value)
            for key, value in step.items()
        ]
    return [
        (entry["token"], entry.get("bytes"), entry.get("id"), entry["logprob"])
        for entry in step or ()
    ]
