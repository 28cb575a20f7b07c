"""What accelerators can do, for shares of a peak and for estimates.

Figures of the makers: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and the pages it
links for each generation (per chip; a pod's network divided by its chips), and NVIDIA's data sheets
(dense, without sparsity).
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """One chip.

    Attributes:
      name: as people call it.
      flops: bfloat16 matrix products, FLOP/s.
      memory: bytes.
      memory_bandwidth: bytes/s.
      link_bandwidth: bytes/s to other chips of a slice, all links together; 0 where not known.
      network_bandwidth: bytes/s to other slices, a chip's share; 0 where not known.
    """

    name: str
    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float = 0


# JAX's `device_kind` -> chip.
CHIPS = {
    "TPU v4": Chip("v4", 275e12, 32 * 2**30, 1.2e12, 300e9),
    "TPU v5 lite": Chip("v5e", 197e12, 16 * 2**30, 0.82e12, 200e9, 25e9 / 8),
    "TPU v5": Chip("v5p", 459e12, 95 * 2**30, 2.765e12, 600e9, 50e9 / 8),
    "TPU v6 lite": Chip("v6e", 918e12, 32 * 2**30, 1.64e12, 448e9, 100e9 / 8),
    "NVIDIA A100-SXM4-80GB": Chip("A100", 312e12, 80e9, 2.04e12, 300e9),
    "NVIDIA H100 80GB HBM3": Chip("H100", 989e12, 80e9, 3.35e12, 450e9),
    "NVIDIA H200": Chip("H200", 989e12, 141e9, 4.8e12, 450e9),
}


def share_of_peak(flops_per_second: float, device_kind: str, count: int) -> float | None:
    """Returns what share of `count` devices' peak a rate is; None where the peak is not known."""
    chip = find(device_kind)
    return None if chip is None else flops_per_second / count / chip.flops


def find(device_kind: str) -> Chip | None:
    """Returns the chip that JAX calls so; None where it is not in the table."""
    return CHIPS.get(device_kind)
