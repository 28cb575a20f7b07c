"""Answers to a queue of questions, in slots that are filled again as soon as they are free.

A batch that is decoded to its end idles more and more: its longest answer decides. Here a fixed
number of rows, the slots, takes steps in segments (`segments.run`); between two of them the host
takes out the answers that ended and puts the next questions in. Questions are encoded a few at a
time, each once, whatever the number of its samples.

Questions are taken in order of length, in *widths*: caches start as wide as the shortest ones need
and grow with the queue, so that attention of short questions does not pay for long ones. What an
answer is depends on its question alone, up to the rounding of sums that are laid out differently.

Letters: `B` slots, `G` questions that are encoded at a time, `T` input tokens, `N` rows filled at a
time.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from specialize_jax.decoding import segments

Respond: TypeAlias = Callable[[Sequence[int]], Sequence[int]]
"""All tokens that a row wrote -> those that it must write next; none: it goes on by itself."""

_STEPS = 256
_PARTS = 8


class Functions(NamedTuple):
    """A model, as far as decoding needs one; `params` is any pytree.

    Attributes:
      pad: `pad(rows, T) -> [G, T]` int32, inputs of several lengths laid out for `encode`.
      encode: `encode(params, tokens [G, T]) -> cache` of `G` rows that have read their inputs.
      start_tokens: `start_tokens(tokens [G, T]) -> [G]` int32, what the first step reads.
      decode_step: `decode_step(params, cache, tokens [B]) -> (logits [B, V], cache)`; a token below
        0 says that a row waits.
      empty: `empty(like, B, columns) -> cache` of rows without inputs; `like` is what `encode`
        gives, or its shapes. A row may take `columns` steps.
      insert: `insert(cache, new, sources [N], rows [N]) -> cache` in which row `rows[i]` is row
        `sources[i]` of what `encode` gave; `B` for none.
      widen: `widen(cache, like) -> cache` with room for the inputs of what `encode` gave.
    """

    pad: Callable[[Sequence[Sequence[int]], int], np.ndarray]
    encode: Callable[[Any, Any], Any]
    start_tokens: Callable[[Any], Any]
    decode_step: Callable[[Any, Any, Any], tuple[jax.Array, Any]]
    empty: Callable[[Any, int, int], Any]
    insert: Callable[[Any, Any, Any, Any], Any]
    widen: Callable[[Any, Any], Any]


class Question(NamedTuple):
    """What is asked.

    Attributes:
      inputs: tokens.
      number: with a sample's number and the seed it decides what is drawn.
    """

    inputs: Sequence[int]
    number: int


class Answer(NamedTuple):
    """What is answered.

    Attributes:
      place: of the question in the queue.
      sample: in [0, samples).
      tokens: the end-of-sequence token included, if it was written.
    """

    place: int
    sample: int
    tokens: list[int]


class _Ready(NamedTuple):
    """A sample that waits for a slot: its question is encoded."""

    encoded: Any
    source: int
    start: int
    place: int
    sample: int


@dataclasses.dataclass(frozen=True)
class Engine:
    """Slots; programs are compiled once for every width and used again by later calls.

    Attributes:
      functions: of the model.
      choose: the next tokens: `greedy.most_likely` of the logits, or `sampling.drawer`'s.
      slots: `B`, rows that are decoded at a time.
      max_length: tokens of an answer at most, the end-of-sequence token included.
      eos_id: ends an answer.
      widths: input lengths that caches may have, rising; the last is the longest possible.
      pad_id: stands where an answer has no token.
      samples: answers to a question.
      group: `G`, and `N`; by default an eighth of the slots.
      halting: [V] bool, tokens after which a row waits for `respond`; see `segments.run`.
      respond: says what a row that waits must write.
      spare: steps that a row may wait in all without stopping the others; 0 where nothing halts.
      place: lays a cache out where the devices are, traced; by default as it comes.
      jit: `jax.jit`, or what compiles as it does.
    """

    functions: Functions
    choose: segments.Choose
    slots: int
    max_length: int
    eos_id: int
    widths: Sequence[int]
    pad_id: int = 0
    samples: int = 1
    group: int | None = None
    halting: np.ndarray | None = None
    respond: Respond | None = None
    spare: int = 64
    place: Callable[[Any], Any] = lambda cache: cache
    jit: Callable[..., Any] = jax.jit

    def __post_init__(self) -> None:
        """Checks what belongs together.

        Raises:
          ValueError: a number is below 1, or of `halting` and `respond` one alone is given.
        """
        for name in ("slots", "max_length", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if (self.halting is None) != (self.respond is None):
            raise ValueError("expected both or neither of halting and respond")

    def run(self, params: Any, questions: Sequence[Question]) -> Iterator[Answer]:
        """Answers all questions.

        Args:
          params: of the model.
          questions: the queue.

        Yields:
          Every sample of every question, as it is done.

        Raises:
          ValueError: a question is longer than the last of `widths`.
        """
        waiting = collections.deque(self._in_order(questions))
        ready: collections.deque[_Ready] = collections.deque()
        rows = segments.idle(self.slots, self.max_length, self.pad_id)
        asked: list[_Ready | None] = [None] * self.slots
        cache: Any = None
        wide = 0
        while waiting or ready or any(asked):
            while (waiting or ready) and not all(asked):
                if not ready:
                    wide, before = waiting[0][0], wide
                    ready.extend(self._encoded(params, waiting, questions))
                    if not before:
                        cache = self._empty(ready[0].encoded, self.slots)
                    elif wide > before:
                        cache = self._widen(cache, ready[0].encoded)
                cache = self._fill(cache, ready, rows, asked, questions)
            limits = self._limits(rows, more=bool(waiting or ready))
            cache, rows = self._segment(params, cache, rows, limits)
            # What the host writes to must be its own.
            rows = segments.Rows(*(np.array(x) for x in jax.device_get(rows)))
            self._answer_halted(rows)
            yield from self._ended(rows, asked)

    def _in_order(self, questions: Sequence[Question]) -> list[tuple[int, int]]:
        """Width and place of every question, the shortest first.

        Questions that are fewer than the slots share the width of the next, for every width is
        compiled.
        """
        lengths = [len(question.inputs) for question in questions]
        if lengths and max(lengths) > self.widths[-1]:
            raise ValueError(
                f"expected questions of at most {self.widths[-1]} tokens, got one of {max(lengths)}"
            )
        in_order: list[tuple[int, int]] = []
        places = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
        begin = 0
        for number, width in enumerate(self.widths):
            end = sum(length <= width for length in lengths)
            last = number + 1 == len(self.widths) or end == len(lengths)
            if last or end - begin >= self.slots:
                in_order += [(width, place) for place in places[begin:end]]
                begin = end
        return in_order

    def _encoded(
        self, params: Any, waiting: collections.deque[tuple[int, int]], questions: Any
    ) -> list[_Ready]:
        """Encodes the next few questions of one width and takes them from the queue."""
        width, places = waiting[0][0], list[int]()
        while waiting and waiting[0][0] == width and len(places) < self._group():
            places.append(waiting.popleft()[1])
        inputs = [questions[place].inputs for place in places]
        # Rows beyond the last hold a token, for inputs of padding alone mean nothing.
        inputs += [[self.eos_id]] * (self._group() - len(inputs))
        tokens = self.functions.pad(inputs, width)
        encoded = self._encode(params, tokens)
        starts = np.asarray(self.functions.start_tokens(tokens)).tolist()
        return [
            _Ready(encoded, source, starts[source], place, sample)
            for source, place in enumerate(places)
            for sample in range(self.samples)
        ]

    def _group(self) -> int:
        return self.group or -(-self.slots // _PARTS)

    def _fill(
        self,
        cache: Any,
        ready: collections.deque[_Ready],
        rows: segments.Rows,
        asked: list[_Ready | None],
        questions: Sequence[Question],
    ) -> Any:
        """Puts samples into free slots, as many as one call takes, and returns the cache."""
        free = [slot for slot, one in enumerate(asked) if one is None]
        count = min(len(free), len(ready), self._group())
        taken = [ready.popleft() for _ in range(count)]
        sources, slots = np.zeros(self._group(), np.int32), np.full(self._group(), self.slots)
        for i, (slot, one) in enumerate(zip(free, taken, strict=False)):
            sources[i], slots[i], asked[slot] = one.source, slot, one
            rows.last[slot], rows.live[slot], rows.halted[slot] = one.start, True, False
            rows.numbers[slot] = questions[one.place].number
            rows.samples[slot] = one.sample
            rows.tokens[slot] = self.pad_id
            for of_answer in (rows.waited, rows.lengths, rows.forced):
                of_answer[slot] = 0
        return self._insert(cache, taken[0].encoded, sources, slots.astype(np.int32))

    def _limits(self, rows: segments.Rows, *, more: bool) -> segments.Limits:
        """Ends a segment where as many slots are free as are filled at a time.

        With nothing to fill them, where none is left; and where an eighth of the rows waits.
        """
        halted = max(1, int(rows.live.sum()) // _PARTS)
        return segments.Limits(self._group() if more else self.slots, halted, _STEPS)

    def _answer_halted(self, rows: segments.Rows) -> None:
        """Asks what the rows that wait must write, and lets them go on."""
        for slot in np.flatnonzero(rows.live & rows.halted):
            length = rows.lengths[slot]
            assert self.respond is not None
            given = self.respond(rows.tokens[slot, :length].tolist())
            given = list(given)[: self.max_length - length]
            rows.tokens[slot, length : length + len(given)] = given
            rows.forced[slot], rows.halted[slot] = length + len(given), False

    def _ended(self, rows: segments.Rows, asked: list[_Ready | None]) -> Iterator[Answer]:
        """Takes the answers that ended out of their slots."""
        for slot, one in enumerate(asked):
            if one is not None and not rows.live[slot]:
                asked[slot] = None
                tokens = rows.tokens[slot, : rows.lengths[slot]].tolist()
                yield Answer(one.place, one.sample, tokens)

    @functools.cached_property
    def _encode(self) -> Callable[..., Any]:
        return self.jit(self.functions.encode)

    @functools.cached_property
    def _empty(self) -> Callable[..., Any]:
        columns = self.max_length + (0 if self.halting is None else self.spare)
        return self._of_caches(lambda like, rows: self.functions.empty(like, rows, columns), 1)

    @functools.cached_property
    def _insert(self) -> Callable[..., Any]:
        return self._of_caches(self.functions.insert, donate_argnums=0)

    @functools.cached_property
    def _widen(self) -> Callable[..., Any]:
        return self._of_caches(self.functions.widen)

    def _of_caches(
        self, function: Callable[..., Any], *static_argnums: int, **options: Any
    ) -> Callable[..., Any]:
        """Compiles what makes a cache, which is laid out as all are."""

        def placed(*args: Any) -> Any:
            return self.place(function(*args))

        return self.jit(placed, static_argnums=static_argnums, **options)

    @functools.cached_property
    def _segment(self) -> Callable[..., tuple[Any, segments.Rows]]:
        def segment(params: Any, cache: Any, rows: Any, limits: Any) -> tuple[Any, segments.Rows]:
            return segments.run(
                functools.partial(self.functions.decode_step, params),
                self.choose,
                cache,
                rows,
                limits,
                eos_id=self.eos_id,
                halting=self.halting,
                spare=self.spare,
            )

        return self.jit(segment, donate_argnums=1)
