"""Run by `test_band.py` in its own process, with 8 simulated devices."""

import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax import alignment


def main() -> None:
    """Asserts that a sharded batch gives one device's result, and that nothing moves between."""
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 3, (32, 20, 17)).astype(np.int32)
    costs[::2, np.arange(17), np.arange(17)] = 0
    lengths = rng.integers(0, 21, 32), rng.integers(0, 18, 32)
    run = jax.jit(functools.partial(alignment.dtw, band=3))
    expected = run(costs, *lengths)
    assert 0 < expected.certified.mean() < 1
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    rows = NamedSharding(mesh, PartitionSpec("data"))
    arguments = jax.device_put((costs, *lengths), rows)
    path = run(*arguments)
    jax.tree.map(np.testing.assert_array_equal, path, expected)
    assert all(leaf.sharding.is_equivalent_to(rows, leaf.ndim) for leaf in jax.tree.leaves(path))
    compiled = run.lower(*arguments).compile().as_text()
    for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert name not in compiled, name
    print("equal")


if __name__ == "__main__":
    main()
