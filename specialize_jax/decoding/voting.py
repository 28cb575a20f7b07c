"""Self-consistency: of several sampled solutions, the answer that most of them reach.

[Wang et al. 2022](https://arxiv.org/abs/2203.11171), without weights.
"""

import collections
from collections.abc import Hashable, Sequence
from typing import TypeVar

Answer = TypeVar("Answer", bound=Hashable)


def majority_vote(answers: Sequence[Answer | None]) -> Answer | None:
    """Returns the answer that occurs most often.

    >>> majority_vote(["18", None, "17", "18", None, None])
    '18'
    >>> majority_vote(["17", "18", "18", "17"]), majority_vote([None, None]), majority_vote([])
    ('17', None, None)

    Args:
      answers: one of each sample, in one form (`answers.extract` gives equal values equal strings);
        None where a sample gives none. None has no vote.

    Returns:
      The answer; of those that occur equally often the one that came first; None where no sample
      gives any.
    """
    counts = collections.Counter(answer for answer in answers if answer is not None)
    # Counter keeps the order of first occurrence, and max takes the first of equals.
    return max(counts, key=lambda answer: counts[answer], default=None)
