"""What goes into and comes out of the alignment op.

Letters: `B` batch, `T` teacher tokens, `S` student tokens, `K` teacher candidates kept per step,
`M` distinct teacher byte strings.
"""

import dataclasses
from typing import Any, NamedTuple

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Path:
    """Which teacher tokens each student token is linked to.

    Every student token of a non-empty pair has a non-empty range. Ranges of neighbours may share a
    teacher token (several student tokens for one teacher token) and together cover all of them.

    Attributes:
      total_cost: [B] int32; cost of the path. 0 for two empty sides, `INT32_MAX` (no path exists)
        where just one side is empty.
      teacher_start: [B, S] int32; first linked teacher token. 0 at padding and without a path.
      teacher_end: [B, S] int32; one past the last linked teacher token, so `[start, end)`.
      certified: [B] bool; whether the path is proven to be the optimum of the full matrix.
    """

    total_cost: Any  # [B]
    teacher_start: Any  # [B, S]
    teacher_end: Any  # [B, S]
    certified: Any  # [B]


class Candidates(NamedTuple):
    """What the teacher recorded at each of its tokens; strings are rows of a table of `M` strings.

    Attributes:
      token: [B, T] int32; the sampled token. -1 at padding.
      token_logprob: [B, T] float32; natural log, no NaN. `UNUSED_LOGPROB` where unknown.
      topk: [B, T, K] int32; the most probable tokens, in any order. -1 in unused slots.
      topk_logprobs: [B, T, K] float32; natural log. `UNUSED_LOGPROB` in unused slots.
    """

    token: Any  # [B, T]
    token_logprob: Any  # [B, T]
    topk: Any  # [B, T, K]
    topk_logprobs: Any  # [B, T, K]


class VocabularyMap(NamedTuple):
    """The student token, if any, that each teacher token is taken for.

    Attributes:
      student_id: [M] int32; -1 where there is none. For `one_to_one` the token that is spelled
        exactly so (`tokenizers.vocabulary_map`), for `soft` the nearest (`alignment.SoftMap`).
      first_id: [M, 2] int32; `soft` alone: what stands for `student_id` at the first token of a
        text, one column for student tokens that begin with a marker and one for others; -1 where
        the teacher token is taken for none such.
    """

    student_id: Any  # [M]
    first_id: Any = None  # [M, 2]


class Votes(NamedTuple):
    """The teacher's mass per student token at every student position; `tokenizers.expand` finds it.

    `mass.sum(-1) + tail + dropped == 1` where there is no reason.

    Attributes:
      ids: [B, S, M] int32; student ids. Votes for one id are summed. 0 in unused slots.
      mass: [B, S, M] float; 0 in unused slots.
      tail: [B, S] float; mass of which it is unknown which student token it leads to.
      dropped: [B, S] float; mass of strings that contradict the student's tokens so far.
      reason: [B, S] int32; `Reason.NONE`, or why there are no votes.
    """

    ids: Any  # [B, S, M]
    mass: Any  # [B, S, M]
    tail: Any  # [B, S]
    dropped: Any  # [B, S]
    reason: Any  # [B, S]
