"""Run by `test_multi_device.py` in its own process, with 8 simulated devices."""

import tempfile

import jax
import numpy as np
from jax.sharding import PartitionSpec

from specialize_jax import training
from specialize_jax.training import partitioning
from tests.training import toy

STEPS = 4


def main() -> None:
    """Asserts that a 4 x 2 mesh trains as one device does, and restores on another mesh."""
    assert jax.device_count() == 8
    one = training.make_train_step(toy.loss_fn, toy.make_tx(), learning_rate=toy.RATE)
    expected = toy.start()
    for step in range(STEPS):
        expected, _ = one(expected, toy.batch_at(step * toy.BATCH))
    with tempfile.TemporaryDirectory() as folder:
        first = _fit(2, partitioning.FULLY_SHARDED_RULES, folder, STEPS // 2)
        assert first.params["mlp"]["in"].sharding.spec == PartitionSpec("data", "model")
        assert first.opt_state[0].mu["mlp"]["in"].sharding.spec == PartitionSpec("data", "model")
        final = _fit(4, partitioning.STANDARD_RULES, folder, STEPS)
    assert final.step == STEPS
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), final, expected
    )
    print("equal")


def _fit(model: int, rules: partitioning.Rules, folder: str, steps: int):
    mesh, like, start, train_step = toy.on_mesh(model, rules)
    return training.fit(
        like,
        start,
        train_step,
        model_dir=folder,
        batches=toy.batches,
        data_state=toy.data_state,
        batch_size=toy.BATCH,
        train_steps=steps,
        mesh=mesh,
    )


if __name__ == "__main__":
    main()
