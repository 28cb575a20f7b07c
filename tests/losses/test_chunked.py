"""The chunked losses equal the thin ones, whatever the chunk, the shards and the type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax import losses
from specialize_jax.schemas import Kind
from tests.losses import dense

N, D, V, K = 24, 5, 13, 4


def _example(seed: int = 0):
    rng = np.random.default_rng(seed)
    targets, soft = dense.random_targets(rng, N, V, K)
    hidden = rng.normal(size=(N, D)).astype(np.float32)
    unembed = rng.normal(size=(D, V)).astype(np.float32)
    weights = rng.integers(0, 3, N).astype(np.float32)
    return hidden, unembed, targets, soft, weights


def _value_and_gradients(hidden, unembed, targets, soft, weights, **options):
    """((loss, metrics), (to_hidden, to_unembed)) of `chunked`, compiled."""

    def loss(hidden, unembed):
        return losses.chunked(hidden, unembed, targets, soft, weights, **options)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(hidden, unembed)


def _assert_trees_close(ours, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"chunk": 1},
        {"chunk": 5},
        {"chunk": 1000},
        {"chunk": 8, "tail": "renormalize", "temperature": 2.0},
        {"chunk": 7, "tail": "drop"},
        {"chunk": 7, "divergence": "reverse_kl"},
        {"chunk": 7, "divergence": "jsd", "beta": 0.2},
    ],
    ids=str,
)
def test_match_distribution_equals_the_thin_form(settings):
    hidden, unembed, targets, soft, weights = _example()
    rule = {name: value for name, value in settings.items() if name != "chunk"}

    def thin(hidden, unembed):
        return losses.match_distribution(hidden @ unembed, soft, weights, **rule)

    ours = _value_and_gradients(hidden, unembed, targets, soft, weights, **settings)
    expected = jax.jit(jax.value_and_grad(thin, argnums=(0, 1), has_aux=True))(hidden, unembed)
    _assert_trees_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "objective, chunk, data_shards",
    [("match_distribution", 5, 2), ("match_distribution", 3, 4), ("match_sample", 5, 2)],
)
def test_shards_change_nothing(objective, chunk, data_shards):
    example = _example(1)
    ours = _value_and_gradients(*example, objective=objective, chunk=chunk, data_shards=data_shards)
    plain = _value_and_gradients(*example, objective=objective, chunk=N)
    _assert_trees_close(ours, plain, rtol=1e-5, atol=2e-6)


def test_match_sample_equals_the_thin_form_and_still_reports_coverage():
    hidden, unembed, targets, soft, weights = _example()
    sample = {"objective": "match_sample", "chunk": 7}
    (loss, metrics), _ = _value_and_gradients(hidden, unembed, targets, soft, weights, **sample)
    thin, _ = jax.jit(losses.match_sample)(hidden @ unembed, targets, weights)
    np.testing.assert_allclose(loss, thin, rtol=1e-5)
    assert metrics["kl_tokens"] == 0
    cot = np.isin(soft.kind, [Kind.TRANSFERRED, Kind.ONE_HOT])
    assert metrics["cot_tokens"] == weights[cot].sum()
    assert metrics["transferred_tokens"] == weights[soft.kind == Kind.TRANSFERRED].sum()
    (without, _), _ = _value_and_gradients(hidden, unembed, targets, None, weights, **sample)
    assert without == loss


def test_sums_of_two_halves_are_the_sums_of_the_whole():
    hidden, unembed, targets, soft, weights = _example()
    groups = np.arange(N, dtype=np.int32) % 3

    @jax.jit
    def sums(hidden, targets, soft, weights, groups):
        return losses.chunked(
            hidden,
            unembed,
            targets,
            soft,
            weights,
            normalizer=1.0,
            groups=groups,
            num_groups=3,
            chunk=7,
        )

    def of(part):
        return sums(*jax.tree.map(lambda x: x[part], (hidden, targets, soft, weights, groups)))

    halves = jax.tree.map(np.add, of(slice(0, 12)), of(slice(12, N)))
    loss, metrics = of(slice(0, N))
    _assert_trees_close(halves, (loss, metrics), rtol=1e-5)
    np.testing.assert_allclose(loss, metrics["loss_sum"])
    np.testing.assert_allclose(metrics["group_loss_sum"].sum(), metrics["loss_sum"], rtol=1e-6)
    scored = np.where(soft.kind == Kind.PAD, 0, weights)
    expected = [scored[groups == g].sum() for g in range(3)]
    np.testing.assert_allclose(metrics["group_tokens"], expected)
    assert set(metrics) == set(losses.METRICS)


def test_masked_tokens_have_exactly_zero_gradient():
    hidden, unembed, targets, soft, weights = _example()
    _, (gradient, _) = _value_and_gradients(hidden, unembed, targets, soft, weights, chunk=7)
    masked = (weights == 0) | (soft.kind == Kind.PAD)
    assert np.all(np.asarray(gradient)[masked] == 0)
    assert np.all(np.abs(np.asarray(gradient)[~masked]).max(axis=1) > 0)


def test_bfloat16_hidden_keeps_types_and_stays_near_float32():
    hidden, *rest = _example()
    hidden = jnp.asarray(hidden, jnp.bfloat16)
    (loss, _), (to_hidden, to_unembed) = _value_and_gradients(hidden, *rest, chunk=7)
    assert loss.dtype == jnp.float32
    assert to_hidden.dtype == jnp.bfloat16
    assert to_unembed.dtype == jnp.float32
    (exact, _), (_, exact_to_unembed) = _value_and_gradients(
        hidden.astype(jnp.float32), *rest, chunk=7
    )
    np.testing.assert_allclose(loss, exact, rtol=0.02)
    np.testing.assert_allclose(to_unembed, exact_to_unembed, atol=0.02)


def test_no_array_of_all_logits_exists_in_the_program():
    hidden, unembed, targets, soft, weights = _example()

    def loss(hidden, unembed):
        return losses.chunked(hidden, unembed, targets, soft, weights, chunk=4)[0]

    text = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(hidden, unembed))
    assert f"f32[1,4,{V}]" in text
    for whole in (f"[{N},{V}]", f"[6,1,4,{V}]", f"[6,4,{V}]"):
        assert whole not in text


def test_unknown_names_and_missing_targets_are_errors():
    hidden, unembed, targets, soft, weights = _example()
    choices = "match_distribution, match_sample"
    with pytest.raises(ValueError, match=f"Unknown objective 'kd'.*{choices}"):
        losses.chunked(hidden, unembed, targets, soft, weights, objective="kd")
    with pytest.raises(ValueError, match="Unknown tail 'x'"):
        losses.chunked(hidden, unembed, targets, soft, weights, tail="x")
    with pytest.raises(ValueError, match="needs soft targets"):
        losses.chunked(hidden, unembed, targets, None, weights)
    with pytest.raises(ValueError, match="24 tokens and data_shards=5"):
        losses.chunked(hidden, unembed, targets, soft, weights, data_shards=5)
