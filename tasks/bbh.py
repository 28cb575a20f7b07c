"""The 27 tasks of BIG-Bench Hard as seqio tasks, and the mixture `bbh` of all of them."""

from specialize_jax.evaluation import readers
from specialize_jax.tasks import question_sets

question_sets.register(readers.expand(["bbh"]))
question_sets.register_group("bbh")
