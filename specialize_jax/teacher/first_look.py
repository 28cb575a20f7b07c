"""What one reply tells of a server, before more is spent on it."""

import json
import math
from collections.abc import Mapping, Sequence

from specialize_jax.teacher import answer_tokens, names, wire
from specialize_jax.teacher.client import Client, Refused
from specialize_jax.teacher.collect import Question
from specialize_jax.teacher.sampling import Sampling

_SAME = 0.03  # nats: by so much the same distribution may differ between two requests


def check(
    choices: Sequence[wire.Choice], *, top_logprobs: int, decode: names.Decode | None
) -> str | None:
    """Checks that a server sends what is collected.

    Args:
      choices: of the first reply.
      top_logprobs: candidates that were asked for.
      decode: id -> bytes, by the teacher's tokenizer.

    Returns:
      What a person should know: it sends fewer candidates than asked. None for nothing. Empty
      answers tell nothing.

    Raises:
      Refused: it sends no log-probabilities, or tokens that are not its text.
    """
    choices = [choice for choice in choices if choice.text.strip()]
    if not (top_logprobs and choices):
        return None
    if all(choice.steps is None for choice in choices):
        raise Refused(
            "the server sends no log-probabilities (asked for the "
            f"{top_logprobs} most probable tokens of every step): let it send them, try the other "
            "--api, or collect text alone by --top_logprobs 0"
        )
    read = [answer_tokens.tokens(choice, most=top_logprobs, decode=decode) for choice in choices]
    _check_text(choices, read)
    found = [tokens for tokens in read if tokens is not None]
    # The step behind an answer is one of it: the answer may be empty.
    most = max(len(step) for tokens in found for step in [*tokens.topk, tokens.terminal or ()])
    if most == 0:
        raise Refused(
            f"the server sends no candidates: --top_logprobs {top_logprobs} is perhaps above its "
            "limit; collect text alone by --top_logprobs 0"
        )
    if most < top_logprobs:
        return f"asked for {top_logprobs} candidates of every step, the server sends {most} at most"
    return None


def _check_text(
    choices: Sequence[wire.Choice], read: Sequence[answer_tokens.Tokens | None]
) -> None:
    """Checks that tokens are the text.

    One answer that fails is enough, if all of its tokens have names and its text lost nothing:
    where spaces are lost, an answer of one word looks well, and its candidates are wrong.
    """
    both = zip(choices, read, strict=True)
    failed = [choice for choice, tokens in both if tokens is None and choice.steps]
    named = [c for c in failed if all(step.name.bytes for step in c.steps or ())]
    sure = [choice for choice in named if "\ufffd" not in choice.text]
    if not sure and any(tokens is not None for tokens in read):
        return
    shown = (sure or failed or choices)[0]
    raise Refused(
        "the server's tokens are not its text: "
        f"{[step.name.bytes for step in (shown.steps or [])[:6]]} for {shown.text[:40]!r}; ask for "
        """ids by --extra_body '{"return_tokens_as_token_ids": true}' with --teacher_tokenizer, """
        "or collect text alone by --top_logprobs 0"
    )


async def temperature_of_logprobs(
    client: Client, sampling: Sampling, question: Question, prompt: str, decode: names.Decode | None
) -> tuple[float | None, tuple[int, int]]:
    """Finds out whether log-probabilities are before or after the temperature.

    Two requests of one token each, at temperatures 1 and 0.5: equal log-probabilities are before
    it; differences between candidates that double are after it.

    Returns:
      The temperature that the log-probabilities of the samples include: 1.0, that of the samples,
      or None where it cannot be told; and the (prompt, completion) tokens that it took.
    """
    told = []
    tokens = [0, 0]
    for temperature in (1.0, 0.5):
        short = {"temperature": temperature, "max_tokens": 1, "n": 1}
        payload = {**sampling.payload(question, prompt, (0,)), **short}
        body, choices = await client.ask(
            sampling.path, payload, lambda value: wire.choices(value, decode), lambda _: None
        )
        step = choices[0].steps[0] if choices[0].steps else None
        told.append(names.candidates(step.candidates if step else None, decode)[0])
        used = wire.usage(json.loads(body).get("usage"))
        tokens[0] += used[0] or 0
        tokens[1] += used[1] or 1
    included = _included(dict(told[0]), dict(told[1]))
    by_word = {"before": 1.0, "after": sampling.temperature}
    return by_word.get(included or ""), (tokens[0], tokens[1])


def _included(at_one: Mapping[bytes, float], at_half: Mapping[bytes, float]) -> str | None:
    """Returns "before" or "after", from the candidates of one step at two temperatures."""
    both = [name for name in at_one if at_half.get(name, -math.inf) > -100 < at_one[name]]
    if len(both) < 2:
        return None
    differences = [(at_one[both[0]] - at_one[n], at_half[both[0]] - at_half[n]) for n in both[1:]]
    if max(abs(one) for one, _ in differences) < 4 * _SAME:
        return None  # so even that doubling could not be seen
    if all(abs(half - one) < _SAME for one, half in differences):
        return "before"
    if all(abs(half - 2 * one) < 2 * _SAME for one, half in differences):
        return "after"
    return None
