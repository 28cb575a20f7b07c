"""What OpenAI-compatible servers send, read into answers and their steps. Pure.

| form        | where                                                        | servers            |
|-------------|--------------------------------------------------------------|--------------------|
| completions | `logprobs`: `tokens`, `token_logprobs`, `top_logprobs` dicts | OpenAI's old, vLLM |
| chat        | `logprobs.content`: objects with `token`, `bytes`, ...       | OpenAI, llama.cpp  |
| prompt      | `prompt_logprobs`: a dict by id for every token of a prompt  | vLLM, for scoring  |

`answer_tokens` makes of these what is learned.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from specialize_jax.schemas import NO_LOGPROB
from specialize_jax.teacher import names


class BadReply(ValueError):
    """A reply that is no completion; asking again may help."""


class NoScores(ValueError):
    """A reply that says nothing of its prompt's tokens: the server does not score prompts."""


class Step(NamedTuple):
    """A token as a server sent it.

    Attributes:
      name: the token.
      logprob: natural; `NO_LOGPROB` where the server gave none.
      candidates: as sent; see `names.candidates`.
    """

    name: names.Name
    logprob: float
    candidates: Any


class Choice(NamedTuple):
    """An answer.

    Attributes:
      text: what the server says it wrote.
      finish_reason: as sent.
      steps: its tokens; None where the server gave no log-probabilities, empty where those that it
        gave are not those of the text.
    """

    text: str
    finish_reason: str
    steps: list[Step] | None


def choices(body: Any, decode: names.Decode | None = None) -> list[Choice]:
    """Returns the answers of a reply, by their index; of two with one index the first.

    Args:
      body: the parsed reply of `/completions` or `/chat/completions`.
      decode: id -> bytes, by the teacher's tokenizer.

    Raises:
      BadReply: it is no completion, or holds no answer.
      names.NeedsTokenizer: the server names tokens by ids, and there is no `decode`.
    """
    listed = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise BadReply(f"expected an object with 'choices', got {str(body)[:120]}")
    found: dict[int, Choice] = {}
    for number, choice in enumerate(listed):
        try:
            index = choice.get("index")
            found.setdefault(number if index is None else int(index), _choice(choice, decode))
        except names.NeedsTokenizer:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadReply(
                f"expected a completion, got {str(choice)[:120]} ({type(error).__name__}: {error})"
            ) from error
    return [found[index] for index in sorted(found)]


def usage(value: Any) -> tuple[int | None, int | None]:
    """Returns the prompt and completion tokens that a reply says it took; None where it does not.

    Args:
      value: `usage` of the reply, whatever it is.
    """
    told = value if isinstance(value, Mapping) else {}
    found = [told.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (
        int(n) if isinstance(n, int | float) and 0 <= n < math.inf else None for n in found
    )
    return prompt, completion


def _choice(choice: Mapping[str, Any], decode: names.Decode | None) -> Choice:
    message = choice.get("message")
    text = choice["text"] if message is None else message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}")
    logprobs = choice.get("logprobs") or {}
    ids = choice.get("token_ids")
    if logprobs.get("content"):
        found: list[Step] | None = _chat(logprobs["content"], ids, decode)
    elif logprobs.get("tokens"):
        found = _completions(logprobs, ids, decode)
    else:
        found = None
    return Choice(names.sound(text), str(choice.get("finish_reason") or "unknown"), found)


def _chat(
    content: Sequence[Mapping[str, Any]], ids: Sequence[int] | None, decode: names.Decode | None
) -> list[Step]:
    own = [entry.get("id") for entry in content]  # llama.cpp
    same = own if ids is None else _ids(ids, len(content))
    return [
        Step(
            names.read(entry["token"], entry.get("bytes"), token_id, decode),
            _logprob(entry["logprob"]),
            _most_probable(entry) if _agrees(entry, token_id, decode) else None,
        )
        for entry, token_id in zip(content, same, strict=True)
    ]


def _agrees(entry: Mapping[str, Any], token_id: int | None, decode: names.Decode | None) -> bool:
    """Whether the names of a step's candidates can be believed; those with ids always can."""
    listed = entry.get("top_logprobs")
    first = listed[0] if isinstance(listed, list) and listed else None
    has_ids = isinstance(first, Mapping) and first.get("id") is not None
    return has_ids or names.agrees(entry["token"], entry.get("bytes"), token_id, decode)


