r"""What a server calls a token, and the bytes that it stands for.

Servers name tokens in three ways. The surest counts:

| form   | example                            | bytes                                     |
|--------|------------------------------------|-------------------------------------------|
| id     | `token_id:9288`, `token_ids: [..]` | the teacher's tokenizer knows them        |
| bytes  | `"bytes": [32, 195]`               | as they stand                             |
| string | `" the"`, `bytes: \xc3`            | UTF-8; old servers escape parts of it     |

A string with U+FFFD stands for bytes that were lost, and several tokens may share it; some servers
send its three bytes as `bytes`. vLLM (0.32) sends an empty string for a token that ends within a
character, and the whole character as the name of the token that completes it; others name so what
writes nothing (padding, end of sequence). Such names are ambiguous: nothing may be learned from
them. By its id the end of a text has a name, as records spell it.
"""

import functools
import heapq
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from specialize_jax import tokenizers
from specialize_jax.teacher.steps import token_to_bytes

END = b"</s>"
"""How records spell the end of a text whose token has no spelling that alignment knows."""

_ID_PREFIX = "token_id:"
_TOKEN_ID = re.compile(rf"{_ID_PREFIX}(\d+)")
_REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOST = _REPLACEMENT.encode()
_LOST_PART = re.compile(f"{_REPLACEMENT}+|[^{_REPLACEMENT}]+")

Decode = Callable[[int], bytes]


class NeedsTokenizer(ValueError):
    """A server names tokens by ids, and nobody told which tokenizer they are of."""


def decoder(tokenizer: tokenizers.Tokenizer) -> Decode:
    """Returns id -> bytes: empty for a token that writes nothing, but for the end of a text.

    Raises:
      NeedsTokenizer: when it is called with an id that the tokenizer lacks.
    """

    @functools.cache
    def decode(token_id: int) -> bytes:
        try:
            if token_id == tokenizer.eos_id:
                spelled = tokenizer.pieces([token_id])[0].encode()
                return spelled if spelled in tokenizers.END_TOKENS else END
            return tokenizer.token_bytes([token_id])[0]
        except (ValueError, LookupError, OverflowError) as error:
            raise NeedsTokenizer(
                f"--teacher_tokenizer '{tokenizer.path}' has no token {token_id}, which the "
                f"server sends: {error}"
            ) from error

    return decode


class Name(NamedTuple):
    """A token.

    Attributes:
      bytes: what it stands for; None where that is ambiguous.
      id: in the teacher's vocabulary; None where unknown.
      string: as sent; of an ambiguous token it tells a part.
    """

    bytes: bytes | None
    id: int | None = None
    string: str = ""


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
    if string.startswith(_ID_PREFIX) and (found := _TOKEN_ID.fullmatch(string)):
        token_id = int(found[1])
        if decode is None:
            raise NeedsTokenizer(
                f"the server names tokens by ids ('{string}'): give the teacher's tokenizer by "
                "--teacher_tokenizer, or ask the server for strings"
            )
    if token_id is not None and decode is not None:
        return Name(decode(token_id), token_id)
    if raw is None:
        return Name(_bytes_of(string), token_id, sound(string))
    return Name(_sure(bytes(raw)), token_id, string)


def agrees(
    string: str, raw: Sequence[int] | None, token_id: int | None, decode: Decode | None
) -> bool:
    """Whether the names of a step can be believed, as far as an id beside its own tells.

    vLLM's string for the end of a character is all of it, and so are those of the candidates. What
    is no text, the end, may be spelled.
    """
    if token_id is None or decode is None or string.startswith(_ID_PREFIX):
        return True
    known = decode(token_id)
    return not known or known == read(string, raw, None, None).bytes


def sound(string: str) -> str:
    """Returns a string with U+FFFD for each lone surrogate, which JSON can spell and UTF-8 not."""
    return _SURROGATE.sub(_REPLACEMENT, string)


@functools.lru_cache(2**17)  # a teacher says few strings, each again and again
def _bytes_of(string: str) -> bytes | None:
    return _sure(token_to_bytes(sound(string)))


def _sure(value: bytes) -> bytes | None:
    """Returns the bytes of a name; None where they do not tell those of the token."""
    return None if not value or _LOST in value else value


def fill(tokens: Sequence[Name], text: bytes) -> list[tuple[Name, int]] | None:
    """Gives ambiguous tokens the bytes that the text has in their place.

    Where the text leaves open which byte belongs to which of several tokens, these become one; and
    so do tokens without a name and the one whose name is all of their bytes.

    Args:
      tokens: of a text; they may go on behind it (a stop sequence).
      text: all of it.

    Returns:
      Tokens, and how many of the given ones each stands for; None where they are not the text.
    """
    if all(token.bytes is not None for token in tokens):
        return [(token, 1) for token in tokens]
    places = _places(tokens, text)
    if places is None:
        return None
    done = []
    start = 0
    for end in range(1, len(places)):
        if len(places[end]) == 1 and places[end] != places[start]:
            (first,), (last,) = places[start], places[end]
            whole = tokens[start].id if end == start + 1 else None
            done.append((Name(text[first:last], whole), end - start))
            start = end
    # A stop behind the text: nothing is learned from its bytes.
    behind = tokens[start:]
    return done + [(Name(token.bytes or b"?", token.id), 1) for token in behind]


