"""Run by `test_program.py` in its own process, with 8 simulated devices."""

import re

import jax
import numpy as np

from specialize_jax import losses, models
from specialize_jax.apps import program
from specialize_jax.schemas import Kind, batches
from specialize_jax.training import optimizers, partitioning

ROWS, STEPS = 8, 2


def main() -> None:
    """Asserts that real students train on every mesh as on one device, rows never gathered."""
    small = {"dropout_rate": 0.0, "num_heads": 8, "vocab_size": 512}
    for model, meshes in (
        (models.build("t5_1_1_tiny", **small), [(8, 1), (2, 2)]),
        (models.build("gpt2_tiny", **small, pad_id=0), [(2, 4)]),
    ):
        batch = batch_for(model)
        expected = _train(model, batch, jax.devices()[:1], 1, 1)
        for fsdp, parts in meshes:
            found = _train(model, batch, jax.devices(), fsdp, parts)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                found,
                expected,
            )
    print("equal")


def batch_for(model: models.Model) -> dict[str, np.ndarray]:
    vocabulary = model.config.vocab_size
    layout = batches.fields(16, 8, 2, vocabulary)
    if model.decoder_only:
        layout = batches.decoder_only_fields(16, 2, vocabulary)
    rng = np.random.default_rng(0)
    batch = {
        name: np.zeros((ROWS, *field.shape), field.dtype)
        if field.dtype != np.int32
        else rng.integers(0, 100, (ROWS, *field.shape)).astype(np.int32)
        for name, field in layout.items()
    }
    for name, value in batch.items():
        if name.endswith(("segment_ids", "causal_attention")):
            value[:] = 1
        if name.endswith("positions"):
            value[:] = np.arange(value.shape[1])
    batch["decoder_soft_kind"][:] = Kind.ONE_HOT
    batch["decoder_soft_ids"][..., 1] += 100
    batch["decoder_format"][:] = 0
    batch["decoder_loss_weights"][:] = rng.integers(0, 2, batch["decoder_loss_weights"].shape)
    return batch


def _train(model: models.Model, batch: dict, devices: list, fsdp: int, parts: int):
    mesh = partitioning.make_mesh(fsdp=fsdp, model=parts, devices=devices)
    course = optimizers.schedule("constant", base_learning_rate=1e-2)
    made = program.build(
        model,
        mesh,
        objective="match_distribution",
        rule=losses.Rule(),
        # Without epsilon1, an update by a gradient of rounding noise is as large as any.
        tx=optimizers.build(
            "adafactor", course, axes=model.axes(), min_dim_size_to_factor=8, epsilon1=1e-6
        ),
        course=course,
        loss_chunk=4,
    )
    placed = partitioning.shard_batch(batch, mesh)
    state = made.start(None)
    if parts == 1 and fsdp > 1:
        _assert_rows_stay(made.train_step.lower(state, placed).compile().as_text(), model)
    with jax.transfer_guard("disallow"):  # nothing moves between host and devices unasked
        for _ in range(STEPS):
            state, _ = jax.block_until_ready(made.train_step(state, placed))
    return jax.device_get((state.params, state.opt_state))


def _assert_rows_stay(text: str, model: models.Model) -> None:
    """No activation [rows of all devices, length, width] exists on a device."""
    width = model.config.d_model
    assert not re.search(rf"f32\[{ROWS},(16|8),{width}\]", text)


if __name__ == "__main__":
    main()
