"""What every student's config chooses, whatever its family.

These change how a student is computed, never what its parameters are.
"""

import dataclasses
import numbers
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
    """Refuses names that nothing stands behind, and numbers that no student can have.

    Args:
      config: of a student, a dataclass; `dtype`, `remat` and `attention`, its whole numbers and
        `dropout_rate` are always checked.
      **choices: further fields, and what each may be.

    Raises:
      ValueError: a field is none of its choices, which the message lists, or out of its range.
    """
    _check_numbers(config)
    shared = {"dtype": DTYPES, "remat": REMAT, "attention": ATTENTION}
    for field, allowed in {**choices, **shared}.items():
        if getattr(config, field) not in allowed:
            raise ValueError(
                f"Expected {field} to be one of {', '.join(allowed)}, "
                f"got {getattr(config, field)!r}."
            )


def _check_numbers(config: Any) -> None:
    for field in dataclasses.fields(config):
        if field.type is int:
            least, value = int(field.name != "pad_id"), getattr(config, field.name)
            if not isinstance(value, numbers.Integral) or value < least:
                raise ValueError(
                    f"Expected {field.name} to be a whole number from {least} on, got {value!r}."
                )
    rate = config.dropout_rate
    if not isinstance(rate, numbers.Real) or not 0 <= float(rate) < 1:
        raise ValueError(f"Expected dropout_rate to be in [0, 1), got {rate!r}.")
