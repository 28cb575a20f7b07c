"""Asks a server for everything that a journal lacks, many requests at a time."""

import asyncio
import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from specialize_jax.teacher import budget as budgets
from specialize_jax.teacher import names, wire
from specialize_jax.teacher.client import Read, Refused, Transient
from specialize_jax.teacher.collect import Question
from specialize_jax.teacher.journal import Entry, Journal, chunks
from specialize_jax.teacher.sampling import Asking

# So many requests that fail in a row, each after all its attempts, and the server is given up.
_GIVE_UP = 5


class Server(Protocol):
    """Who is asked; `client.Client` is one.

    Attributes:
      url: what it is called in messages.
    """

    @property
    def url(self) -> str:
        """What it is called in messages."""

    async def ask(
        self,
        path: str,
        payload: Mapping[str, Any],
        read: Callable[[Any], Read],
        lost: Callable[[str], None],
    ) -> tuple[str, Read]:
        """Returns the body of the reply, and what `read` makes of it; see `client.Client`."""


class Job(NamedTuple):
    """A request: a question, how it is put, and the numbers of the answers that are wanted."""

    question: Question
    prompt: str
    samples: tuple[int, ...]


class Reply(NamedTuple):
    """What came: the body, what it says of tokens, and its answers."""

    body: str
    usage: Any
    choices: list[wire.Choice]


class Outcome(NamedTuple):
    """How asking ended.

    Attributes:
      stopped: the limit that would have been exceeded; None where nothing stopped it.
      failed: requests that no attempt got an answer to.
      reason: of the last of these.
    """

    stopped: str | None
    failed: int
    reason: str | None


def jobs(
    asking: Asking,
    questions: Sequence[Question],
    prompt: Callable[[Question], str],
    there: Container[tuple[str, int]],
) -> Iterator[Job]:
    """Yields the requests for what is not there, in the order of the questions.

    Args:
      asking: what is asked.
      questions: of which.
      prompt: how a question is put.
      there: (question, sample) of what was answered: a journal.
    """
    for question in questions:
        wanted = [n for n in asking.samples(question) if (question.id, n) not in there]
        for samples in chunks(wanted, asking.per_request):
            yield Job(question, prompt(question), samples)


