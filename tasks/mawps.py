"""The parts of MAWPS as seqio tasks, and the mixture `mawps`; MultiArith is that of `math_ood`."""

from specialize_jax.tasks import math_ood, question_sets  # noqa: F401

question_sets.register(("addsub", "singleeq", "singleop"))
question_sets.register_group("mawps")
