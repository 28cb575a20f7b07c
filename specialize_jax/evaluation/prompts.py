"""How the questions of a set are put in a format."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from etils import epath

from specialize_jax.evaluation import readers
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import Format


class Forms(NamedTuple):
    """The four formats as functions, which are not evaluation's own: those of `data.formats`.

    Attributes:
      render_inputs: (format, question, exemplars) -> prompt.
      read_exemplars: (text of a prompt file, where it is from) -> exemplars.
    """

    render_inputs: Callable[[Format, str, Sequence[Any]], str]
    read_exemplars: Callable[[str, str], Sequence[Any]]


class Prompt(NamedTuple):
    """How the questions of a set are put.

    Attributes:
      render: question -> prompt.
      shots: worked exemplars in each.
    """

    render: Callable[[Question], str]
    shots: int


def build(
    fmt: Format,
    name: str,
    forms: Forms,
    *,
    exemplars: str | None = None,
    data_dir: epath.PathLike | None = None,
    mode: str = readers.PROMPT_MODES[0],
) -> Prompt:
    """Returns how the questions of a set are put in a format.

    A set whose in-context prompts are of their own form gives the whole prompt. Others show, in the
    in-context formats, the exemplars of a named file or else those that the set brings.

    Args:
      fmt: the format.
      name: of the set.
      forms: the four formats.
      exemplars: a prompt file; None for those of the set.
      data_dir: folder of public data sets; by default what SPECIALIZE_JAX_DATA names.
      mode: one of `readers.PROMPT_MODES`.

    Raises:
      ValueError: unknown mode, or no exemplars; lists the choices.
    """
    if mode not in readers.PROMPT_MODES:
        raise ValueError(
            f"unknown mode '{mode}' of prompts; choices: {', '.join(readers.PROMPT_MODES)}"
        )
    if not fmt.is_in_context:
        return Prompt(lambda question: forms.render_inputs(fmt, question.question, ()), 0)
    own, folder = readers.SETS[name], readers.folder(data_dir)
    if (render := own.render) is not None:
        return Prompt(lambda question: render(fmt.label, question, folder, mode), own.shots)
    text, where = (
        readers.exemplars(name, folder)
        if exemplars is None
        else (epath.Path(exemplars).read_text(encoding="utf-8"), exemplars)
    )
    shown = forms.read_exemplars(text, where)
    return Prompt(lambda question: forms.render_inputs(fmt, question.question, shown), len(shown))
