"""Requests of many clients, decoded together: what stands between `serve` and the student."""

import concurrent.futures
import functools
import itertools
import queue
import random
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax import decoding, models, tokenizers
from specialize_jax.apps import answering, completions, student, student_slots
from specialize_jax.models import Model
from specialize_jax.training import partitioning

_KEPT = 8  # ways of asking that stay compiled
_LENGTH_STEP = 64


class Decoder:
    """A student that answers requests in OpenAI's form, many at a time.

    Args:
      asked: the student.
      params: its parameters.
      max_length: tokens of an answer at most.
      input_length: tokens of a prompt at most.
      batch_size: answers decoded at a time.
      max_logprobs: candidates that may be asked for.
    """

    def __init__(
        self,
        asked: student.Student,
        params: Any,
        *,
        max_length: int,
        input_length: int,
        batch_size: int,
        max_logprobs: int,
    ):
        self.tokenizer, self.max_length, self.max_logprobs = (
            asked.tokenizer,
            max_length,
            min(max_logprobs, asked.tokenizer.vocab_size),
        )
        self.batch_size = asked.rows(batch_size)
        # Once, and not for every batch of requests.
        self._student, self._params = asked, student_slots.prepared(asked.model, params)
        self._input_length = input_length
        self._answerer = functools.lru_cache(_KEPT)(self._make_answerer)
        score = functools.partial(_score, asked.model, self.max_logprobs)
        self._score = jax.jit(student_slots.on_mesh(asked.mesh, score))

    def prompt_tokens(self, request: completions.Request) -> int:
        """Returns the tokens of a request's prompts.

        Raises:
          completions.BadRequest: a prompt is empty or too long.
        """
        lengths = [len(self._encode(prompt)) for prompt in request.prompts]
        if max(lengths) > self._input_length:
            raise completions.BadRequest(
                f"a prompt of {max(lengths)} tokens, at most {self._input_length} can be read"
            )
        if not min(lengths):
            raise completions.BadRequest("expected a prompt, got an empty one")
        return sum(lengths)

    def _encode(self, prompt: str) -> list[int]:
        return self._answerer(answering.Settings(self.max_length)).encode(prompt)

    def _make_answerer(self, settings: answering.Settings) -> answering.Answerer:
        return answering.answerer(
            self._student.model,
            self.tokenizer,
            settings,
            batch_size=self.batch_size,
            input_length=self._input_length,
            mesh=self._student.mesh,
        )

    def answers(
        self, requests: Sequence[completions.Request]
    ) -> list[list[completions.Completion]]:
        """Returns `n` answers to each prompt, prompt by prompt, of each request.

        The same requests in the same order have the same answers to the last bit; among others,
        up to the rounding of sums.

        Args:
          requests: of one `way`.
        """
        settings = way(requests[0], self.max_length)
        asked = [(request, prompt) for request in requests for prompt in request.prompts]
        prompts = [prompt for _, prompt in asked]
        found: dict[int, list[list[int]]] = dict(
            self._answerer(settings).stream_tokens(self._params, prompts, numbers(requests))
        )
        rows = [
            (prompt, ids)
            for place, prompt in enumerate(prompts)
            for ids in (found[place] * asked[place][0].n)[: asked[place][0].n]
        ]
        if any(request.logprobs is not None for request in requests):
            done = iter(self.scored(rows))
        else:
            done = (completions.Completion(ids) for _, ids in rows)
        counts = [len(request.prompts) * request.n for request in requests]
        return [list(itertools.islice(done, count)) for count in counts]

    def scored(self, rows: Sequence[tuple[str, list[int]]]) -> Iterator[completions.Completion]:
        """Yields answers with what the student says of their tokens.

        Args:
          rows: prompts, and tokens of an answer to each.
        """
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            filled = [*part, *[part[0]] * (self.batch_size - len(part))]
            prompts = [self._encode(prompt) for prompt, _ in filled]
            longest = -(-max(map(len, prompts)) // _LENGTH_STEP) * _LENGTH_STEP
            width = min(longest, self._input_length)
            tokens = np.zeros((self.batch_size, self.max_length), np.int32)
            for row, (_, ids) in zip(tokens, filled, strict=True):
                row[: len(ids)] = ids
            inputs = models.pad_inputs(self._student.model, prompts, width)
            batch: dict[str, Any] = {"inputs": inputs, "tokens": tokens}
            if self._student.mesh is not None:
                batch = partitioning.shard_batch(batch, self._student.mesh)
            scores = jax.device_get(self._score(self._params, batch["inputs"], batch["tokens"]))
            for place, (_, ids) in enumerate(part):
                own, top, best = (value[place, : len(ids)].tolist() for value in scores)
                yield completions.Completion(ids, own, top, best)


class _Job(NamedTuple):
    request: completions.Request
    done: concurrent.futures.Future


class Worker:
    """Answers requests, one batch after another, on a thread of its own while it is entered.

    Requests that wait and ask in the same way share batches; what a request draws depends on its
    own seed alone.

    Args:
      decoder: who answers.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def answer(self, request: completions.Request) -> tuple[list[completions.Completion], int]:
        """Returns `n` answers to each prompt, prompt by prompt, and the tokens of the prompts.

        Raises:
          completions.BadRequest: a prompt is empty or too long.
        """
        tokens = self.decoder.prompt_tokens(request)
        done: concurrent.futures.Future = concurrent.futures.Future()
        self._waiting.put(_Job(request, done))
        return done.result(), tokens

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            jobs = [job]
            is_last = False
            while not self._waiting.empty():
                if (found := self._waiting.get()) is None:
                    is_last = True
                    break
                jobs.append(found)
            by_way: dict[answering.Settings, list[_Job]] = {}
            for job in jobs:
                by_way.setdefault(way(job.request, self.decoder.max_length), []).append(job)
            for same in by_way.values():
                self._decode(same)
            if is_last:
                return

    def _decode(self, jobs: Sequence[_Job]) -> None:
        """Answers requests that ask in the same way; a failure is theirs, not the worker's."""
        try:
            answers = self.decoder.answers([job.request for job in jobs])
        except Exception as error:
            for job in jobs:
                job.done.set_exception(error)
            return
        for job, found in zip(jobs, answers, strict=True):
            job.done.set_result(found)


def way(request: completions.Request, max_length: int) -> answering.Settings:
    """Returns how a student is asked for a request; the same for those that can share a batch."""
    return answering.Settings(
        max_length=max_length,
        temperature=float(request.temperature),
        top_k=request.top_k,
        top_p=request.top_p,
        # At temperature 0 all answers are the same one.
        samples=request.n if request.temperature else 1,
    )


def numbers(requests: Sequence[completions.Request]) -> list[int]:
    """Returns a number for every prompt of some requests, by which its answers are drawn."""
    found = []
    for request in requests:
        seed = random.getrandbits(64) if request.seed is None else request.seed
        for place in range(len(request.prompts)):
            found.append(zlib.crc32(f"{seed}/{place}".encode()) >> 1)
    return found


def reply(
    request: completions.Request,
    answers: Sequence[completions.Completion],
    prompt_tokens: int,
    tokenizer: tokenizers.Tokenizer,
    **about: Any,
) -> dict[str, Any]:
    """Returns the body of a reply.

    Args:
      request: what was asked.
      answers: to its prompts.
      prompt_tokens: of these.
      tokenizer: of the student.
      **about: `id`, `created` and `model`.
    """
    found = [
        completions.choice(request, answer, tokenizer, index)
        for index, answer in enumerate(answers)
    ]
    usage = prompt_tokens, sum(count for _, count in found)
    return completions.reply(request, [choice for choice, _ in found], usage, **about)


def _score(
    model: Model, top_k: int, params: Any, inputs: jax.Array, tokens: jax.Array
) -> decoding.Scores:
    cache = model.init_cache(params, inputs, tokens.shape[1])
    return decoding.score(
        functools.partial(model.decode_step, params),
        cache,
        tokens,
        top_k=top_k,
        start_tokens=model.start_tokens(jnp.asarray(inputs)),
    )
