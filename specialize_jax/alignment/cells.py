"""How a cell of the dynamic program is written: `4 * D + move`, so that `min` decides ties too."""

from typing import Any

import numpy as np

DIAGONAL, UP, LEFT = 0, 1, 2  # in the order in which ties are decided
MOVE_BITS = 2
MOVE_MASK = (1 << MOVE_BITS) - 1


def infinity(state_dtype: Any) -> int:
    """Returns the cell that stands for "no path leads here", its move bits clear."""
    return int(np.iinfo(state_dtype).max) & ~MOVE_MASK


def largest_cell(state_dtype: Any) -> int:
    """Returns the largest `D` that a state of this type can hold."""
    return (int(np.iinfo(state_dtype).max) >> MOVE_BITS) - 1
