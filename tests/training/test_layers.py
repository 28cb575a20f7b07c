"""Each layer of a stack as a parameter of its own, against plain optax on layers kept apart."""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from specialize_jax import models
from specialize_jax.training import layers, optimizers
from tests.quick_jit import quick_jit

FACTORED_FROM = 4
DEFAULTS = {"min_dim_size_to_factor": FACTORED_FROM}


def _apart(tree, axes):
    """What an unscanned model has: a list of layers in place of each stack."""
    return jax.tree.map(
        lambda leaf, names: list(leaf) if layers.LAYERS in names else leaf, tree, axes
    )


def _fields(state):
    """Adafactor's moments without the placeholders of size 1 a parameter."""
    return {name: getattr(state[0], name) for name in ("v_row", "v_col", "v")}


def _random(rng, shape, names):
    """Layers differ in size by powers of ten: statistics over a stack would be far off."""
    value = rng.normal(size=shape)
    if layers.LAYERS in names:
        value *= (10.0 ** rng.uniform(-3, 3, shape[0])).reshape(-1, *[1] * (len(shape) - 1))
    return jnp.float32(value)


def _trees(rng, shapes, axes):
    while True:
        yield {name: _random(rng, shape, axes[name]) for name, shape in shapes.items()}


def _run(tx, params, gradients):
    state, update = tx.init(params), quick_jit(tx.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def _assert_equal(stacked, apart, axes):
    """Every leaf of the params and of the state; placeholders may be as many as layers."""
    (params, state), (params_apart, state_apart) = stacked, apart
    np.testing.assert_array_equal(state[0].count, state_apart[0].count)
    pairs = [(_apart(params, axes), params_apart)]
    pairs += [
        (_apart(tree, axes), _fields(state_apart)[name]) for name, tree in _fields(state).items()
    ]
    for ours, expected in pairs:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-30), ours, expected
        )


sizes = st.sampled_from([1, 3, 4, 5, 7])
settings = st.sampled_from(
    [
        {},
        {"beta1": 0.9, "weight_decay": 0.01},
        {"multiply_by_parameter_scale": False, "clipping_threshold": None},
        {"factored": False, "step_offset": -10},
    ]
)


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(
    encoder=st.lists(sizes, min_size=1, max_size=4),
    decoder=st.lists(sizes, min_size=1, max_size=4),
    plain=st.lists(sizes, min_size=0, max_size=3),
    given_settings=settings,
    seed=st.integers(0, 99),
)
def test_a_step_on_stacks_is_a_step_on_each_layer(encoder, decoder, plain, given_settings, seed):
    shapes = {"encoder": tuple(encoder), "decoder": tuple(decoder), "plain": tuple(plain)}
    axes = {
        name: tuple(
            "layers" if name != "plain" and not axis else None for axis in range(len(shape))
        )
        for name, shape in shapes.items()
    }
    drawn = itertools.islice(_trees(np.random.default_rng(seed), shapes, axes), 3)
    params, *gradients = drawn
    build = lambda **more: optimizers.build(  # noqa: E731
        "adafactor", 1e-2, **DEFAULTS, **given_settings, **more
    )
    stacked = _run(build(axes=axes), params, gradients)
    apart = _run(build(), _apart(params, axes), [_apart(g, axes) for g in gradients])
    _assert_equal(stacked, apart, axes)


def test_without_axes_the_stack_is_one_parameter():
    """What the test above would miss if layers did not differ, or were many."""
    shapes, axes = {"k": (5, 6, 6)}, {"k": ("layers", "embed", "mlp")}
    params, gradient = itertools.islice(_trees(np.random.default_rng(0), shapes, axes), 2)
    ours, _ = _run(optimizers.build("adafactor", 1e-2, axes=axes, **DEFAULTS), params, [gradient])
    whole, _ = _run(optimizers.build("adafactor", 1e-2, **DEFAULTS), params, [gradient])
    moved = [np.abs(after["k"] - params["k"]).max(axis=(1, 2)) for after in (ours, whole)]
    scale = np.sqrt(np.mean(np.square(params["k"]), axis=(1, 2)))
    # Every layer moves by its own size, or all by the largest one's.
    assert np.ptp(np.log(moved[0] / scale)) < 1
    assert np.ptp(np.log(moved[1] / scale)) > 3


def test_a_scanned_student_trains_as_an_unscanned_one():
    model = models.build("t5_1_1_tiny", num_encoder_layers=1, num_decoder_layers=2, vocab_size=50)
    axes = model.axes()
    tokens = jnp.arange(12).reshape(2, 6) + 1
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}

    def loss(params):
        logits = model.logits(params, batch)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1))

    def loss_apart(params):
        together = jax.tree.map(
            lambda leaf: jnp.stack(leaf) if isinstance(leaf, list) else leaf,
            params,
            is_leaf=lambda node: isinstance(node, list),
        )
        return loss(together)

    def train(tx, loss, params):
        state = tx.init(params)
        step = quick_jit(lambda params, state: tx.update(jax.grad(loss)(params), state, params))
        for _ in range(3):
            updates, state = step(params, state)
            params = optax.apply_updates(params, updates)
        return params, state

    params = quick_jit(model.init)(jax.random.key(0))
    stacked = train(optimizers.build("adafactor", 1e-2, axes=axes, **DEFAULTS), loss, params)
    apart = train(optimizers.build("adafactor", 1e-2, **DEFAULTS), loss_apart, _apart(params, axes))
    _assert_equal(stacked, apart, axes)


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(
    shape=st.lists(st.integers(4, 6), min_size=2, max_size=3), stacked=st.booleans(), data=st.data()
)
def test_names_of_moments_are_those_of_the_axes_they_keep(shape, stacked, data):
    """A gradient in one place: a moment's largest entry is at that place's index of its axes."""
    place = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    names = tuple("xyz"[: len(shape)])
    gradient = np.zeros(shape, np.float32)
    gradient[place] = 1
    if stacked:
        names, place, gradient = ("layers", *names), (1, *place), np.stack([0 * gradient, gradient])
    params, axes = {"k": jnp.ones(gradient.shape)}, {"k": names}
    tx = optimizers.build("adafactor", 1e-2, axes=axes, **DEFAULTS)
    _, state = quick_jit(tx.update)({"k": jnp.asarray(gradient)}, tx.init(params), params)
    found = layers.state_axes(state, params, axes)
    for moment in ("v_row", "v_col"):
        array, kept = getattr(state[0], moment)["k"], getattr(found[0], moment)["k"]
        expected = tuple(place[names.index(name)] for name in kept)
        assert np.unravel_index(np.argmax(array), array.shape) == expected


def test_layers_come_first():
    tx = optimizers.build("adafactor", 1e-2, axes={"k": ("embed", "layers")})
    with pytest.raises(ValueError, match="'layers' to be a parameter's first axis, got .'embed'"):
        tx.init({"k": jnp.ones((2, 3))})


def test_counters_and_unknown_leaves_have_no_names():
    axes, params = {"count": ("embed",)}, {"count": jnp.ones(8)}
    tx = optimizers.build("adamw", optimizers.schedule("constant", base_learning_rate=1.0))
    found = layers.state_axes(tx.init(params), params, axes)
    assert found[0].count == ()  # optax's counter, not the parameter of that name
    assert found[0].mu == {"count": ("embed",)}
