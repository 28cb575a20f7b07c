"""What `Expander` reads and returns: many texts as arrays.

Letters: `R` texts, `T` teacher's steps of all texts, `C` candidates of all steps, `S` student
tokens of all texts, `V` votes of all student tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specialize_jax.tokenizers.expansion import Recorded


class Steps(NamedTuple):
    """What a teacher wrote and recorded in `R` texts: `Recorded` as arrays.

    Every text has one step more than tokens: its last holds the candidates at the end.

    Attributes:
      strings: distinct byte strings; tokens and candidates are numbers of this list.
      tokens: [T] int32; the sampled token, -1 at the step behind the last token.
      offsets: [R + 1] int64; the steps of text `r` are `offsets[r]` to `offsets[r + 1]`.
      candidates: [C] int32; different within a step, the sampled one among them if it is known.
      probabilities: [C] float64.
      candidate_offsets: [T + 1] int64; the candidates of each step.
      has_terminal: [R] bool; whether the candidates at the end were recorded.
      ended: [R] bool; see `Recorded`.
      stops: `R` strings or None; see `Recorded`.
    """

    strings: Sequence[bytes]
    tokens: np.ndarray
    offsets: np.ndarray
    candidates: np.ndarray
    probabilities: np.ndarray
    candidate_offsets: np.ndarray
    has_terminal: np.ndarray
    ended: np.ndarray
    stops: Sequence[bytes | None]

    def recorded(self, r: int) -> Recorded:
        """Returns one text as `expand` reads it."""
        begin, end = self.offsets[r : r + 2].tolist()

        def listed(step: int) -> dict[bytes, float]:
            where = slice(*self.candidate_offsets[step : step + 2].tolist())
            names = [self.strings[number] for number in self.candidates[where].tolist()]
            return dict(zip(names, self.probabilities[where].tolist(), strict=True))

        return Recorded(
            [self.strings[number] for number in self.tokens[begin : end - 1].tolist()],
            [listed(step) for step in range(begin, end - 1)],
            listed(end - 1) if self.has_terminal[r] else None,
            self.stops[r],
            bool(self.ended[r]),
        )


class Student(NamedTuple):
    """`R` targets in the student's tokens.

    Attributes:
      texts: the targets' bytes.
      ids: [S] int32; end-of-sequence last where a target has one.
      spans: [S, 2] int32; bytes of its text per token; of end-of-sequence not read.
      offsets: [R + 1] int64; the tokens of each target.
    """

    texts: Sequence[bytes]
    ids: np.ndarray
    spans: np.ndarray
    offsets: np.ndarray


class VoteColumns(NamedTuple):
    """`expansion.Votes` of many targets, one behind the other and without unused slots.

    Attributes:
      ids: [V] int32; votes of one position together, most mass first.
      mass: [V] float64.
      offsets: [S + 1] int64; the votes of each position.
      tail: [S] float64.
      dropped: [S] float64.
      open_mass: [S] float64.
      reason: [S] int32.
    """

    ids: np.ndarray
    mass: np.ndarray
    offsets: np.ndarray
    tail: np.ndarray
    dropped: np.ndarray
    open_mass: np.ndarray
    reason: np.ndarray
