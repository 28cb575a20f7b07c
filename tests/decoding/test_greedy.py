import functools

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax import decoding
from specialize_jax.models import t5

# Row i: the logits of what follows token i. 0 starts, 1 ends.
CHAIN = np.full((6, 6), -1.0, np.float32)
for _token, _next in {0: 2, 2: 3, 3: 4, 4: 1, 5: 5}.items():
    CHAIN[_token, _next] = 1.0


def _chain_step(cache, tokens):
    return jnp.asarray(CHAIN)[tokens], {"calls": cache["calls"] + 1}


def test_follows_a_chain_to_its_end_and_pads():
    tokens, lengths = decoding.greedy(
        _chain_step, {"calls": jnp.int32(0)}, batch_size=2, max_length=7, eos_id=1
    )
    np.testing.assert_array_equal(tokens, [[2, 3, 4, 1, 0, 0, 0]] * 2)
    np.testing.assert_array_equal(lengths, [4, 4])


def test_row_without_an_end_is_full():
    tokens, lengths = decoding.greedy(
        _chain_step, {"calls": jnp.int32(0)}, batch_size=1, max_length=3, eos_id=1, start_tokens=5
    )
    np.testing.assert_array_equal(tokens, [[5, 5, 5]])
    np.testing.assert_array_equal(lengths, [3])


def test_rows_may_start_from_tokens_of_their_own():
    tokens, _ = decoding.greedy(
        _chain_step,
        {"calls": jnp.int32(0)},
        batch_size=3,
        max_length=2,
        eos_id=1,
        start_tokens=jnp.array([3, 0, 5]),
    )
    np.testing.assert_array_equal(tokens, [[4, 1], [2, 3], [5, 5]])


def test_rows_end_apart_and_the_loop_ends_with_the_last():
    """Row 0 ends at once; row 1 at its third step; nothing is asked for after that."""
    asked = []

    def step(cache, tokens):
        jax.debug.callback(lambda t: asked.append(t.tolist()), tokens, ordered=True)
        logits = jnp.zeros((2, 4)).at[0, 1].set(1.0)
        logits = logits.at[1, jnp.where(cache == 2, 1, 3)].set(1.0)
        return logits, cache + 1

    tokens, lengths = jax.block_until_ready(
        decoding.greedy(step, jnp.int32(0), batch_size=2, max_length=9, eos_id=1, pad_id=2)
    )
    jax.effects_barrier()
    np.testing.assert_array_equal(tokens, [[1] + [2] * 8, [3, 3, 1] + [2] * 6])
    np.testing.assert_array_equal(lengths, [1, 3])
    assert asked == [[0, 0], [1, 3], [2, 3]]


def test_ties_go_to_the_lowest_id():
    logits = jnp.array([[0.0, 2.0, 2.0], [-jnp.inf, -jnp.inf, -jnp.inf]])
    tokens, _ = decoding.greedy(
        lambda cache, _: (logits, cache), 0, batch_size=2, max_length=1, eos_id=9
    )
    np.testing.assert_array_equal(tokens[:, 0], jnp.argmax(logits, axis=-1))


def test_equals_a_loop_of_full_forward_passes():
    config = t5.T5Config(
        d_model=16, d_kv=4, d_ff=24, num_heads=2, num_encoder_layers=1, num_decoder_layers=2,
        vocab_size=12,
    )  # fmt: skip
    model = t5.build(config)
    params = jax.jit(model.init)(jax.random.key(4))
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 12, (8, 5), dtype=np.int32)

    @jax.jit
    def generate(params, inputs):
        step = functools.partial(model.decode_step, params)
        cache = model.init_cache(params, inputs, 6)
        return decoding.greedy(step, cache, batch_size=8, max_length=6, eos_id=1)

    tokens, lengths = generate(params, inputs)

    logits = jax.jit(model.logits)
    decoder = np.zeros((8, 7), np.int32)
    done = np.zeros(8, bool)
    for position in range(6):
        batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": decoder[:, :6]}
        best = np.argmax(logits(params, batch)[:, position], axis=-1)
        decoder[:, position + 1] = np.where(done, 0, best)
        done |= best == 1
    np.testing.assert_array_equal(tokens, decoder[:, 1:])
    ends = [row.index(1) + 1 if 1 in row else 6 for row in decoder[:, 1:].tolist()]
    np.testing.assert_array_equal(lengths, ends)
    assert 0 < sum(end < 6 for end in ends) < 8  # both kinds of rows were tested
