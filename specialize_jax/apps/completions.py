"""The form in which OpenAI-compatible servers are asked, and answer. Pure functions.

Read: `prompt` (text, or a list of texts) or `messages`, `n`, `max_tokens`, `temperature`, `top_p`,
`top_k`, `seed`, `stop`, `logprobs` (a number; in chat `logprobs: true` and `top_logprobs`), and
vLLM's `return_tokens_as_token_ids`. What would change an answer and is not known here is refused.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from specialize_jax import tokenizers

# Fields that say nothing where they have this value; another one is refused.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False, None),
    "echo": (False, None),
    "suffix": ("", None),
    "best_of": (1, None),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "repetition_penalty": (1, None),
    "min_p": (0, None),
    "min_tokens": (0, None),
    "ignore_eos": (False, None),
    "stop_token_ids": ([], None),
    "prompt_logprobs": (None,),
    "tools": ([], None),
    "response_format": ({"type": "text"}, None),
}


class BadRequest(ValueError):
    """A request that cannot be served; the message goes to the client."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes:
      prompts: what to answer.
      is_chat: whether it came, and is answered, as a chat.
      n: answers to each prompt.
      max_tokens: of an answer.
      temperature: 0 for the most likely tokens.
      top_p: share of the probability that may be drawn.
      top_k: tokens that may be drawn; None for all.
      seed: of the draws; None where the client gives none.
      stop: texts that end an answer.
      logprobs: candidates listed at every step; None where none are asked for.
      as_ids: whether tokens are named `token_id:N`.
    """

    prompts: tuple[str, ...]
    is_chat: bool
    n: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int | None
    seed: int | None
    stop: tuple[str, ...]
    logprobs: int | None
    as_ids: bool


class Completion(NamedTuple):
    """An answer in tokens, with what the model says of them.

    Attributes:
      ids: [S], the end-of-sequence token included where it was written.
      logprobs: [S]; empty where nobody asked.
      topk_ids: [S][K].
      topk_logprobs: [S][K].
    """

    ids: Sequence[int]
    logprobs: Sequence[float] = ()
    topk_ids: Sequence[Sequence[int]] = ()
    topk_logprobs: Sequence[Sequence[float]] = ()


def parse(body: Any, *, is_chat: bool, max_tokens: int, max_logprobs: int, max_n: int) -> Request:
    """Reads the body of a request.

    Args:
      body: parsed JSON.
      is_chat: whether it came to `/chat/completions`.
      max_tokens: of an answer at most, and by default.
      max_logprobs: candidates that may be asked for.
      max_n: answers that may be asked for.

    Raises:
      BadRequest: a field is missing, out of range, or asks for what is not offered.
    """
    if not isinstance(body, Mapping):
        raise BadRequest(f"expected a JSON object, got {type(body).__name__}")
    for name, neutral in _NEUTRAL.items():
        if body.get(name) not in neutral:
            raise BadRequest(f"'{name}' is not offered; leave it out")
    field = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    top_k = body.get("top_k")
    return Request(
        prompts=_unicode(_messages(body) if is_chat else _prompts(body)),
        is_chat=is_chat,
        n=_number(body, "n", 1, 1, max_n),
        max_tokens=_number(body, field, max_tokens, 1, max_tokens),
        temperature=_number(body, "temperature", 1.0, 0, 100),
        top_p=_number(body, "top_p", 1.0, 1e-6, 1),
        top_k=None if top_k in (None, -1, 0) else _number(body, "top_k", 1, 1, 1 << 30),
        seed=None if body.get("seed") is None else _number(body, "seed", 0, -(1 << 63), 1 << 63),
        stop=_stop(body.get("stop")),
        logprobs=_logprobs(body, is_chat, max_logprobs),
        as_ids=bool(body.get("return_tokens_as_token_ids")),
    )


def _prompts(body: Mapping[str, Any]) -> tuple[str, ...]:
    prompt = body.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise BadRequest(f"expected 'prompt', a text or a list of texts, got {prompt!r:.80}")
    return tuple(prompts)


def _messages(body: Mapping[str, Any]) -> tuple[str, ...]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest(f"expected 'messages', a list, got {messages!r:.80}")
    texts = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str):
            raise BadRequest(f"expected messages with a text as 'content', got {message!r:.80}")
        texts.append(content)
    # Students know no roles: what was said is one text.
    return ("\n\n".join(texts),)


def _unicode(prompts: tuple[str, ...]) -> tuple[str, ...]:
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise BadRequest(f"expected a prompt that is Unicode: {error}") from error
    return prompts


def _number(body: Mapping[str, Any], name: str, default: Any, least: float, most: float) -> Any:
    value = body.get(name)
    if value is None:
        return default
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not (is_whole or (isinstance(value, float) and isinstance(default, float))):
        raise BadRequest(f"'{name}': expected a number, got {value!r:.80}")
    if not least <= value <= most:
        raise BadRequest(f"'{name}': expected {least} to {most}, got {value}")
    return type(default)(value)


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise BadRequest(f"'stop': expected a text or a list of texts, got {value!r:.80}")
    return tuple(stops)


def _logprobs(body: Mapping[str, Any], is_chat: bool, most: int) -> int | None:
    if not is_chat:
        return None if body.get("logprobs") is None else _number(body, "logprobs", 0, 0, most)
    if not body.get("logprobs"):
        return None
    return _number(body, "top_logprobs", 0, 0, most)


def choice(
    request: Request, completion: Completion, tokenizer: tokenizers.Tokenizer, index: int
) -> tuple[dict[str, Any], int]:
    """Returns an answer as a client reads it, and how many tokens it counts.

    Tokens reach up to what ended the answer: the end-of-sequence token is listed, as a stop is.
    """
    ids = list(completion.ids[: request.max_tokens])
    ended = bool(ids) and ids[-1] == tokenizer.eos_id
    text, stopped = tokenizer.decode(ids), False
    if found := [at for stop in request.stop if (at := text.find(stop)) >= 0]:
        text, stopped = text[: min(found)], True
        while len(ids) > 1 and any(stop in tokenizer.decode(ids[:-1]) for stop in request.stop):
            ids.pop()
    answer: dict[str, Any] = {
        "index": index,
        "finish_reason": "stop" if ended or stopped else "length",
        "logprobs": None,
    }
    if request.logprobs is not None:
        names = _Names(tokenizer, request.as_ids)
        listed = _chat if request.is_chat else _completions
        answer["logprobs"] = listed(names, ids, completion, request.logprobs)
    if request.is_chat:
        answer["message"] = {"role": "assistant", "content": text}
    else:
        answer["text"] = text
    return answer, len(ids)


class _Names:
    """How tokens are called."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, as_ids: bool):
        self._tokenizer, self._as_ids = tokenizer, as_ids

    def bytes(self, token_id: int) -> bytes:
        if token_id == self._tokenizer.eos_id:  # it writes nothing, but has a name
            return self._tokenizer.pieces([token_id])[0].encode()
        return self._tokenizer.token_bytes([token_id])[0]

    def string(self, token_id: int) -> str:
        if self._as_ids:
            return f"token_id:{token_id}"
        return self.bytes(token_id).decode(errors="replace")


