"""Decoding over a step function: no model is known here, arrays come out.

    decode_step = functools.partial(model.decode_step, params)
    cache = model.init_cache(params, inputs, 64)
    tokens, lengths = decoding.greedy(
        decode_step, cache, batch_size=8, max_length=64, eos_id=1,
        start_tokens=model.start_tokens(inputs), pad_id=model.pad_id,
    )

Do this inside one `jax.jit` that takes `params` as an argument: a step bound to arrays outside of
the `jit` would put them into the program as constants.
"""

from specialize_jax.decoding import annotations, calculating, calculator, equations
from specialize_jax.decoding.beam_search import beam
from specialize_jax.decoding.greedy import greedy
from specialize_jax.decoding.sampling import sample
from specialize_jax.decoding.stepwise import repeat
from specialize_jax.decoding.voting import majority_vote

__all__ = [
    "annotations",
    "beam",
    "calculating",
    "calculator",
    "equations",
    "greedy",
    "majority_vote",
    "repeat",
    "sample",
]
