"""How good a teacher is at the questions, and what became of its answers."""

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from specialize_jax import answers
from specialize_jax.teacher.collect import Question


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Returns the chance that at least one of `k` samples is right, without bias.

    Of all ways to take `k` of the samples, the share with a right one; the estimator of
    [Chen et al. 2021](https://arxiv.org/abs/2107.03374).

    >>> pass_at_k(4, 1, 2)
    0.5

    Args:
      samples: answers to a question.
      right: how many of them are right.
      k: in [1, samples].
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


class Tally:
    """Counts answers of a teacher, question by question, whatever becomes of them later.

    Answers to questions without a gold answer are counted, and neither right nor wrong.

    Attributes:
      samples: answers so far.
      judged: those to questions with a gold answer.
      right: those that are right.

    Args:
      vote: answers of some samples (None where one has none) -> the one that they agree on.
      mode: of `answers.MODES`, by which answers are compared.
    """

    def __init__(self, vote: Callable[[Sequence[str | None]], str | None], mode: str = "corrected"):
        self._vote, self._mode = vote, mode
        self._found: dict[str, dict[int, tuple[str | None, bool]]] = {}
        self._questions: dict[str, Question] = {}
        self._without_gold: set[str] = set()
        self.samples = self.judged = self.right = 0

    def add(self, question: Question, sample: int, text: str) -> bool:
        """Judges the text of an answer and returns whether it is right."""
        self.samples += 1
        if answers.extract(question.answer, kind=question.kind) is None:
            self._without_gold.add(question.id)
            return False
        answer = answers.extract(text, self._mode, kind=question.kind)
        right = self._equal(question, answer)
        self._questions[question.id] = question
        self._found.setdefault(question.id, {})[sample] = answer, right
        self.judged, self.right = self.judged + 1, self.right + right
        return right

    def _equal(self, question: Question, answer: str | None) -> bool:
        return answers.equal(answer, question.answer, mode=self._mode, kind=question.kind)

    def summary(self) -> dict[str, Any]:
        """Returns counts and shares (0 to 1) of the answers so far.

        `pass_at_k` is a mean over the questions that have `k` samples. Shares are missing where no
        question has a gold answer.
        """
        questions = len(self._found) + len(self._without_gold)
        counts = {
            "questions": questions,
            "samples": self.samples,
            "samples_per_question": self.samples / max(questions, 1),
            "questions_without_gold": len(self._without_gold),
        }
        return {**counts, **(self._shares() if self._found else {})}

    def _shares(self) -> dict[str, Any]:
        by_question = [
            (self._questions[id_], [found[n] for n in sorted(found)])
            for id_, found in self._found.items()
        ]
        voted = [
            self._equal(question, self._vote([answer for answer, _ in found]))
            for question, found in by_question
        ]
        first = [found[0][1] for _, found in by_question]
        rights = [(len(found), sum(right for _, right in found)) for _, found in by_question]
        most = max(number for number, _ in rights)
        return {
            "right_samples": self.right / self.judged,
            "first_sample_accuracy": _mean(first),
            "majority_accuracy": _mean(voted),
            "pass_at_k": {
                str(k): _mean(pass_at_k(n, right, k) for n, right in rights if n >= k)
                for k in _ks(most)
            },
        }


def histogram(counts: Mapping[str, int], questions: int) -> dict[str, int]:
    """Returns how many questions have 0, 1, 2, ... of something, by that number as a string.

    Args:
      counts: question id -> how many it has; a question that is not there has none.
      questions: number of all questions.
    """
    found = collections.Counter(counts.values())
    found[0] += questions - len(counts)
    return {str(number): found[number] for number in sorted(found) if found[number]}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _ks(most: int) -> list[int]:
    """Returns 1, 2, 4, ... up to, and with, a number.

    >>> _ks(6)
    [1, 2, 4, 6]
    """
    powers = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return sorted({*powers, most})
