"""The papers' out-of-distribution sets as seqio tasks, and the mixture `math_ood` of all three."""

from specialize_jax.tasks import question_sets

question_sets.register(("multiarith", "asdiv", "svamp"))
question_sets.register_group("math_ood")
