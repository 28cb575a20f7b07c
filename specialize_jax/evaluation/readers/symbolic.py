"""Last letters and coin flips, made here from a seed; names are made of syllables, nobody's list.

A set is known by the number of its names, as `last_letters_2` and `coin_flip_4`. Students are
trained on two names (split "train"); three and four are longer than what they have seen. The task
forms are those of 2201.11903; words, names and questions are ours.
"""

import functools
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from etils import epath

from specialize_jax.evaluation.readers.base import Question, QuestionSet

SEED = 0
LENGTHS = (2, 3, 4)
SIZES = {"test": 500, "train": 2000}
_SHOWN = 4
_STARTS = "B D F G H J K L M N P R S T V Z Br Dr Gr Kl Pr Tr".split()
_MIDDLES = "a e i o u ai ea io".split()
_ENDS = "b d f g k l m n p r s t x z ck la lo mi na ry sh th va we".split()
_T = TypeVar("_T")


class _Problem(NamedTuple):
    question: str
    chain: str
    answer: str


def _pick(rng: random.Random, choices: Sequence[_T]) -> _T:
    """Draws one; of `random`, only `random()` gives the same on every version of Python."""
    return choices[int(rng.random() * len(choices))]


def _names(rng: random.Random, count: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        names[_pick(rng, _STARTS) + _pick(rng, _MIDDLES) + _pick(rng, _ENDS)] = None
    return list(names)


def _last_letters(rng: random.Random, count: int) -> _Problem:
    names = _names(rng, count)
    joined = "".join(name[-1] for name in names)
    steps = [f'The last letter of "{name}" is "{name[-1]}".' for name in names]
    return _Problem(
        f'Join the last letters of the words in "{" ".join(names)}".',
        " ".join([*steps, f'Joined they are "{joined}".']),
        joined,
    )


def _coin_flip(rng: random.Random, count: int) -> _Problem:
    names = _names(rng, count)
    flips = [rng.random() < 0.5 for _ in names]
    told = [
        f"{n} {'flips' if f else 'does not flip'} it." for n, f in zip(names, flips, strict=True)
    ]
    number = sum(flips)
    times = "once" if number == 1 else f"{number} times"
    heads = number % 2 == 0
    return _Problem(
        f"A coin lies heads up. {' '.join(told)} Does it still lie heads up?",
        f"It was flipped {times}, an {'even' if heads else 'odd'} number, so it lies "
        f"{'heads' if heads else 'tails'} up.",
        "yes" if heads else "no",
    )


_TASKS: dict[str, tuple[Callable[[random.Random, int], _Problem], str]] = {
    "last_letters": (_last_letters, "text"),
    "coin_flip": (_coin_flip, "boolean"),
}


def _split_of(question: str) -> str:
    """Returns the split of a question, by its hash: one in five is of "test"."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] < 52 else "train"


@functools.cache
def _problems(task: str, length: int, split: str) -> tuple[_Problem, ...]:
    """Returns the first problems of an endless, fixed order; none twice, none in two splits."""
    rng = random.Random(f"{SEED}/{task}/{length}")
    found: dict[str, _Problem] = {}
    while len(found) < SIZES[split]:
        problem = _TASKS[task][0](rng, length)
        if _split_of(problem.question) == split:
            found.setdefault(problem.question, problem)
    return tuple(found.values())


def read(task: str, length: int, data_dir: epath.PathLike, split: str) -> list[Question]:
    """Makes the questions of a set; `source["chain"]` is a worked solution. No file is read."""
    name = f"{task}_{length}"
    return [
        Question(
            f"{name}/{split}/{row}",
            problem.question,
            problem.answer,
            kind=_TASKS[task][1],
            row=row,
            source=problem._asdict(),
        )
        for row, problem in enumerate(_problems(task, length, split))
    ]


def prompt(task: str) -> str:
    """Returns worked exemplars: of the shortest length, so that longer ones stay unseen."""
    shown = _problems(task, LENGTHS[0], "train")[:_SHOWN]
    return "\n\n".join(
        f"Q: {p.question}\nLet's think step by step\n{p.chain}\nThe answer is {p.answer}"
        for p in shown
    )


SETS = {
    f"{task}_{length}": QuestionSet(
        functools.partial(read, task, length),
        "generic",
        needs_data_dir=False,
        prompt=functools.partial(prompt, task),
        splits=("test", "train"),
    )
    for task in _TASKS
    for length in LENGTHS
}
