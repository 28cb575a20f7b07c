"""A teacher whose next-token distribution is known exactly: a stochastic grammar over texts.

The grammar is a finite automaton. A transition writes a text, which is cut into pretokens, and each
pretoken into tokens; no token crosses a pretoken, so a text has one canonical sequence of tokens.
Several paths may begin with the same tokens: what comes next is the sum over all of them, weighted
by how probable each is given the tokens so far (the forward algorithm). Nothing is sampled to find
a probability, and nothing is approximated.
"""

import math
import random
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

State = Hashable
Transitions = Callable[[State], Iterable["Transition"]]
Tokenize = Callable[[str], Sequence[bytes]]

# A word, a number or a sign, each with the space before it; a newline stands alone.
_PRETOKEN = re.compile(r" ?[A-Za-z']+| ?[0-9]+| ?[^\sA-Za-z0-9']|\s")


class Transition(NamedTuple):
    """One way on from a state.

    Attributes:
      probability: given the state; those of a state sum to 1.
      text: what is written, in whole pretokens (it begins where a pretoken begins). Not empty.
      to: the next state; None ends the text.
    """

    probability: float
    text: str
    to: State | None


class Step(NamedTuple):
    """One sampled token.

    Attributes:
      token: its bytes.
      distribution: next token -> probability, over everything the grammar allows here.
    """

    token: bytes
    distribution: dict[bytes, float]


class Grammar:
    """A distribution over texts.

    Args:
      start: the first state.
      transitions: state -> the ways on from there.
      tokenize: pretoken -> its tokens, whose bytes joined are the pretoken.

    Raises:
      ValueError: when sampled or asked: a state whose probabilities do not sum to 1, an empty text,
        or tokens that are not the text.
    """

    def __init__(self, start: State, transitions: Transitions, tokenize: Tokenize):
        self._start, self._transitions, self._tokenize = start, transitions, tokenize
        self._ways: dict[State, list[tuple[float, tuple[bytes, ...], State | None]]] = {}

    def start(self) -> "Belief":
        """Returns what is known before the first token."""
        return Belief(self, {(self._start, ()): 1.0})

    def ways(self, state: State) -> list[tuple[float, tuple[bytes, ...], State | None]]:
        """Returns (probability, tokens, next state) of every transition from a state."""
        if state not in self._ways:
            found = list(self._transitions(state))
            total = math.fsum(way.probability for way in found)
            if abs(total - 1) > 1e-9 or any(way.probability < 0 for way in found):
                raise ValueError(f"state {state!r}: expected probabilities that sum to 1: {found}")
            self._ways[state] = [
                (way.probability, self._tokens(way.text), way.to)
                for way in found
                if way.probability
            ]
        return self._ways[state]

    def _tokens(self, text: str) -> tuple[bytes, ...]:
        tokens = tuple(token for part in pretokens(text) for token in self._tokenize(part))
        if not tokens or b"".join(tokens) != text.encode():
            raise ValueError(f"expected tokens that make {text!r}, got {tokens}")
        return tokens

    def sample(self, rng: random.Random) -> Iterator[Step]:
        """Yields a text, token by token, each with the distribution that it was drawn from."""
        belief = self.start()
        while distribution := belief.next_tokens():
            token = rng.choices(list(distribution), list(distribution.values()))[0]
            yield Step(token, distribution)
            belief = belief.after(token)

    def distributions(self, tokens: Iterable[bytes]) -> Iterator[dict[bytes, float]]:
        """Yields the distribution before each of some tokens, then the one after the last.

        Raises:
          ValueError: the grammar cannot write these tokens; names the first that does not fit.
        """
        belief = self.start()
        for token in tokens:
            yield belief.next_tokens()
            belief = belief.after(token)
        yield belief.next_tokens()


class Belief:
    """Where in the grammar a text may stand, given its tokens so far.

    A place is a state and the tokens still to be written before it is reached.
    """

    def __init__(self, grammar: Grammar, places: dict[tuple[State, tuple[bytes, ...]], float]):
        self._grammar = grammar
        self._places: dict[tuple[State, tuple[bytes, ...]], float] = {}
        total = math.fsum(places.values())
        for (state, waiting), weight in places.items():
            if waiting or state is None:
                self._add(state, waiting, weight / total)
            else:
                for probability, tokens, to in grammar.ways(state):
                    self._add(to, tokens, weight / total * probability)

    def _add(self, state: State, waiting: tuple[bytes, ...], weight: float) -> None:
        place = (state, waiting)
        self._places[place] = self._places.get(place, 0.0) + weight

    def next_tokens(self) -> dict[bytes, float]:
        """Returns next token -> probability; empty where every path has ended.

        Raises:
          ValueError: some paths have ended and others have not: the grammar has no end of its own.
        """
        distribution: dict[bytes, float] = {}
        ended = 0
        for (_, waiting), weight in self._places.items():
            if waiting:
                distribution[waiting[0]] = distribution.get(waiting[0], 0.0) + weight
            else:
                ended += 1
        if ended and distribution:
            raise ValueError(
                f"a text may end where another goes on with {sorted(distribution)}; let the "
                "grammar write something at its end, as a newline"
            )
        return distribution

    def after(self, token: bytes) -> "Belief":
        """Returns the belief once a token is written.

        Raises:
          ValueError: no path goes on with this token; lists those that some path goes on with.
        """
        places: dict[tuple[State, tuple[bytes, ...]], float] = {}
        for (state, waiting), weight in self._places.items():
            if waiting and waiting[0] == token:
                place = (state, waiting[1:])
                places[place] = places.get(place, 0.0) + weight
        if not places:
            raise ValueError(f"expected one of {sorted(self.next_tokens())}, got {token!r}")
        return Belief(self._grammar, places)


def pretokens(text: str) -> list[str]:
    """Cuts a text into words, numbers and signs, each with the space before it, and newlines."""
    return _PRETOKEN.findall(text)
