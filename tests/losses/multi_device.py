"""Run by `test_multi_device.py` in its own process, with 8 simulated devices."""

import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax import losses
from tests.losses import dense

N, D, V, K = 128, 8, 32, 3


def collectives(hlo: str) -> list[tuple[str, str]]:
    """Result shape and name of every collective, those of loops included."""
    names = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return re.findall(rf"= (\w+\[[\d,]*\])\S* ({names})\(", hlo)


def main() -> None:
    """Asserts that a 4 x 2 mesh gives one device's result, and what moves between devices."""
    rng = np.random.default_rng(0)
    targets, soft = dense.random_targets(rng, N, V, K)
    hidden = rng.normal(size=(N, D)).astype(np.float32)
    unembed = rng.normal(size=(D, V)).astype(np.float32)
    weights = np.ones(N, np.float32)

    def value_and_gradients(data_shards, **shardings):
        def loss(hidden, unembed, *rest):
            return losses.chunked(hidden, unembed, *rest, chunk=8, data_shards=data_shards)[0]

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), **shardings)

    arguments = (hidden, unembed, targets, soft, weights)
    expected = value_and_gradients(1)(*arguments)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    columns = NamedSharding(mesh, PartitionSpec(None, "model"))
    for data_shards in (1, 4):
        sharded = value_and_gradients(
            data_shards,
            in_shardings=(rows, columns, rows, rows, rows),
            out_shardings=(None, (rows, columns)),
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            sharded(*arguments),
            expected,
        )
    moved = collectives(sharded.lower(*arguments).compile().as_text())
    # The gradient of the unembedding ([D, V / 2] a device) is summed once, and nothing is gathered.
    assert [name for _, name in moved].count("all-gather") == 0, moved
    assert moved.count((f"f32[{D},{V // 2}]", "all-reduce")) == 1, moved
    # In the loop: a few numbers a token, and the gradient of its hidden state (8 tokens x D).
    sizes = [np.prod([int(n) for n in re.findall(r"\d+", shape[3:])]) for shape, _ in moved]
    assert max(sizes) <= D * V // 2, moved
    print("equal")


if __name__ == "__main__":
    main()
