"""What the tasks of test sets read: one gin-configured class, without TensorFlow.

In a gin file:

    from specialize_jax.tasks import question_settings
    question_settings.Settings.tokenizer_file = 'model/tokenizer.model'
"""

import dataclasses

import gin

from specialize_jax.evaluation.readers import PROMPT_MODES


@gin.configurable(module="specialize_jax.tasks.question_settings")
@dataclasses.dataclass(frozen=True)
class Settings:
    """The knobs.

    Attributes:
      data_dir: folder of public data sets; None for what SPECIALIZE_JAX_DATA names.
      tokenizer_file: a SentencePiece model, the student's.
      exemplars: a prompt file for in-context formats; None for what each set brings.
      prompts: one of `evaluation.readers.PROMPT_MODES`.
    """

    data_dir: str | None = None
    tokenizer_file: str | None = None
    exemplars: str | None = None
    prompts: str = PROMPT_MODES[0]


def tokenizer_file() -> str:
    """Returns the student's tokenizer.

    Raises:
      ValueError: none is configured.
    """
    file = Settings().tokenizer_file
    if file is None:
        raise ValueError("expected question_settings.Settings.tokenizer_file, got none")
    return file