def _completions(
    names: _Names, ids: Sequence[int], completion: Completion, count: int
) -> dict[str, Any]:
    steps = zip(ids, completion.topk_ids, completion.topk_logprobs, strict=False)
    return {
        "tokens": [names.string(token) for token in ids],
        "token_logprobs": list(completion.logprobs[: len(ids)]),
        "top_logprobs": [
            {names.string(c): logprob for c, logprob in zip(top[:count], best, strict=False)}
            for _, top, best in steps
        ],
    }


def _chat(names: _Names, ids: Sequence[int], completion: Completion, count: int) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = names.bytes(token)
        return {"token": names.string(token), "logprob": logprob, "bytes": list(raw)}

    steps = zip(
        ids, completion.logprobs, completion.topk_ids, completion.topk_logprobs, strict=False
    )
    return {
        "content": [
            {
                **entry(token, logprob),
                "top_logprobs": [entry(*c) for c in zip(top[:count], best, strict=False)],
            }
            for token, logprob, top, best in steps
        ]
    }


def reply(
    request: Request, choices: Sequence[dict[str, Any]], usage: tuple[int, int], **about: Any
) -> dict[str, Any]:
    """Returns the body of a reply.

    Args:
      request: what was asked.
      choices: of `choice`.
      usage: tokens of the prompts and of the answers.
      **about: `id`, `created` and `model`.
    """
    prompt, completion = usage
    return {
        "object": "chat.completion" if request.is_chat else "text_completion",
        **about,
        "choices": list(choices),
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }
