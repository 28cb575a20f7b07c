"""The device's part of the offline job on eight devices; run by `simulated_devices`."""

import jax
import numpy as np
import pyarrow as pa

from specialize_jax import tokenizers
from specialize_jax.data.aligning import batches, modes
from specialize_jax.data.aligning.columns import Columns
from specialize_jax.schemas import records
from tests.fixtures import world


def main() -> None:
    """Prints the modes whose targets are those of one device."""
    assert jax.local_device_count() == 8
    rows = [world.record(index, logprobs=index % 3 > 0) for index in range(20)]
    columns = Columns(pa.Table.from_pylist(rows, schema=records.ARROW_SCHEMA))
    student = tokenizers.load(world.TOKENIZER)
    devices = jax.local_devices()
    placed = batches.on_devices(np.zeros((16, 2)))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 2)}
    for mode in ("one_to_one", "marginal"):
        found = []
        for count in (8, 1):
            batches.jax.local_devices = lambda count=count: devices[:count]
            found.append(modes.align(columns, student, mode=mode, k_out=4).soft)
        for name, many, one in zip(found[0]._fields, *found, strict=True):
            if "logprob" in name:
                # XLA's logarithms differ in the last bit with the size of a device's share.
                np.testing.assert_allclose(np.exp(many), np.exp(one), atol=1e-6)
            else:
                np.testing.assert_array_equal(many, one)
        print(mode)


if __name__ == "__main__":
    main()
