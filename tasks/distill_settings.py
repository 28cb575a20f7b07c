"""What the tasks of `distill` read: one gin-configured function, without TensorFlow.

In a gin file:

    from specialize_jax.tasks import distill_settings
    distill_settings.corpus.aligned_dirs = ('aligned',)
"""

from collections.abc import Sequence

import gin

from specialize_jax.data import corpus as corpus_lib
from specialize_jax.data import formats


@gin.configurable(module="specialize_jax.tasks.distill_settings")
def corpus(
    aligned_dirs: Sequence[str] = gin.REQUIRED,
    validation: int | str = 200,
    k_out: int | None = None,
    num_exemplars: int = formats.NUM_EXEMPLARS,
    train_on_validation: bool = False,
) -> corpus_lib.Corpus:
    """Returns the corpus that the tasks read; its arguments come from gin.

    Args:
      aligned_dirs: folders written by `specialize-jax align`. The first chain of a question is the
        one that the answer-only formats and the exemplars use.
      validation: number of questions kept out of training, or an .npy file with rows of GSM8K
        train.
      k_out: entries kept per target token; None for all that are stored.
      num_exemplars: worked questions in an in-context prompt.
      train_on_validation: whether those questions stay in training too, as in 2301.12726's code.
    """
    return corpus_lib.read_corpus(
        tuple(aligned_dirs), validation, k_out, num_exemplars, train_on_validation
    )
