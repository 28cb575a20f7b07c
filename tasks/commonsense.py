"""Questions with options or a yes or no as seqio tasks: AQuA, StrategyQA and CommonsenseQA."""

from specialize_jax.tasks import question_sets

question_sets.register(("aqua", "strategyqa", "commonsenseqa"))
