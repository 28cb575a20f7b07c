"""A student of our own as the teacher of `collect`: it answers in this process, without a port.

It stands where `teacher.client.Client` stands, and speaks the same form; so journal, budget,
filters and records are those of a server. What it answers does not hang on which requests come
together: requests are put into groups before the first is asked, and a group is always decoded as
a whole, from empty slots. So an interrupted run gives the bytes that a whole one gives; it costs
the group that was under way.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from specialize_jax.apps import completions, serving, student
from specialize_jax.schemas import folders
from specialize_jax.teacher import asking, sampling
from specialize_jax.teacher.client import Read, Refused

# Answers of a group, by the slots: the last of a group leave slots empty.
_ROUNDS = 8


class Local(NamedTuple):
    """A checkpoint as a teacher, before its parameters are read.

    Attributes:
      student: whose it is.
      step: of the checkpoint.
    """

    student: student.Student
    step: int

    @property
    def path(self) -> str:
        """Where the checkpoint lies."""
        return str(self.student.checkpoints / str(self.step))

    @property
    def settings(self) -> dict[str, Any]:
        """What its answers depend on: the checkpoint's content, by its list of hashes."""
        folder = self.student.checkpoints / str(self.step)
        # Checkpoints in buckets, and those of a run that was killed, have no manifest.
        found = [folder / name for name in ("manifest.json", "_CHECKPOINT_METADATA")]
        there = [path for path in found if path.exists()]
        if not there:
            raise ValueError(f"no checkpoint in '{folder}'")
        return {"step": self.step, "checkpoint": folders.sha256(there[0])}


class _Asked(NamedTuple):
    """A request, and the tokens of an answer that it wants scored, if any."""

    request: completions.Request
    prompt_tokens: int
    scored: list[int] | None


class LocalClient:
    """Answers the requests of `collect`; as `teacher.client.Client`.

    Args:
      decoder: the student.
      url: what it is called in messages.
      model: its name in replies.
      how: what is asked.
      jobs: every request that may come.

    Attributes:
      retries: none.

    Raises:
      Refused: a request cannot be answered: a prompt or an answer is too long.
    """

    def __init__(
        self,
        decoder: serving.Decoder,
        url: str,
        model: str,
        how: sampling.Asking,
        jobs: Iterable[asking.Job],
    ):
        self.url, self.retries = url, dict[str, int]()
        self._decoder, self._model = decoder, model
        self._is_chat = how.path == sampling.APIS["chat"]
        self._groups: list[dict[str, _Asked]] = []
        self._group_of: dict[str, int] = {}
        # Requests for as many answers are decoded together.
        filled: dict[int, int] = {}
        for job in jobs:
            payload = how.payload(job.question, job.prompt, job.samples)
            try:
                asked = self._asked(payload)
            except completions.BadRequest as error:
                raise Refused(f"{url}: question '{job.question.id}': {error}") from error
            size = len(job.samples)
            number = filled.get(size)
            if number is None or len(self._groups[number]) * size >= _ROUNDS * decoder.batch_size:
                number = filled[size] = len(self._groups)
                self._groups.append({})
            self._groups[number][_key(payload)] = asked
            self._group_of[_key(payload)] = number
        # Requests come in order: a group is used up when the next but one is asked for.
        self._replies = functools.lru_cache(2 * max(len(filled), 1))(self._decode)

    async def ask(
        self,
        path: str,
        payload: Mapping[str, Any],
        read: Callable[[Any], Read],
        lost: Callable[[str], None],
    ) -> tuple[str, Read]:
        """Returns the body of the reply, and what `read` makes of it; see `Client.ask`.

        It does not wait for anything: while a group is decoded there is nothing else to do.
        """
        key = _key(payload)
        body = self._replies(self._group_of[key])[key]
        return body, read(json.loads(body))

    async def models(self) -> list[str]:
        """Returns the name of the only model."""
        return [self._model]

    async def close(self) -> None:
        """Does nothing."""

    def _asked(self, payload: Mapping[str, Any]) -> _Asked:
        request = completions.parse(
            {**payload, "return_tokens_as_token_ids": True},
            is_chat=self._is_chat,
            max_tokens=self._decoder.max_length,
            max_logprobs=self._decoder.max_logprobs,
            max_n=payload.get("n", 1),
        )
        tokens = self._decoder.prompt_tokens(request)
        if (text := payload.get("completion")) is None:
            return _Asked(request, tokens, None)
        tokenizer = self._decoder.tokenizer
        scored = [*tokenizer.encode(text), tokenizer.eos_id]
        if len(scored) > self._decoder.max_length:
            raise completions.BadRequest(
                f"an answer of {len(scored)} tokens, at most {self._decoder.max_length} are read: "
                "--max_tokens"
            )
        return _Asked(request, tokens, scored)

    def _decode(self, number: int) -> dict[str, str]:
        """Returns the bodies of the replies to a group."""
        group = self._groups[number]
        found = self._answers(list(group.values()))
        return {
            key: json.dumps(
                serving.reply(
                    asked.request,
                    answers,
                    asked.prompt_tokens,
                    self._decoder.tokenizer,
                    model=self._model,
                )
            )
            for (key, asked), answers in zip(group.items(), found, strict=True)
        }

    def _answers(self, group: Sequence[_Asked]) -> list[list[completions.Completion]]:
        if group[0].scored is None:
            return self._decoder.answers([asked.request for asked in group])
        rows = [(asked.request.prompts[0], asked.scored or []) for asked in group]
        return [[answer] for answer in self._decoder.scored(rows)]


def _key(payload: Mapping[str, Any]) -> str:
    """Returns what tells a request from others."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
