"""Run by `test_multi_device.py` in its own processes, with simulated devices.

python -m tests.training.multi_device [MODEL_DIR STEPS]: without arguments the checks on 8 devices,
else a run over however many devices there are.
"""

import functools
import sys
import tempfile

import jax
import numpy as np
from jax.sharding import PartitionSpec

from specialize_jax import training
from tests.training import toy

STEPS = 4


def main() -> None:
    """Asserts that each mesh trains as one device does, and restores on another mesh."""
    assert jax.device_count() == 8
    one = training.make_train_step(toy.loss_fn, toy.make_tx(), learning_rate=toy.RATE)
    expected = toy.start()
    for step in range(STEPS):
        expected, _ = one(expected, toy.batch_at(step * toy.BATCH))
    for meshes in ([(4, 2), (1, 4)], [(1, 1), (8, 1)], [(2, 1), (1, 8)]):
        with tempfile.TemporaryDirectory() as folder:
            (fsdp, model), second = meshes
            first = _fit(fsdp, model, folder, STEPS // 2)
            spec = first.params["mlp"]["in"].sharding.spec
            assert spec == PartitionSpec("fsdp", "model")
            assert first.opt_state[0].mu["mlp"]["in"].sharding.spec == spec
            # The checkpoint goes on in another mesh.
            final = _fit(*second, folder, STEPS)
        assert final.step == STEPS
        _assert_close(final, expected)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _fit(2, 2, folder, STEPS, batches=_nan_at_the_third_update)
        except training.NotFiniteError as error:
            assert f"saved as {folder}/checkpoints/2. " in str(error)
        # What it left goes on as if nothing had been.
        final = _fit(4, 1, folder, STEPS)
        _assert_close(final, expected)
    print("equal")


def _nan_at_the_third_update(start: int):
    for number, batch in enumerate(toy.batches(start), start // toy.BATCH + 1):
        yield batch | {"weights": batch["weights"] * np.float32(np.nan if number > 2 else 1)}


def _assert_close(ours, expected):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, ours, expected)


def _fit(fsdp: int, model: int, folder: str, steps: int, batches=toy.batches):
    mesh, like, start, train_step = toy.on_mesh(fsdp, model)
    return training.fit(
        like,
        start,
        train_step,
        model_dir=folder,
        batches=batches,
        data_state=toy.data_state,
        batch_size=toy.BATCH,
        train_steps=steps,
        mesh=mesh,
        log_period=1,
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        _fit(jax.device_count() // 2, 2, sys.argv[1], int(sys.argv[2]))
        print("on", jax.device_count())
    else:
        main()
