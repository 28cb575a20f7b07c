"""A small world of word problems, its teacher, and its test sets; everything is made from a seed.

| family           | what it asks                                         | role                |
|------------------|------------------------------------------------------|---------------------|
| `stories`        | additions and subtractions told as a story           | in-distribution     |
| `other_wording`  | the same sums with other nouns, verbs and sentences  | out-of-distribution |
| `larger_numbers` | the same stories with totals above those trained on  | out-of-distribution |
| `distractors`    | the same stories with facts that do not matter       | out-of-distribution |
| `reversal`       | words in the opposite order                          | generic ability     |
| `counting`       | how often a word stands in a list                    | generic ability     |
| `boolean`        | the value of a boolean expression                    | generic ability     |
| `last_letters`   | the last letters of some words                       | generic ability     |

Splits are drawn by a hash of what a problem computes (for stories its numbers and operations, else
the question), so that no question is in two of them, whatever the knobs and numbers of questions.

Importing this module registers every family as an evaluation set, `miniworld_<family>`. `Settings`
holds the knobs; a gin file binds them by `miniworld.Settings.max_number = 20`.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gin

from specialize_jax.data import formats
from specialize_jax.evaluation import readers
from specialize_jax.schemas import Format
from specialize_jax.teacher import grammar
from specialize_jax.teacher.collect import Sample
from specialize_jax.teacher.grammar import Transition

SET_PREFIX = "miniworld"
SPLITS = ("train", "test")
_NAMES = "Ann Ben Cleo Dan Eva Finn Gus Hana Ivo Joy Kim Leo Mia Ned Ola Pia".split()
_THINGS = "apples pens coins shells books cards stones cakes hats cups keys stamps".split()
_WORDS = (
    "bus driver people passengers stop tank litres water pump leak shelf library reader train "
    "station crates ship port farmer eggs hens basket market carries board leave enter holds"
).split()


@gin.configurable(module="specialize_jax.tasks.miniworld")
@dataclasses.dataclass(frozen=True)
class Settings:
    """The knobs.

    Attributes:
      seed: of everything.
      min_steps: fewest operations of a story.
      max_steps: most operations of a story.
      max_number: largest number that stands in a story or comes out of a step, at least 5; in
        `larger_numbers` the start and what comes out of each step lie between it and its double.
      max_words: longest list of the generic tasks, at least 3.
      test_questions: of `stories`.
      test_questions_ood: of each out-of-distribution family.
      test_questions_generic: of each generic family.
      num_exemplars: worked questions that the in-context test prompts show.
    """

    seed: int = 0
    min_steps: int = 2
    max_steps: int = 2
    max_number: int = 20
    max_words: int = 4
    test_questions: int = 500
    test_questions_ood: int = 200
    test_questions_generic: int = 100
    num_exemplars: int = formats.NUM_EXEMPLARS

    def __post_init__(self) -> None:
        """Refuses knobs that no problem fits."""
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"miniworld.Settings.{name}: expected an integer, got {value!r}")
        for name, least in (
            *(("min_steps", 1), ("max_steps", self.min_steps), ("max_number", 5), ("max_words", 3)),
            *((name, 1) for name in vars(self) if name.startswith(("test_", "num_"))),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"miniworld.Settings.{name}: expected at least {least}, "
                    f"got {getattr(self, name)}"
                )


class _Problem(NamedTuple):
    """A question, what decides its split, and what its solutions are made of."""

    question: str
    answer: str
    key: str
    solution: dict[str, Any]


# ---- stories: a start and some steps, told in one wording or another ----


def _plan(rng: random.Random, knobs: Settings, least: int, most: int) -> tuple[int, list[int]]:
    """Draws a start and what each step adds; every value on the way is in [least, most]."""
    values = [rng.randint(max(least, 1), most)]
    for _ in range(rng.randint(knobs.min_steps, knobs.max_steps)):
        others = [value for value in range(least, most + 1) if value != values[-1]]
        values.append(rng.choice(others))
    return values[0], [after - before for before, after in itertools.pairwise(values)]


def _story(
    rng: random.Random,
    knobs: Settings,
    *,
    least: int = 0,
    most: int | None = None,
    distractors: bool = False,
) -> _Problem:
    start, steps = _plan(rng, knobs, least, most or knobs.max_number)
    name, other = rng.sample(_NAMES, 2)
    thing, other_thing = rng.sample(_THINGS, 2)
    sentences = [f"{name} has {start} {thing}."]
    for step in steps:
        more = f"{name} buys {step} more.", f"{other} gives {name} {step} more."
        less = f"{name} gives {-step} to {other}.", f"{name} loses {-step} {thing}."
        sentences.append(rng.choice(more if step > 0 else less))
    if distractors:
        number = rng.randint(1, knobs.max_number)
        # Not in the middle: "3 more" there would be of the wrong things.
        if rng.random() < 0.5:
            fact = (f"{other} has {number} {other_thing}.", f"{other} is {number} years old.")
            sentences.insert(0, rng.choice(fact))
        else:
            sentences.append(f"{name} also has {number} {other_thing}.")
    return _Problem(
        f"{' '.join(sentences)} How many {thing} does {name} have now?",
        str(start + sum(steps)),
        _computation(start, steps),
        {
            "openings": [f"{name} starts with {start} {thing}.", f"{name} has {start} {thing}."],
            "unit": thing,
            "start": start,
            "steps": steps,
        },
    )


def _other_wording(rng: random.Random, knobs: Settings) -> _Problem:
    start, steps = _plan(rng, knobs, 0, knobs.max_number)
    first, more, less, ask, unit = rng.choice(
        (
            (
                "A bus carries {} people.",
                "At a stop {} people enter.",
                "At a stop {} people leave.",
                "How many people are on the bus?",
                "people",
            ),
            (
                "A tank holds {} litres of water.",
                "A pump brings {} litres.",
                "Through a leak {} litres run out.",
                "How many litres are in the tank?",
                "litres",
            ),
            (
                "There are {} crates on a ship.",
                "In the first port {} crates come on board.",
                "In a port the ship leaves {} crates.",
                "How many crates are on the ship?",
                "crates",
            ),
        )
    )
    sentences = [first.format(start)]
    sentences += [(more if step > 0 else less).format(abs(step)) for step in steps]
    return _Problem(
        f"{' '.join(sentences)} {ask}",
        str(start + sum(steps)),
        _computation(start, steps),
        {
            "openings": [first.format(start), f"At first there are {start} {unit}."],
            "unit": unit,
            "start": start,
            "steps": steps,
        },
    )


def _computation(start: int, steps: Iterable[int]) -> str:
    return str(start) + "".join(f"{step:+}" for step in steps)


# ---- generic tasks: a question, a right and a wrong solution ----


def _words(rng: random.Random, knobs: Settings) -> list[str]:
    return rng.sample([*_NAMES, *_THINGS, *_WORDS], rng.randint(3, knobs.max_words))


def _reversal(rng: random.Random, knobs: Settings) -> _Problem:
    words = _words(rng, knobs)
    wrong = [*words[::-1][1:], words[-1]]
    return _generic(
        f"Say these words backwards: {' '.join(words)}.",
        *(_concluded(f"The last word is {w[0]}.", " ".join(w)) for w in (words[::-1], wrong)),
    )


def _counting(rng: random.Random, knobs: Settings) -> _Problem:
    few = _words(rng, knobs)[:2]
    shown = [rng.choice(few) for _ in range(rng.randint(3, knobs.max_words + 2))]
    number = shown.count(few[0])

    def chain(number: int) -> str:
        seen = " ".join(f"{few[0]} {place + 1}." for place in range(number)) or "None."
        return _concluded(seen, str(number))

    return _generic(
        f"How often does {few[0]} stand in this list: {' '.join(shown)}?",
        chain(number),
        chain(number + 1),
    )


def _boolean(rng: random.Random, knobs: Settings) -> _Problem:
    count = rng.randint(3, knobs.max_words)
    values = [rng.choice((True, False)) for _ in range(count)]
    negated = [rng.random() < 0.4 for _ in range(count)]
    operators = [rng.choice(("and", "or")) for _ in range(count - 1)]
    shown = [("not " if no else "") + str(v) for v, no in zip(values, negated, strict=True)]
    expression = shown[0]
    for operator, operand in zip(operators, shown[1:], strict=True):
        inner = f"( {expression} )" if " and " in expression or " or " in expression else expression
        expression = f"{inner} {operator} {operand}"

    def chain(mistaken: bool) -> str:
        lines, value = [], values[0] != negated[0]
        for operator, operand, no in zip(operators, values[1:], negated[1:], strict=True):
            right = operand != no
            result = (value and right) if operator == "and" else (value or right)
            lines.append(f"{value} {operator} {right} is {result != mistaken}.")
            value = result != mistaken
        return _concluded("\n".join(lines), str(value))

    # A mistake in every line; the last line may come out right all the same, as with real teachers.
    return _generic(f"What is {expression}?", chain(False), chain(True))


def _last_letters(rng: random.Random, knobs: Settings) -> _Problem:
    words = _words(rng, knobs)[:2]

    def chain(letters: list[str]) -> str:
        steps = [f"{word} ends with {letter}." for word, letter in zip(words, letters, strict=True)]
        return _concluded("\n".join(steps), " ".join(letters))

    return _generic(
        f"What are the last letters of {' and '.join(words)}?",
        chain([word[-1] for word in words]),
        chain([words[0][-1], chr(ord(words[1][-1]) + 1)]),
    )


def _concluded(steps: str, answer: str) -> str:
    return f"{steps}\n{formats.ANSWER_IS} {answer}"


def _generic(question: str, right: str, wrong: str) -> _Problem:
    answer = right.rpartition(formats.ANSWER_IS)[2].strip()
    return _Problem(question, answer, question, {"right": right, "wrong": wrong})


class Family(NamedTuple):
    """A kind of problem.

    Attributes:
      role: one of `readers.ROLES`.
      draw: makes a problem.
      kind: of the answer, one of `answers.KINDS`.
    """

    role: str
    draw: Callable[[random.Random, Settings], _Problem]
    kind: str = "number"


def _larger(rng: random.Random, knobs: Settings) -> _Problem:
    return _story(rng, knobs, least=knobs.max_number + 1, most=2 * knobs.max_number)


FAMILIES: dict[str, Family] = {
    "stories": Family("in_distribution", _story),
    "other_wording": Family("out_of_distribution", _other_wording),
    "larger_numbers": Family("out_of_distribution", _larger),
    "distractors": Family("out_of_distribution", functools.partial(_story, distractors=True)),
    "reversal": Family("generic", _reversal, "text"),
    "counting": Family("generic", _counting),
    "boolean": Family("generic", _boolean, "boolean"),
    "last_letters": Family("generic", _last_letters, "text"),
}


def split_of(key: str) -> str:
    """Returns the split of whatever computes `key`: one in ten is of "test"."""
    return "test" if hashlib.sha256(key.encode()).digest()[0] % 10 == 0 else "train"


def questions(
    family: str, split: str, count: int, knobs: Settings | None = None
) -> list[readers.Question]:
    """Makes problems of one family: the first `count` of an endless, fixed order, none twice.

    Args:
      family: one of `FAMILIES`.
      split: "train" or "test".
      count: how many.
      knobs: None for `Settings()`, which a gin file may set.

    Returns:
      Questions whose `source` holds what `Teacher` makes solutions of.

    Raises:
      ValueError: unknown family or split, or the knobs do not allow as many questions.
    """
    if family not in FAMILIES or split not in SPLITS:
        raise ValueError(
            f"no problems of family '{family}', split '{split}'; families: {', '.join(FAMILIES)}; "
            f"splits: {', '.join(SPLITS)}"
        )
    knobs = knobs or Settings()
    kind, found, attempts = FAMILIES[family].kind, dict[str, readers.Question](), 0
    while len(found) < count:
        rng = random.Random(f"{knobs.seed}/{family}/{attempts}")
        problem = FAMILIES[family].draw(rng, knobs)
        attempts += 1
        if split_of(problem.key) == split and problem.question not in found:
            row = len(found)
            found[problem.question] = readers.Question(
                f"{SET_PREFIX}/{family}/{split}/{row}",
                problem.question,
                problem.answer,
                kind=kind,
                row=row,
                source={"family": family, **problem.solution},
            )
        if attempts > 1000 + 200 * count:
            raise ValueError(
                f"family '{family}' has only {len(found)} questions of split '{split}' with "
                f"{knobs}, {count} are asked for; raise a knob"
            )
    return list(found.values())


def train_questions(families: Sequence[str], count: int) -> list[readers.Question]:
    """Returns training questions of some families, `count` of each, taken in turn."""
    each = [questions(family, "train", count) for family in families]
    return [question for together in zip(*each, strict=True) for question in together]


# ---- the teacher ----


def _results(right: int, other_way: int, rate: float) -> dict[int, float]:
    """Returns result -> probability: right, one off, ten off, or the other operation's."""
    wrong = {right + 1: 0.3, right - 1: 0.3, right + 10: 0.1, right - 10: 0.1, other_way: 0.2}
    possible = {result: share for result, share in wrong.items() if result >= 0 and result != right}
    if not possible:  # far below zero, after several mistakes
        return {right: 1.0}
    total = math.fsum(possible.values())
    return {right: 1 - rate} | {r: rate * share / total for r, share in possible.items()}


