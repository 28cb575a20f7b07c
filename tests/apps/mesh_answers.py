"""Run by `test_held_out.py` in its own process, with 8 simulated devices."""

import jax
import numpy as np

from specialize_jax import models
from specialize_jax.apps import answering
from specialize_jax.training import partitioning

ROWS, LENGTH, ANSWER = 8, 12, 6


def main() -> None:
    """Asserts that a student with its parameters on a mesh answers as on one device."""
    model = models.build("t5_1_1_tiny", num_heads=8, num_encoder_layers=1, num_decoder_layers=1)
    params = model.init(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(3, 100, (ROWS, LENGTH)).astype(np.int32)
    tokens[::2, 7:] = model.pad_id
    expected = np.asarray(answering.greedy_decoder(model, 1, ANSWER)(params, tokens))
    assert len({tuple(row) for row in expected}) > 1
    for fsdp, parts in ((8, 1), (2, 2)):
        mesh = partitioning.make_mesh(fsdp=fsdp, model=parts)
        shardings = jax.tree.map(
            lambda names, leaf, mesh=mesh: jax.NamedSharding(
                mesh,
                partitioning.partition_spec(leaf.shape, names, mesh, partitioning.STANDARD_RULES),
            ),
            model.axes(),
            params,
            is_leaf=lambda node: isinstance(node, tuple),
        )
        decode = answering.greedy_decoder(model, 1, ANSWER, mesh=mesh)
        placed = partitioning.shard_batch({"tokens": tokens}, mesh)["tokens"]
        found = decode(jax.device_put(params, shardings), placed)
        assert found.sharding.is_fully_replicated
        np.testing.assert_array_equal(found, expected)
    print("equal")


if __name__ == "__main__":
    main()
