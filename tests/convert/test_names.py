import jax
import pytest
from flax import traverse_util

from specialize_jax.convert import t5_hf
from specialize_jax.models import t5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", t5.ACTIVATIONS)
def test_the_table_lists_every_parameter_once(tied, activation):
    config = t5.T5Config(
        d_model=4, d_kv=2, d_ff=6, num_heads=2, num_encoder_layers=2, num_decoder_layers=3,
        vocab_size=8, activation=activation, tied_embeddings=tied,
    )  # fmt: skip
    shapes = jax.eval_shape(t5.build(config).init, jax.random.key(0))
    paths = traverse_util.flatten_dict(shapes, sep="/")
    rows = t5_hf.table(config)
    assert sorted(row.ours for row in rows) == sorted(paths)
    theirs = [name for row in rows for name in row.tensors()]
    assert len(set(theirs)) == len(theirs)
    for row in rows:
        assert (row.layers is not None) == ("/layers/" in row.ours)
