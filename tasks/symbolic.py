"""Last letters and coin flips as seqio tasks, and their mixtures over all lengths."""

from specialize_jax.evaluation import readers
from specialize_jax.tasks import question_sets

for _group in ("last_letters", "coin_flip"):
    question_sets.register(readers.expand([_group]))
    question_sets.register_group(_group)
