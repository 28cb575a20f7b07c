"""What follows from a compiler's figures, by hand."""

import jax
import pytest

from specialize_jax import models
from specialize_jax.apps import compiled
from specialize_jax.training import chips, hlo, partitioning

CHIP = chips.Chip("made up", 1e12, 2**30, 1e9, 1e6, 1e3)


def test_each_resource_alone():
    traffic = {
        "all-gather": hlo.Traffic(3, 5_000),
        "all-reduce": hlo.Traffic(2, 1_000),  # passes the links twice
        "between-slices": hlo.Traffic(1, 400),
    }
    found = compiled.estimate(CHIP, 2e12, 3e9, traffic)
    assert found == pytest.approx({"arithmetic": 2, "memory": 3, "links": 0.007, "network": 0.4})
    assert "network" not in compiled.estimate(CHIP._replace(network_bandwidth=0), 1, 1, traffic)
    assert compiled.estimate(None, 2e12, 3e9, traffic) == {}


def test_a_token_reads_each_weight_and_the_cache_once():
    model = models.build("t5_1_1_tiny", d_model=32, d_kv=8, d_ff=64, vocab_size=128)
    mesh = jax.sharding.AbstractMesh((2, 2, 2), partitioning.AXES)
    rows, inputs, most, layers = 8, 24, 10, model.config.num_decoder_layers
    inner = model.config.num_heads * 8
    per_token = {"all-reduce": hlo.Traffic(6, 1_000)}
    before = {"all-gather": hlo.Traffic(1, 7_000)}
    asked = compiled.Asked("decode", rows, (inputs, most))
    found = compiled.decoding_estimates(asked, model, mesh, CHIP, 10**6, before, per_token)
    # Self-attention, what attends to the inputs less their keys and values, feed-forward, head.
    weights = layers * (4 * 32 * inner + 2 * 32 * inner + 3 * 32 * 64) + 32 * 128
    keys_values = rows * layers * 2 * (inputs + most) * inner
    # A byte an input; for each row what its columns hold, and how many it has read; the column.
    masks = rows * inputs + 4 * (rows * most + rows + 1)
    # A copy of the weights lies on four chips, the cache on all eight.
    read = 4 * weights / 4 + (4 * keys_values + masks) / 8
    assert found["token"]["memory"] == pytest.approx(read / 1e9)
    assert found["token"]["links"] == pytest.approx(2_000 / 1e6)
    attended = layers * 2 * (inputs + most) * inner
    assert found["token"]["arithmetic"] == pytest.approx(2 * (weights + attended) * rows / 8 / 1e12)
    assert found["inputs"]["memory"] == pytest.approx(2 * 10**6 / 1e9)
    assert found["inputs"]["links"] == pytest.approx(7_000 / 1e6)


def test_the_least_time_of_decoding_counts_every_token():
    found = compiled.Found(
        asked=compiled.Asked("decode", 4, (16, 8)),
        mesh={"data": 1, "fsdp": 1, "model": 1},
        chips=1,
        seconds=1.0,
        state_bytes=0,
        peak_bytes=0,
        flops=0,
        traffic={},
        token_traffic={},
        estimates={"inputs": {"arithmetic": 0.5, "links": 0.25}, "token": {"memory": 0.125}},
    )
    assert found.least_seconds == 0.5 + 8 * 0.125