def solutions(source: Mapping[str, Any], error_rate: float) -> grammar.Transitions:
    """Returns the grammar of the solutions of a problem; its first state is `("start",)`.

    A story's solution opens in one of two ways, writes every step in one of two forms, and goes on
    from what it has written, mistakes included. A generic task has a right and a wrong solution.
    """

    def story(state: Any) -> Iterator[Transition]:
        steps = source["steps"]
        if state == ("start",):
            for share, opening in zip((0.7, 0.3), source["openings"], strict=True):
                yield Transition(share, opening, (0, source["start"]))
        elif state == ("end",):
            yield Transition(1.0, "\n\n", None)
        elif (index := state[0]) == len(steps):
            yield Transition(1.0, f"\n{formats.ANSWER_IS} {state[1]}", ("end",))
        else:
            value, step = state[1], steps[index]
            sign, size = "+" if step > 0 else "-", abs(step)
            results = _results(value + step, value - step, error_rate)
            for result, probability in results.items():
                sum_ = f"{value} {sign} {size} = {result}"
                to = (index + 1, result)
                yield Transition(0.7 * probability, f"\n{sum_}.", to)
                yield Transition(0.3 * probability, f"\nThen {sum_} {source['unit']}.", to)

    def generic(state: Any) -> Iterator[Transition]:
        if state == ("start",):
            yield Transition(1 - error_rate, source["right"], ("end",))
            yield Transition(error_rate, source["wrong"], ("end",))
        else:
            yield Transition(1.0, "\n\n", None)

    return story if "steps" in source else generic


