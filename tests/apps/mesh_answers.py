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
    tokens[::2, 6] = tokens[1::2, -1] = 1
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
        streamed = _streamed(model, jax.device_put(params, shardings), tokens, mesh)
        assert streamed == {place: [row.tolist()] for place, row in enumerate(expected)}
        np.testing.assert_array_equal(found, expected)
    print("equal")


class _Numbers:
    """A tokenizer whose texts are its ids; nothing ends."""

    eos_id = 1
    vocab_size = 100

    def encode(self, text):
        return [int(number) for number in text.split()][:-1]  # the end is put back

    def decode(self, ids):
        return [*ids, *[0] * (ANSWER - len(ids))]

    def pieces(self, ids):
        return [str(number) for number in ids]


def _streamed(model, params, tokens, mesh):
    prompts = [" ".join(str(number) for number in row if number) for row in tokens]
    settings = answering.Settings(max_length=ANSWER)
    student = answering.answerer(
        model, _Numbers(), settings, batch_size=8, input_length=LENGTH, mesh=mesh
    )
    return dict(student.stream(params, prompts, range(len(prompts))))


if __name__ == "__main__":
    main()
