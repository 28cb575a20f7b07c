"""What an evaluation asks: sets in formats, their prompts, and those too long for the student."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from specialize_jax.data import formats as formats_lib
from specialize_jax.evaluation import prompts as prompts_lib
from specialize_jax.evaluation import readers, splits
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import results

_NAMED = 3


class Sampling(NamedTuple):
    """Which questions of a set are asked.

    Attributes:
      number: how many; None for all.
      seed: of the choice.
    """

    number: int | None
    seed: int

    def choose(self, questions: Sequence[Question]) -> list[Question]:
        """Returns those that are asked."""
        if self.number is None:
            return list(questions)
        return readers.sample(questions, self.number, self.seed)


class Asked(NamedTuple):
    """A task: the questions of a set in a format.

    Attributes:
      set_name: of the set.
      label: of the format.
      questions: those that are asked, or would be if they were not too long.
      original: questions in the whole set.
      shots: worked exemplars in each prompt.
      prompts: question id -> prompt.
      too_long: ids of those that are not asked.
      prompt_hash: SHA-256 of the prompt around the question.
    """

    set_name: str
    label: str
    questions: list[Question]
    original: int
    shots: int
    prompts: dict[str, str]
    too_long: frozenset[str]
    prompt_hash: str

    @property
    def name(self) -> str:
        """The task's name in files."""
        return f"{self.set_name}_{self.label}"

    @property
    def modes(self) -> tuple[str, ...]:
        """The extraction modes to report."""
        return readers.modes(self.set_name, formats_lib.parse(self.label), self.questions)

    @property
    def config(self) -> dict[str, str | None]:
        """What results say of it, as far as the set and the prompt make it."""
        return {
            "dataset": self.set_name,
            "role": readers.SETS[self.set_name].role,
            "format": self.label,
            "prompt_hash": self.prompt_hash,
            "validation_rows": self.set_name if self.set_name in splits.NAMES else None,
        }


def build_prompt(
    label: str, name: str, exemplars: str | None, data: str | None, mode: str
) -> prompts_lib.Prompt:
    """Returns how the questions of a set are put in a format; see `evaluation.prompts.build`.

    Raises:
      ValueError: an unknown format or mode, or an in-context format without exemplars.
    """
    forms = prompts_lib.Forms(formats_lib.render_inputs, formats_lib.read_exemplars)
    return prompts_lib.build(
        formats_lib.parse(label), name, forms, exemplars=exemplars, data_dir=data, mode=mode
    )


def ask(
    name: str,
    label: str,
    questions: Sequence[Question],
    prompt: prompts_lib.Prompt,
    sampling: Sampling,
    *,
    length: Callable[[str], int],
    limit: int,
) -> Asked:
    """Renders the prompts of a task; those that are too long are named in a line.

    Args:
      name: of the set.
      label: of the format.
      questions: all of the set.
      prompt: how they are put.
      sampling: which of them are asked.
      length: tokens of a prompt.
      limit: of these, how many may be asked.

    Raises:
      ValueError: there is no question, or not one prompt can be asked.
    """
    if not questions:
        raise ValueError(f"the set '{name}' has no questions")
    chosen = sampling.choose(questions)
    prompts = {question.id: prompt.render(question) for question in chosen}
    lengths = {id_: length(text) for id_, text in prompts.items()}
    too_long = [id_ for id_, found in lengths.items() if found > limit]
    if too_long:
        words = describe_too_long(too_long, lengths, limit)
        if len(too_long) == len(prompts):
            raise ValueError(f"{name}_{label}: {words}; EVAL_INPUT_LENGTH allows {limit}")
        print(f"{name}_{label}: {words}; they count as wrong")
    template = prompt.render(dataclasses.replace(questions[0], question="{question}"))
    return Asked(
        name,
        label,
        chosen,
        len(questions),
        prompt.shots,
        prompts,
        frozenset(too_long),
        results.text_hash(template),
    )


def describe_too_long(
    too_long: Sequence[str], lengths: dict[str, int], limit: int, what: str = "prompts"
) -> str:
    """Returns in words which prompts are not asked.

    Args:
      too_long: their ids.
      lengths: id -> tokens, of all prompts.
      limit: tokens that may be asked.
      what: the prompts are.
    """
    more = ", ..." if len(too_long) > _NAMED else ""
    return (
        f"{len(too_long)} of {len(lengths)} {what} are not asked, they have more than {limit} "
        f"tokens (up to {max(lengths.values())}): {', '.join(too_long[:_NAMED])}{more}"
    )
