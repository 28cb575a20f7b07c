"""Sparse soft targets in the student's vocabulary, and the words that describe a position.

Letters: `...` any leading dimensions (usually `[B, S]`), `K` entries kept per student token.
"""

import enum
from typing import Any, NamedTuple

# The logarithm of "no mass" that float16 can hold: stands in unused slots and empty tails.
UNUSED_LOGPROB = -1e4
# A recorded log-probability at or below this says "not recorded", as servers write it.
NO_LOGPROB = -9999.0


class SchemaError(ValueError):
    """A file, a row or a batch breaks its contract; the message says where and how."""


class Kind(enum.IntEnum):
    """What a student position is, and so which loss term scores it."""

    PAD = 0
    """No token here; never scored."""
    TRANSFERRED = 1
    """The teacher's distribution reached this token; scored by the divergence."""
    ONE_HOT = 2
    """A chain-of-thought token without a teacher distribution; scored by cross-entropy."""
    ANSWER_ONLY = 3
    """A token of an answer-only target; scored by cross-entropy."""


class Reason(enum.IntEnum):
    """Why a chain-of-thought position got a one-hot instead of the teacher's distribution."""

    NONE = 0
    """Transferred, or padding."""
    NO_LOGPROBS = 1
    """The record has no log-probabilities (a human solution, a text-only teacher)."""
    DIFFERENT_STRING = 2
    """One teacher token, linked to this token alone, with another string (`If` for `▁If`)."""
    MANY_TEACHER_TOKENS = 3
    """Several teacher tokens are linked to this student token (` $`, `12` for `▁$12`)."""
    SHARED_TEACHER_TOKEN = 4
    """The linked teacher token is linked to other student tokens too (`itting`: `i`, `tting`)."""
    END_OF_SEQUENCE = 5
    """The student's end-of-sequence token, for which no candidates were recorded."""
    ANSWER_ONLY = 6
    """The target is an answer-only target."""
    INSIDE_SEGMENT = 7
    """The token starts inside what the normaliser made of one source character (marginal)."""
    NO_MASS = 8
    """No recorded candidate agrees with the student's tokens so far and leads on (marginal)."""


class Format(enum.IntEnum):
    """The four data formats of 2301.12726 (section 3): context x target."""

    ZERO_SHOT_ANSWER_ONLY = 0
    ZERO_SHOT_CHAIN_OF_THOUGHT = 1
    IN_CONTEXT_ANSWER_ONLY = 2
    IN_CONTEXT_CHAIN_OF_THOUGHT = 3

    @property
    def is_in_context(self) -> bool:
        """Whether exemplars stand before the question."""
        return self >= Format.IN_CONTEXT_ANSWER_ONLY

    @property
    def is_chain_of_thought(self) -> bool:
        """Whether the target spells out the steps."""
        return self % 2 == 1

    @property
    def label(self) -> str:
        """The name used in tasks, metrics and result files, as `in_context_chain_of_thought`."""
        return self.name.lower()


class SparseTargets(NamedTuple):
    """A sparse distribution over the student's vocabulary for every target token.

    Mass that is not listed stands in `tail_logprob`; the losses say what they do with it. A student
    token without a partner is a one-hot in slot 0 with its `reason`. An id stands once. What the
    modes of `alignment.transfer` make of it:

    | case                              | one_to_one     | soft            | marginal          |
    |-----------------------------------|----------------|-----------------|-------------------|
    | mass outside the recorded top-k   | tail           | tail            | tail              |
    | mass beyond `k_out` entries       | tail           | tail            | tail              |
    | mass that contradicts the text    | as any other   | as any other    | divided away      |
    | a candidate that is no token      | tail           | nearest token's | its first token's |
    | several candidates meet one id    | the first one  | most probable;  | summed            |
    |                                   | (same string)  | the rest: tail  |                   |
    | a student token has a partner     | one teacher    | one teacher     | some candidate    |
    | where linked to or reached by     | token, spelled | token that it   | agrees with the   |
    |                                   | as it is       | is nearest to   | text and leads on |

    As a NamedTuple it is a JAX pytree, without JAX being imported here.

    Attributes:
      ids: [..., K] int32; student ids, unique within a position. Unused slots hold 0.
      logprobs: [..., K] float32; natural log, <= 0. Unused slots hold `UNUSED_LOGPROB`.
      tail_logprob: [...] float32; natural log of the mass outside `ids`; `UNUSED_LOGPROB` for none.
      kind: [...] int32; a `Kind`.
      reason: [...] int32; a `Reason`.
    """

    ids: Any
    logprobs: Any
    tail_logprob: Any
    kind: Any
    reason: Any
