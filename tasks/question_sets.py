"""Test sets as seqio tasks, for the modules that register them.

A task is named `<set>_<format>`, as `gsm8k_zero_shot_chain_of_thought`; its metrics are accuracies,
`exact_match,<mode>`, one for each extraction mode that fits the set. Splits are those of the set;
where `evaluation.splits` has rows of ours, "validation" and "test_ours" are the two parts of the
split that is scored.

A group of sets is a mixture of its tasks in a format, `<group>_<format>`, which seqio's evaluator
takes apart again; without a format the name stands for zero-shot chains of thought.
"""

import functools
from collections.abc import Sequence

import seqio

from specialize_jax.data import formats, question_tasks, vocabulary
from specialize_jax.evaluation import prompts, readers, scoring, splits
from specialize_jax.schemas import Format
from specialize_jax.tasks import question_settings

OURS = {"validation": "validation", "test_ours": "test"}
"""Split of a task -> part of `evaluation.splits`."""
VOCABULARY = vocabulary.LazyVocabulary(question_settings.tokenizer_file)
FORMS = prompts.Forms(formats.render_inputs, formats.read_exemplars)


def task_name(name: str, fmt: Format) -> str:
    """Returns the name of the task of a set, or of the mixture of a group, in a format."""
    return f"{name}_{fmt.label}"


def register(names: Sequence[str]) -> None:
    """Registers the tasks of some sets, in every format.

    Args:
      names: of `evaluation.readers.SETS`.
    """
    for name in names:
        own = readers.SETS[name].splits
        for fmt in Format:
            question_tasks.add(
                task_name(name, fmt),
                functools.partial(_rows, name, fmt),
                functools.partial(_accuracies, name, fmt),
                splits=(*own, *OURS) if name in splits.NAMES else own,
                vocabulary=VOCABULARY,
            )


def register_group(group: str) -> None:
    """Registers the mixtures of a group whose sets are registered.

    Args:
      group: of `evaluation.readers.GROUPS`.
    """
    for fmt in Format:
        members = [(task_name(name, fmt), 1.0) for name in readers.expand([group])]
        seqio.MixtureRegistry.add(task_name(group, fmt), members)
        if fmt == Format.ZERO_SHOT_CHAIN_OF_THOUGHT:
            seqio.MixtureRegistry.add(group, members)


def questions(name: str, split: str) -> list[readers.Question]:
    """Returns the questions of a split of a task.

    Raises:
      ValueError, FileNotFoundError, SchemaError: as `readers.read`.
    """
    data_dir = question_settings.Settings().data_dir
    if name in splits.NAMES and split in OURS:
        rows = splits.rows(name, OURS[split])
        return [one for one in readers.read(name, data_dir) if one.row in rows]
    return readers.read(name, data_dir, split)


def _rows(name: str, fmt: Format, split: str) -> list[question_tasks.Row]:
    knobs = question_settings.Settings()
    prompt = prompts.build(
        fmt,
        name,
        FORMS,
        exemplars=knobs.exemplars,
        data_dir=knobs.data_dir,
        mode=knobs.prompts,
    )
    return [
        question_tasks.Row(
            prompt.render(one),
            f"{formats.ANSWER_IS} {one.answer}",
            question_tasks.Gold(one.id, one.answer, one.kind),
        )
        for one in questions(name, split)
    ]


def _accuracies(
    name: str, fmt: Format, golds: Sequence[question_tasks.Gold], predictions: Sequence[str]
) -> dict[str, float]:
    asked = [readers.Question(gold.question_id, "", gold.answer, gold.kind) for gold in golds]
    modes = readers.modes(name, fmt, asked)
    scores = [
        scoring.score(prediction, question, modes)
        for question, prediction in zip(asked, predictions, strict=True)
    ]
    return {
        f"exact_match,{mode}": scoring.summarize([score[mode] for score in scores]).accuracy
        for mode in modes
    }