class Teacher:
    """Writes solutions by a stochastic grammar, in tokens of its own, and makes mistakes.

    Its next-token probabilities are exact, see `teacher.grammar`.

    Args:
      error_rate: probability of a wrong result, at each step of a story and of each generic
        solution.
      vocab_size: of its tokenizer, a byte pair encoding learned on the world's own text.

    Raises:
      ValueError: the error rate is not in [0, 1).
    """

    def __init__(self, error_rate: float = 0.1, vocab_size: int = 400):
        if not 0 <= error_rate < 1:
            raise ValueError(f"Teacher.error_rate: expected a value in [0, 1), got {error_rate}")
        self._error_rate = error_rate
        self._tokenizer = _teacher_tokenizer(vocab_size)
        self._tokens: dict[str, tuple[bytes, ...]] = {}
        self.info = {
            "teacher": {"name": "miniworld grammar", "revision": None},
            "tokenizer": {
                "name": f"miniworld BPE {vocab_size}",
                "sha256": hashlib.sha256(self._tokenizer.serialized_model_proto()).hexdigest(),
            },
            "sampling": {"temperature": 1.0, "stop": "\n\n", "error_rate": error_rate},
        }

    def tokenize(self, pretoken: str) -> tuple[bytes, ...]:
        """Returns the tokens of a pretoken."""
        if pretoken not in self._tokens:
            pieces = self._tokenizer.encode(pretoken, out_type=str)
            self._tokens[pretoken] = tuple(p.replace("\u2581", " ").encode() for p in pieces)
        return self._tokens[pretoken]

    def grammar(self, question: readers.Question) -> grammar.Grammar:
        """Returns the distribution over solutions of a question of this world.

        Raises:
          ValueError: the question is of another data set.
        """
        if question.source.get("family") not in FAMILIES:
            raise ValueError(f"'{question.id}' is no question of the miniworld: {question.source}")
        transitions = solutions(question.source, self._error_rate)
        return grammar.Grammar(("start",), transitions, self.tokenize)

    def sample(
        self, question: readers.Question, *, sample_id: int, top_logprobs: int, seed: int
    ) -> Sample:
        """Writes a solution, see `teacher.collect.Teacher`."""
        rng = random.Random(f"{seed}/{question.id}/{sample_id}")
        steps = list(self.grammar(question).sample(rng))
        topk = []
        for step in steps:
            best = sorted(step.distribution.items(), key=lambda item: (-item[1], item[0]))
            topk.append([(token, _log(p)) for token, p in best[:top_logprobs]])
        return Sample(
            prompt=formats.render_inputs(Format.ZERO_SHOT_CHAIN_OF_THOUGHT, question.question)
            + "\n",
            tokens=[step.token for step in steps],
            logprobs=[_log(step.distribution[step.token]) for step in steps],
            topk=topk,
            end=len(steps) - 2,  # two newlines end a solution
        )

    def distributions(
        self, question: readers.Question, tokens: Iterable[bytes]
    ) -> list[dict[bytes, float]]:
        """Returns next token -> probability before each of some tokens, and after the last.

        Raises:
          ValueError: the teacher never writes these tokens; names the first that does not fit.
        """
        return list(self.grammar(question).distributions(tokens))