class Loop:
    """Asks; one use.

    Args:
      client: the server.
      asking: what is asked.
      journal: where replies are kept.
      budget: what may be spent.
      decode: id -> bytes, by the teacher's tokenizer.
      answered: called with a job, (sample number, answer) pairs of its reply, and (prompt,
        completion) tokens of it.
    """

    def __init__(
        self,
        client: Server,
        asking: Asking,
        journal: Journal,
        budget: budgets.Budget,
        *,
        decode: names.Decode | None,
        answered: Callable[[Job, list[tuple[int, wire.Choice]], tuple[int, int]], None],
    ):
        self._client, self._asking, self._journal = client, asking, journal
        self._budget, self._decode, self._answered = budget, decode, answered
        self._reserved = [0, 0]  # prompt and completion tokens that requests on their way may take
        self._changed = asyncio.Condition()
        self._stopped: str | None = None
        self._refused: ValueError | None = None
        self._failed, self._in_a_row = 0, 0
        self._reason: str | None = None
        # Tokens a byte of prompt: what the replies said, at most; a guess before.
        self._per_byte = 1 / budgets.BYTES_PER_TOKEN

    async def run(self, waiting: Iterator[Job], *, concurrency: int) -> Outcome:
        """Asks everything, or until a limit is reached.

        Args:
          waiting: what is to be asked.
          concurrency: requests at one time at most.

        Raises:
          client.Refused: the server will not answer.
        """

        async def work() -> None:
            for job in waiting:
                try:
                    await self._answer(job)
                except (Refused, names.NeedsTokenizer, wire.NoScores) as error:
                    # Others may be on their way and paid for: they are waited for.
                    self._refused = self._refused or error
                    await self._release((0, 0))
                if self._ends:
                    return

        # An error of another kind ends the others at once.
        await asyncio.gather(*(work() for _ in range(concurrency)))
        if self._refused:
            raise self._refused
        return Outcome(self._stopped, self._failed, self._reason)

    @property
    def _ends(self) -> bool:
        """Whether nothing more is to be asked."""
        return bool(self._stopped or self._refused)

    async def first(self, job: Job, look: Callable[[list[wire.Choice]], None]) -> None:
        """Asks for a job alone, and keeps what came once it was looked at.

        Args:
          job: what is asked.
          look: called with the answers; raises where going on would be a waste.

        Raises:
          client.Refused: the server will not answer, or not after all attempts; or the budget
            allows no request.
        """

        def use(reply: Reply) -> int:
            look(reply.choices)
            return self._keep(job, reply)

        if await self._ask(job, use) is None:
            limit = f"--{self._stopped} allows none" if self._stopped else None
            why = "; ".join(filter(None, (self._reason, limit)))
            raise Refused(f"{self._client.url}: no answer to the first request: {why}")

    async def _answer(self, job: Job) -> None:
        """Asks until every sample of a job is there; servers may send fewer than asked."""
        wanted = job.samples
        while wanted and not self._ends:
            part = job._replace(samples=wanted)
            kept = await self._ask(part, functools.partial(self._keep, part))
            if kept is None:
                return
            wanted = wanted[kept:]

    def _keep(self, job: Job, reply: Reply) -> int:
        """Writes a reply to the journal and returns how many answers it holds."""
        tokens = self._charged(reply, job)
        samples = job.samples[: len(reply.choices)]
        self._journal.add(Entry(job.question.id, samples, tokens, reply.body))
        self._answered(job, list(zip(samples, reply.choices, strict=True)), tokens)
        return len(samples)

    def _charged(self, reply: Reply, job: Job) -> tuple[int, int]:
        """Returns the tokens that a reply says it took; where it does not say, about."""
        prompt, completion = wire.usage(reply.usage)
        size = len(job.prompt.encode())
        if prompt is None:
            prompt = round(size * self._per_byte)
        self._per_byte = max(self._per_byte, prompt / max(size, 1))
        if completion is None:
            completion = sum(
                len(choice.steps or ()) or round(len(choice.text) / budgets.BYTES_PER_TOKEN)
                for choice in reply.choices
            )
        return prompt, completion

    async def _ask(self, job: Job, use: Callable[[Reply], int]) -> int | None:
        """Asks, and returns what `use` makes of the reply while its tokens are still reserved.

        None where the budget or the server does not allow it.
        """
        need = self._need(job)
        if not await self._reserve(need):
            return None
        try:
            payload = self._asking.payload(job.question, job.prompt, job.samples)
            body, (used, choices) = await self._client.ask(
                self._asking.path,
                payload,
                functools.partial(self._read, job),
                functools.partial(self._lost, need),
            )
            self._in_a_row = 0
            return use(Reply(body, used, choices))
        except Transient as error:
            self._reason = str(error)
            if not self._stopped:
                self._fail()
            return None
        finally:
            await self._release(need)

    def _lost(self, need: tuple[int, int], _: str) -> bool:
        """Counts an attempt that may have been charged; tells whether another may be paid."""
        self._journal.add_lost(sum(need))
        self._stopped = self._stopped or self._exceeded((0, 0))  # `need` is reserved
        return not self._stopped

    def _exceeded(self, need: tuple[int, int]) -> str | None:
        """Returns which limit a request would exceed beside all others; None for none."""
        taken = [sum(t) for t in zip(self._journal.tokens, self._reserved, need, strict=True)]
        # What was lost may have been charged as completion tokens, which cost most.
        return self._budget.exceeded(taken[0], taken[1] + self._journal.lost)

    def _read(self, job: Job, value: Any) -> tuple[Any, list[wire.Choice]]:
        found = self._asking.read(value, job.question, job.samples, self._decode)
        return value.get("usage"), found

    def _fail(self) -> None:
        """Counts a request that got no answer, and gives the server up after several in a row."""
        self._failed, self._in_a_row = self._failed + 1, self._in_a_row + 1
        if self._in_a_row >= _GIVE_UP:
            raise Refused(
                f"{self._client.url}: {self._in_a_row} requests in a row failed after all their "
                f"attempts, the last by '{self._reason}'; what came is kept, and the same command "
                "goes on from there"
            ) from None

    def _need(self, job: Job) -> tuple[int, int]:
        prompt = round(len(job.prompt.encode()) * self._per_byte) + 1
        return prompt, len(job.samples) * self._asking.longest(job.question)

    async def _reserve(self, need: tuple[int, int]) -> bool:
        """Waits until a request may take its tokens; False where it never may."""
        async with self._changed:
            while not self._ends:
                limit = self._exceeded(need)
                if limit is None:
                    self._reserved = [a + b for a, b in zip(self._reserved, need, strict=True)]
                    return True
                if not any(self._reserved):
                    self._stopped = limit
                    self._changed.notify_all()
                    break
                await self._changed.wait()
        return False

    async def _release(self, need: tuple[int, int]) -> None:
        async with self._changed:
            self._reserved = [a - b for a, b in zip(self._reserved, need, strict=True)]
            self._changed.notify_all()
