"""Requests of many clients, decoded together: what stands between `serve` and the student."""

import concurrent.futures
import functools
import queue
import random
import threading
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax import decoding, models
from specialize_jax.apps import answering, completions, student
from specialize_jax.models import Model

_KEPT = 8  # ways of asking that stay compiled
_LENGTH_STEP = 64


class _Job(NamedTuple):
    request: completions.Request
    done: concurrent.futures.Future


class Worker:
    """Answers requests, one batch after another, on a thread of its own while it is entered.

    Requests that wait and ask in the same way share batches; what a request draws depends on its
    own seed alone.

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
        self._student, self._params = asked, params
        self._input_length, self._batch_size = input_length, asked.rows(batch_size)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._answerer = functools.lru_cache(_KEPT)(self._make_answerer)
        self._score = jax.jit(functools.partial(_score, asked.model, self.max_logprobs))

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
        lengths = [len(self._encode(prompt)) for prompt in request.prompts]
        if max(lengths) > self._input_length:
            raise completions.BadRequest(
                f"a prompt of {max(lengths)} tokens, at most {self._input_length} can be read"
            )
        if not min(lengths):
            raise completions.BadRequest("expected a prompt, got an empty one")
        done: concurrent.futures.Future = concurrent.futures.Future()
        self._waiting.put(_Job(request, done))
        return done.result(), sum(lengths)

    def _encode(self, prompt: str) -> list[int]:
        return self._answerer(answering.Settings(self.max_length)).encode(prompt)

    def _make_answerer(self, settings: answering.Settings) -> answering.Answerer:
        return answering.answerer(
            self._student.model,
            self.tokenizer,
            settings,
            batch_size=self._batch_size,
            input_length=self._input_length,
            mesh=self._student.mesh,
        )

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
                by_way.setdefault(_settings(job.request, self.max_length), []).append(job)
            for settings, same in by_way.items():
                self._decode(settings, same)
            if is_last:
                return

    def _decode(self, settings: answering.Settings, jobs: Sequence[_Job]) -> None:
        """Answers requests that ask in the same way; a failure is theirs, not the worker's."""
        try:
            answers = iter(self._answers(settings, [job.request for job in jobs]))
        except Exception as error:
            for job in jobs:
                job.done.set_exception(error)
            return
        for job in jobs:
            count = len(job.request.prompts) * job.request.n
            job.done.set_result([next(answers) for _ in range(count)])

    def _answers(
        self, settings: answering.Settings, requests: Sequence[completions.Request]
    ) -> list[completions.Completion]:
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
            return list(self._scored(rows))
        return [completions.Completion(ids) for _, ids in rows]

    def _scored(self, rows: Sequence[tuple[str, list[int]]]) -> Iterable[completions.Completion]:
        """Adds to answers what the student says of their tokens."""
        for start in range(0, len(rows), self._batch_size):
            part = rows[start : start + self._batch_size]
            prompts = [self._encode(prompt) for prompt, _ in part]
            longest = -(-max(map(len, prompts)) // _LENGTH_STEP) * _LENGTH_STEP
            filled = [*part, *[part[0]] * (self._batch_size - len(part))]
            inputs = models.pad_inputs(
                self._student.model,
                [self._encode(prompt) for prompt, _ in filled],
                min(longest, self._input_length),
            )
            tokens = np.zeros((self._batch_size, self.max_length), np.int32)
            for row, (_, ids) in zip(tokens, filled, strict=True):
                row[: len(ids)] = ids
            scores = jax.device_get(self._score(self._params, inputs, tokens))
            for place, (_, ids) in enumerate(part):
                own, top, best = (value[place, : len(ids)].tolist() for value in scores)
                yield completions.Completion(ids, own, top, best)


def _settings(request: completions.Request, max_length: int) -> answering.Settings:
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


def _score(
    model: Model, top_k: int, params: Any, inputs: jax.Array, tokens: jax.Array
) -> decoding.Scores:
    params = model.prepare(params)
    cache = model.init_cache(params, inputs, tokens.shape[1])
    return decoding.score(
        functools.partial(model.decode_step, params),
        cache,
        tokens,
        top_k=top_k,
        start_tokens=model.start_tokens(jnp.asarray(inputs)),
    )