def _log(probability: float) -> float:
    return min(0.0, math.log(probability))


@functools.lru_cache(maxsize=4)
def _teacher_tokenizer(vocab_size: int) -> Any:
    """Learns the teacher's byte pair encoding: within pretokens, on text of every family."""
    import sentencepiece

    # All of it given, and nothing left to gin: the tokenizer does not depend on the knobs.
    knobs = Settings(seed=-1, min_steps=2, max_steps=2, max_number=20, max_words=4)
    texts = [
        text
        for name in FAMILIES
        for question in questions(name, "train", 60, knobs)
        for text in (question.question, solution(question))
    ]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([part for text in texts for part in grammar.pretokens(text)]),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n"],
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"Teacher.vocab_size: cannot learn {vocab_size} pieces: "
            f"{str(error).rpartition(']')[2].strip() or error}"
        ) from error
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def solution(question: readers.Question) -> str:
    """Returns the right solution of a question, in the words that the teacher most often uses."""
    state: Any = ("start",)
    text, transitions = "", solutions(question.source, 0.0)
    while state is not None:
        way = max(transitions(state), key=lambda way: way.probability)
        text, state = text + way.text, way.to
    return text.rstrip("\n")


# ---- evaluation sets ----


def prompt(family: str) -> str:
    """Returns worked exemplars of a family in the form of a prompt file.

    Out-of-distribution families show those of `stories`, as the papers' math sets show GSM8K's.
    """
    shown = family if FAMILIES[family].role == "generic" else "stories"
    blocks = [
        f"Q: {question.question}\n{formats.STEP_BY_STEP}\n{solution(question)}"
        for question in questions(shown, "train", Settings().num_exemplars)
    ]
    return "\n\n".join(blocks)


def _read(family: str, data_dir: Any, split: str) -> list[readers.Question]:
    """Returns the test questions; no file is read."""
    knobs = Settings()
    sizes = {
        "in_distribution": knobs.test_questions,
        "out_of_distribution": knobs.test_questions_ood,
        "generic": knobs.test_questions_generic,
    }
    return questions(family, split, sizes[FAMILIES[family].role], knobs)


for _family in FAMILIES:
    readers.register(
        f"{SET_PREFIX}_{_family}",
        readers.QuestionSet(
            functools.partial(_read, _family),
            FAMILIES[_family].role,
            needs_data_dir=False,
            prompt=functools.partial(prompt, _family),
            splits=SPLITS[::-1],
        ),
    )
