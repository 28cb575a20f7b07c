"""GSM8K as seqio tasks: `gsm8k`, `gsm8k_socratic`, `gsm8k_dev200` and `gsm_hard` in each format."""

from specialize_jax.tasks import question_sets

question_sets.register(("gsm8k", "gsm8k_socratic", "gsm8k_dev200", "gsm_hard"))