def sizes(token: Name) -> tuple[int, int]:
    """Returns how many bytes of a text a token stands for at least and at most."""
    if token.bytes is not None:
        return len(token.bytes), len(token.bytes)
    lost = token.string.count(_REPLACEMENT)
    sure = len(token.string.encode()) - lost * len(_LOST)
    return sure + lost, sure + 3 * max(lost, 1)


def _places(tokens: Sequence[Name], text: bytes) -> list[set[int]] | None:
    """Returns where in a text each token may begin, and where the last one ends, as all fit.

    Only tokens up to the end of the text count. None where no way fits.
    """
    forward: list[set[int]] = [{0}]
    for token in tokens:
        ends = {end for place in forward[-1] for end in _ends(token, text, place)}
        if not ends:
            break
        forward.append(ends)
    while forward and len(text) not in forward[-1]:
        forward.pop()
    if len(forward) < 2:
        return None
    forward[-1] = {len(text)}
    for i in range(len(forward) - 2, -1, -1):
        forward[i] = {p for p in forward[i] if forward[i + 1] & _ends(tokens[i], text, p)}
    return forward


def _ends(token: Name, text: bytes, start: int) -> set[int]:
    """Returns where a token that begins at a place of a text may end."""
    if token.bytes is not None:
        return {start + len(token.bytes)} if text.startswith(token.bytes, start) else set()
    if not token.string:  # its bytes come with a later token, or the text lost them
        lost = 0
        while text.startswith(_LOST, start + 3 * lost):
            lost += 1
        return {start + 3 * count for count in range(lost + 1)}
    ends = {start}
    for part in _LOST_PART.findall(token.string):
        if part[0] != _REPLACEMENT:
            raw = part.encode()
            ends = {end + len(raw) for end in ends if text.startswith(raw, end)}
        else:  # a U+FFFD stands for one to three bytes that are no character by themselves
            reach = {end: _beyond_ascii(text, end, 3 * len(part)) for end in ends}
            ends = {end + size for end in ends for size in range(len(part), reach[end] + 1)}
    return ends


def _beyond_ascii(text: bytes, start: int, most: int) -> int:
    """Returns how many bytes from a place on are beyond ASCII, up to a number."""
    size = 0
    while size < most and start + size < len(text) and text[start + size] >= 0x80:
        size += 1
    return size


def is_ambiguous(string: str) -> bool:
    """Whether a string does not tell the bytes of its token."""
    return not string or _REPLACEMENT in sound(string)


def candidates(
    step: Any,
    decode: Decode | None,
    most: int | None = None,
    *,
    unnamed: bytes | None = None,
) -> tuple[list[tuple[bytes, float]], int]:
    """Reads the candidates of a step, in any of the forms in which servers write them.

    Args:
      step: a dictionary string -> log-probability (completions), a list of objects with `token`,
        `logprob` and perhaps `bytes` (chat), a dictionary id -> object with `logprob` and perhaps
        `decoded_token` (vLLM's `prompt_logprobs`), or None.
      decode: as for `read`.
      most: how many of the most probable ones count; beyond them servers list the sampled token.
      unnamed: what a candidate with an empty name stands for; None where nobody knows.

    Returns:
      (bytes, log-probability) of those whose bytes are known, and how many are not. One without a
      log-probability has -inf.
    """
    known: list[tuple[bytes, float]] = []
    ambiguous = 0
    entries = _entries(step)
    if most is not None and step is not None and len(step) > most:
        entries = iter(heapq.nlargest(most, entries, key=lambda entry: _number(entry[-1])))
    for string, raw, token_id, logprob in entries:
        if raw is None and token_id is None and not string.startswith(_ID_PREFIX):
            value = _bytes_of(string)  # what `read` says; millions of times
        else:
            value = _read_or_none(string, raw, token_id, decode)
        if value == b"" or not string:
            value = value or unnamed
        if value is None:
            ambiguous += 1
        else:
            known.append((value, min(_number(logprob), 0.0)))
    return known, ambiguous


def _number(logprob: Any) -> float:
    return logprob if isinstance(logprob, float | int) else -math.inf


def _read_or_none(string: str, raw: Any, token_id: Any, decode: Decode | None) -> bytes | None:
    """Returns the bytes that `read` finds; None of a name that is none."""
    try:
        return read(string, raw, token_id, decode).bytes
    except NeedsTokenizer:
        raise
    except (TypeError, ValueError):
        return None


def _entries(step: Any) -> Iterator[tuple[str, Any, int | None, Any]]:
    """Yields (string, bytes, id, log-probability) of each candidate.

    Replies are kept as they came, so what is no candidate must not stop those who read them.
    """
    if not isinstance(step, dict):
        for entry in step if isinstance(step, list) else ():
            if isinstance(entry, dict):
                string = str(entry.get("token", _REPLACEMENT))
                yield string, entry.get("bytes"), entry.get("id"), entry.get("logprob")
        return
    for key, value in step.items():
        if isinstance(value, dict):
            string = str(value.get("decoded_token", f"{_ID_PREFIX}{key}"))
            yield string, None, int(key) if key.isdecimal() else None, value.get("logprob")
        else:
            yield key, None, None, value
