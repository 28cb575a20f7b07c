"""What every student's config chooses, whatever its family.

These change how a student is computed, never what its parameters are.
"""

from collections.abc import Iterable
from typing import Any

import jax

DTYPES = ("float32", "bfloat16")
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "minimal": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
}
"""What the backward pass finds stored: all, layer inputs only, or the results of projections."""
ATTENTION = ("plain", "fused")
"""Attention written out, or `jax.nn.dot_product_attention` (see `attention.fused`)."""
NUMERICS = ("dtype", "dropout_rate", "remat", "attention")
"""Fields of a config in which two runs of one student may differ."""


def check(config: Any, **choices: Iterable[str]) -> None:
    """Refuses names that nothing stands behind.

    Args:
      config: of a student; `dtype`, `remat` and `attention` are always checked.
      **choices: further fields, and what each may be.

    Raises:
      ValueError: a field is none of its choices; the message lists them.
    """
    shared = {"dtype": DTYPES, "remat": REMAT, "attention": ATTENTION}
    for field, allowed in {**choices, **shared}.items():
        if getattr(config, field) not in allowed:
            raise ValueError(
                f"Expected {field} to be one of {', '.join(allowed)}, "
                f"got {getattr(config, field)!r}."
            )
