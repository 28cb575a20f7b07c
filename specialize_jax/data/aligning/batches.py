"""Batches of few shapes from flat arrays, on all local devices.

Lengths are rounded up and examples padded, so that few shapes are compiled; -1 says "nothing
here". The batch axis is divided among the devices of this process.

Letters: `N` rows of a batch before it is padded, `B` after, `L` its length.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LENGTH_STEP = 32
_MOST_ROWS = 256
# Positions that are independent of each other lie in blocks.
_BLOCK = 256
_MOST_BLOCKS = 32
_LEAST_WIDTH = 8


def power_of_two(size: int, least: int = 1) -> int:
    """Returns the least power of two that is `size` or more, and at least `least`."""
    return max(least, 1 << max(0, size - 1).bit_length())


def of_lengths(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Yields groups of rows of similar length, and the shape [B, L] that holds them.

    Args:
      lengths: [rows] int.
    """
    rounded = np.maximum(-(-lengths // _LENGTH_STEP), 1) * _LENGTH_STEP
    for length in np.unique(rounded).tolist():
        group = np.flatnonzero(rounded == length)
        for start in range(0, len(group), _MOST_ROWS):
            rows = group[start : start + _MOST_ROWS]
            yield rows, (_height(len(rows), _MOST_ROWS), length)


def of_widths(
    positions: np.ndarray, widths: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[int, int, int]]]:
    """Yields positions of similar width in blocks [B, L], -1 behind the last, and [B, L, width].

    Args:
      positions: [N] int.
      widths: [N] int; values at each position.
    """
    rounded = np.maximum(widths, _LEAST_WIDTH)
    rounded = 1 << np.ceil(np.log2(rounded)).astype(np.int64)
    for width in np.unique(rounded).tolist():
        group = positions[rounded == width]
        most = max(_MOST_BLOCKS * _LEAST_WIDTH // width, 1)
        for start in range(0, len(group), most * _BLOCK):
            some = group[start : start + most * _BLOCK]
            height = _height(-(-len(some) // _BLOCK), most)
            block = np.full(height * _BLOCK, -1, np.int64)
            block[: len(some)] = some
            yield block.reshape(height, _BLOCK), (height, _BLOCK, width)


def numbers(start: np.ndarray, lengths: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns [*shape]: from `start` on up to `lengths` numbers along the last axis, then -1.

    Args:
      start: [N, ...] int.
      lengths: [N, ...] int.
      shape: of the result; its first axis may be longer than `N`.
    """
    at = np.arange(shape[-1])
    found = np.where(at < lengths[..., None], start[..., None] + at, -1)
    return _grow(found, shape[0], -1)


def pick(values: np.ndarray, where: np.ndarray, unused: float) -> np.ndarray:
    """Returns `values[where]`, and `unused` where it is -1."""
    used = (where >= 0).reshape(where.shape + (1,) * (values.ndim - 1))
    return np.where(used, values[where], np.asarray(unused, values.dtype))


def fit(values: np.ndarray, shape: tuple[int, int]) -> jax.Array:
    """Returns values [N] or [N, any] on the devices as [B] or [B, L], cut or filled with zeros."""
    if values.ndim > 1:
        values = values[:, : shape[1]]
        values = np.pad(values, [(0, 0), (0, shape[1] - values.shape[1])])
    return on_devices(_grow(values, shape[0], 0))


def on_devices(values: np.ndarray) -> Any:
    """Divides the first axis among the local devices."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return jnp.asarray(values)
    mesh = jax.sharding.Mesh(devices, ("batch",))
    return jax.device_put(
        values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    )


def _height(rows: int, most: int) -> int:
    """Returns the rows of a batch: `most`, a quarter or a sixteenth of it, which devices divide."""
    height = most
    while height // 4 >= max(rows, 1) and height > most // 16:
        height //= 4
    devices = jax.local_device_count()
    return math.ceil(height / devices) * devices


def _grow(values: np.ndarray, height: int, fill: int) -> np.ndarray:
    more = [(0, height - len(values)), *[(0, 0)] * (values.ndim - 1)]
    return np.pad(values, more, constant_values=fill)
