"""The four data formats of 2301.12726 as pure string functions.

| format                      | encoder input                                                 |
|-----------------------------|---------------------------------------------------------------|
| zero_shot_answer_only       | `Q: {question} A:`                                            |
| zero_shot_chain_of_thought  | `Q: {question}⏎Let's think step by step`                      |
| in_context_answer_only      | answer exemplars, then `Q: {question}⏎A:`                     |
| in_context_chain_of_thought | chain exemplars, then `Q: {question}⏎Let's think step by step` |

The decoder target is `The answer is {answer}`, with the chain and a newline before it in the
chain-of-thought formats.

The strings are those of the paper's code (src/data_utils.py of
https://github.com/FranxYao/FlanT5-CoT-Specialization), except that a question keeps its `": "`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specialize_jax.schemas import Format

STEP_BY_STEP = "Let's think step by step"
ANSWER_IS = "The answer is"
NUM_EXEMPLARS = 4
_EXEMPLAR = re.compile(
    rf"(?:Q|Question): (?P<question>.+?)\n{STEP_BY_STEP}\n"
    rf"(?P<chain>(?:.*\n)*{ANSWER_IS} (?P<answer>.+?)\.?)",
)
# A tokenizer may have made one space of a newline.
_ASKED = re.compile(rf"(?:^|\s)(?:Q|Question):\s(.+?)(?=\s{STEP_BY_STEP}|\sA:|\s*$)", re.DOTALL)


class Exemplar(NamedTuple):
    """A worked question that stands before the one to be answered.

    Attributes:
      question: its text.
      chain: its solution, ending in `The answer is {answer}`.
      answer: its final answer.
    """

    question: str
    chain: str
    answer: str


def parse(label: str) -> Format:
    """Returns the format of a label such as `in_context_chain_of_thought`.

    Raises:
      ValueError: no format has that label; the message lists those that exist.
    """
    labels = {fmt.label: fmt for fmt in Format}
    if label not in labels:
        raise ValueError(f"unknown format '{label}'; choices: {', '.join(labels)}")
    return labels[label]


def render_inputs(fmt: Format, question: str, exemplars: Sequence[Exemplar] = ()) -> str:
    """Returns the encoder input.

    Args:
      fmt: the format.
      question: the question to answer.
      exemplars: for the in-context formats, at least one; in the order in which they stand.

    Raises:
      ValueError: exemplars are missing, or given to a zero-shot format.
    """
    if bool(exemplars) != fmt.is_in_context:
        needs = "needs exemplars" if fmt.is_in_context else "takes no exemplars"
        raise ValueError(f"format '{fmt.label}' {needs}, got {len(exemplars)}")
    if fmt.is_chain_of_thought:
        shown = [f"Q: {e.question}\n{STEP_BY_STEP}\n{e.chain}\n\n" for e in exemplars]
        return "".join(shown) + f"Q: {question}\n{STEP_BY_STEP}"
    shown = [f"Q: {e.question}\nA: {ANSWER_IS} {e.answer}\n\n" for e in exemplars]
    return "".join(shown) + f"Q: {question}" + ("\nA:" if exemplars else " A:")


def questions_in(inputs: str) -> list[str]:
    """Returns the questions of an encoder input, exemplars' first: what `render_inputs` was given.

    A text of another form is one question. Whitespace may be other than `render_inputs` set it.
    """
    return _ASKED.findall(inputs) or [inputs]


def render_target(fmt: Format, chain: str, answer: str) -> str:
    """Returns the decoder target.

    Args:
      fmt: the format.
      chain: the solution, ending in `The answer is {answer}`; taken verbatim.
      answer: the final answer.
    """
    return chain if fmt.is_chain_of_thought else f"{ANSWER_IS} {answer}"


def read_exemplars(text: str, where: str) -> list[Exemplar]:
    """Reads a prompt file: worked questions with a blank line between.

    Args:
      text: its content; each block is `Q: ...` (or `Question: ...`), `Let's think step by step`,
        and the chain, whose last line is `The answer is ...`.
      where: named in the error.

    Raises:
      ValueError: a block is not of that form.
    """
    exemplars = []
    for block in filter(None, (block.strip() for block in text.split("\n\n"))):
        match = _EXEMPLAR.fullmatch(block)
        if match is None:
            raise ValueError(
                f"'{where}': expected 'Q: ...', '{STEP_BY_STEP}', a chain and "
                f"'{ANSWER_IS} ...', got {block[:80]!r}"
            )
        exemplars.append(Exemplar(match["question"], match["chain"], match["answer"]))
    return exemplars


def draw_exemplars(
    pool_size: int, *, seed: Sequence[int], exclude: int = -1, count: int = NUM_EXEMPLARS
) -> np.ndarray:
    """Draws exemplars without replacement: a pure function of its arguments.

    Args:
      pool_size: number of candidates.
      seed: any non-negative integers, for example (run seed, epoch, index).
      exclude: position of the question itself in the pool; -1 when it is not there.
      count: how many.

    Returns:
      [count] int64 positions in the pool, distinct, none of them `exclude`.

    Raises:
      ValueError: the pool is too small.
    """
    others = pool_size - (0 <= exclude < pool_size)
    if others < count:
        raise ValueError(f"expected at least {count} other questions as exemplars, got {others}")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
    drawn = generator.choice(others, size=count, replace=False)
    return np.where((drawn >= exclude) & (exclude >= 0), drawn + 1, drawn)
