"""Distillation losses: cross-entropy on the teacher's sample, KL to its sparse distribution.

| module        | holds                                                                      |
|---------------|----------------------------------------------------------------------------|
| `divergences` | which divergence, and what becomes of mass that the teacher did not list   |
| `tokens`      | the loss of one token from its logits                                      |
| `sums`        | per-token losses to one loss and to metrics that add over hosts            |
| `thin`        | `match_sample`, `match_distribution`: the losses from dense logits         |
| `chunked`     | the same from hidden states; logits exist one chunk of tokens at a time    |
"""

from specialize_jax.losses.chunked import chunked
from specialize_jax.losses.divergences import DIVERGENCES, TAILS, Rule
from specialize_jax.losses.sums import METRICS
from specialize_jax.losses.thin import match_distribution, match_sample
from specialize_jax.losses.tokens import OBJECTIVES

__all__ = [
    "DIVERGENCES",
    "METRICS",
    "OBJECTIVES",
    "TAILS",
    "Rule",
    "chunked",
    "match_distribution",
    "match_sample",
]