def _most_probable(entry: Mapping[str, Any]) -> Any:
    """Returns the candidates of a step that are its most probable ones.

    vLLM (0.32) lists the sampled token first and cuts the list behind K. So where it is the least
    probable of them, likelier tokens may be missing.
    """
    listed = entry.get("top_logprobs")
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        return listed or []
    if not listed or listed[0].get("token") != entry["token"]:
        return listed
    return listed[1:] if _least_first([other.get("logprob") for other in listed]) else listed


def _least_first(logprobs: Sequence[Any]) -> bool:
    if len(logprobs) < 2 or not all(isinstance(p, float | int) for p in logprobs):
        return False
    return logprobs[0] < min(logprobs[1:])


def _completions(
    logprobs: Mapping[str, Any], ids: Sequence[int] | None, decode: names.Decode | None
) -> list[Step]:
    tokens = logprobs["tokens"]
    own = logprobs.get("token_logprobs") or [None] * len(tokens)
    top = logprobs.get("top_logprobs") or [None] * len(tokens)
    same = _ids(ids, len(tokens))
    return [
        Step(
            names.read(token, None, token_id, decode),
            _logprob(logprob),
            _likelier(token, candidates)
            if isinstance(candidates, dict)
            and candidates
            and names.agrees(token, None, token_id, decode)
            else None,
        )
        for token, logprob, candidates, token_id in zip(tokens, own, top, same, strict=True)
    ]


def _likelier(token: str, candidates: Mapping[str, float]) -> Mapping[str, float]:
    """Returns the candidates of a step without a sampled token that may be beyond them.

    vLLM lists it first, and further tokens than K if it is none of them. That cannot be counted
    where tokens share a key, as those without a name do.
    """
    if next(iter(candidates)) != token or not _least_first(list(candidates.values())):
        return candidates
    if not any(map(names.is_ambiguous, candidates)):
        return candidates
    return {name: logprob for name, logprob in candidates.items() if name != token}


def _ids(ids: Sequence[int] | None, count: int) -> Sequence[int | None]:
    """Returns an id for every token; those of a server that sends another number are no use."""
    return ids if ids is not None and len(ids) == count else [None] * count


def prompt_steps(body: Any, decode: names.Decode | None = None) -> list[Step]:
    """Returns the tokens of a prompt with vLLM's `prompt_logprobs`.

    Args:
      body: the parsed reply. The first token has no log-probability.
      decode: id -> bytes, by the teacher's tokenizer.

    Raises:
      BadReply: they are of another form.
      NoScores: it holds no `prompt_logprobs`.
      names.NeedsTokenizer: the server names tokens by ids, and there is no `decode`.
    """
    try:
        choice = (body.get("choices") or [{}])[0]
        listed = choice.get("prompt_logprobs") or body.get("prompt_logprobs")
        ids = choice.get("prompt_token_ids") or body.get("prompt_token_ids")
        if listed:
            return _prompt_steps(listed, ids or [None] * len(listed), decode)
    except names.NeedsTokenizer:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadReply(f"expected 'prompt_logprobs' as vLLM sends them ({error!r})") from error
    raise NoScores("the server sends no 'prompt_logprobs': vLLM does; others may by 'echo'")


def _prompt_steps(
    listed: Sequence[Any], ids: Sequence[int | None], decode: names.Decode | None
) -> list[Step]:
    found = []
    for step, token_id in zip(listed, ids, strict=True):
        if not step:
            continue  # the first, before which nothing stands
        # The token that stands there is the first entry, beside the most probable ones.
        key = next(iter(step)) if token_id is None else str(token_id)
        entry = step[key]
        string = str(entry.get("decoded_token", f"token_id:{key}"))
        name = names.read(string, None, int(key), decode)
        found.append(Step(name, _logprob(entry["logprob"]), step))
    return found


def _logprob(value: float | None) -> float:
    return NO_LOGPROB if value is None or not value > NO_LOGPROB else min(float(value), 0.0)
