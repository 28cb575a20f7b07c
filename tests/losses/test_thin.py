"""The losses from dense logits, against a float64 reference that lists every id."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax import losses
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, SparseTargets
from tests.losses import dense

N, V, K = 24, 13, 4
RULES = [
    losses.Rule(),
    losses.Rule(tail="renormalize"),
    losses.Rule(tail="drop"),
    losses.Rule(tail="renormalize", temperature=2.0),
    losses.Rule("reverse_kl"),
    losses.Rule("jsd", beta=0.3),
    losses.Rule("jsd", tail="renormalize", temperature=0.5),
]
each_rule = pytest.mark.parametrize(
    "rule", RULES, ids=lambda rule: f"{rule.divergence}-{rule.tail}-{rule.temperature}"
)


def _example(seed: int = 0, **kwargs: float):
    rng = np.random.default_rng(seed)
    targets, soft = dense.random_targets(rng, N, V, K, **kwargs)
    logits = rng.normal(size=(N, V)).astype(np.float32) * 3
    weights = rng.integers(0, 3, N).astype(np.float32)
    return logits, targets, soft, weights


@functools.partial(jax.jit, static_argnums=3)
def _value(logits, soft, weights, rule):
    return losses.match_distribution(logits, soft, weights, **dataclasses.asdict(rule))


def _value_and_gradient(function, logits):
    return jax.jit(jax.value_and_grad(lambda x: function(x)[0]))(logits)


def _transferred(ids, logprobs, tail) -> SparseTargets:
    ids = np.asarray(ids, np.int32)
    return SparseTargets(
        ids=ids,
        logprobs=np.asarray(logprobs, np.float32),
        tail_logprob=np.asarray(tail, np.float32),
        kind=np.full(len(ids), Kind.TRANSFERRED, np.int32),
        reason=np.zeros(len(ids), np.int32),
    )


@each_rule
@pytest.mark.parametrize("seed", [0, 1])
def test_match_distribution_equals_the_dense_reference(rule, seed):
    logits, targets, soft, weights = _example(seed)
    loss, metrics = _value(logits, soft, weights, rule)
    expected = dense.mean_loss(logits, targets, soft, weights, rule)
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    scored = np.where(soft.kind == Kind.PAD, 0, weights)
    np.testing.assert_allclose(metrics["tokens"], scored.sum())
    np.testing.assert_allclose(metrics["kl_tokens"], scored[soft.kind == Kind.TRANSFERRED].sum())
    np.testing.assert_allclose(
        metrics["kl_sum"] + metrics["ce_sum"], metrics["loss_sum"], rtol=1e-6
    )


@each_rule
def test_gradient_equals_finite_differences_of_the_dense_reference(rule):
    logits, targets, soft, weights = _example(3)
    _, gradient = _value_and_gradient(lambda x: _value(x, soft, weights, rule), logits)
    step = 1e-5
    rng = np.random.default_rng(0)
    for n, v in zip(rng.integers(0, N, 40), rng.integers(0, V, 40), strict=True):
        up, down = (logits.astype(np.float64) for _ in range(2))
        up[n, v] += step
        down[n, v] -= step
        slope = (
            dense.mean_loss(up, targets, soft, weights, rule)
            - dense.mean_loss(down, targets, soft, weights, rule)
        ) / (2 * step)
        np.testing.assert_allclose(gradient[n, v], slope, atol=2e-6)


def test_match_sample_equals_the_dense_reference_with_leading_dimensions():
    logits, targets, soft, weights = _example()
    expected = -np.sum(
        weights * [dense.log_softmax(row)[t] for row, t in zip(logits, targets, strict=True)]
    ) / np.sum(weights)
    shaped = (logits.reshape(4, 6, V), targets.reshape(4, 6), weights.reshape(4, 6))
    loss, metrics = losses.match_sample(*shaped)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["kl_tokens"] == 0
    assert metrics["ce_tokens"] == weights.sum()


@pytest.mark.parametrize("entries", [1, K])
def test_one_certain_candidate_equals_match_sample_in_value_and_gradient(entries):
    logits, targets, _, weights = _example()
    ids = np.zeros((N, entries), np.int32)
    logprobs = np.full((N, entries), UNUSED_LOGPROB, np.float32)
    ids[:, 0], logprobs[:, 0] = targets, 0.0
    soft = _transferred(ids, logprobs, np.full(N, UNUSED_LOGPROB))
    ours = _value_and_gradient(lambda x: losses.match_distribution(x, soft, weights), logits)
    plain = _value_and_gradient(lambda x: losses.match_sample(x, targets, weights), logits)
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], plain[1], atol=1e-7)


@pytest.mark.parametrize("tail_logprob", [UNUSED_LOGPROB, np.log(1e-3)])
@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
def test_full_list_equals_dense_kl_in_value_and_gradient(tail, tail_logprob):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, V)).astype(np.float32)
    teacher = np.log(rng.dirichlet(np.ones(V), N)).astype(np.float32)
    ids = np.stack([rng.permutation(V) for _ in range(N)])
    soft = _transferred(ids, np.take_along_axis(teacher, ids, axis=1), np.full(N, tail_logprob))
    weights = np.ones(N, np.float32)

    def dense_kl(x):
        log_q = jax.nn.log_softmax(x)
        return jnp.mean(jnp.sum(jnp.exp(teacher) * (teacher - log_q), axis=-1))

    loss, gradient = _value_and_gradient(
        lambda x: _value(x, soft, weights, losses.Rule(tail=tail)), logits
    )
    expected, expected_gradient = jax.jit(jax.value_and_grad(dense_kl))(logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-7)


@each_rule
def test_masked_positions_have_exactly_zero_gradient(rule):
    logits, _, soft, weights = _example()
    weights[::3] = 0
    _, gradient = _value_and_gradient(lambda x: _value(x, soft, weights, rule), logits)
    scored = (weights > 0) & (soft.kind != Kind.PAD)
    assert np.all(np.asarray(gradient)[~scored] == 0)
    assert np.all(np.abs(np.asarray(gradient)[scored]).max(axis=1) > 0)


def test_unused_slots_do_not_hide_the_real_id_zero():
    logits = np.zeros((1, 4), np.float32)
    soft = _transferred([[0, 0]], [[np.log(0.75), UNUSED_LOGPROB]], [np.log(0.25)])
    loss, _ = _value(logits, soft, np.ones(1), losses.Rule())
    expected = 0.75 * np.log(0.75 / 0.25) + 0.25 * np.log(0.25 / 0.75)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_bucket_keeps_its_digits_where_the_listed_mass_is_almost_all():
    """The student leaves e^-40 outside the list: 1 - sum would be 0 in float32."""
    logits = np.array([[0.0, -1.0, -40.0, -41.0]], np.float32)
    soft = _transferred([[0, 1]], [[np.log(0.7), np.log(0.2)]], [np.log(0.1)])
    loss, _ = _value(logits, soft, np.ones(1), losses.Rule())
    expected = dense.mean_loss(logits, np.zeros(1, int), soft, np.ones(1), losses.Rule())
    assert expected > 3
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@each_rule
@pytest.mark.parametrize("tail_mass", [0.0, 0.1])
def test_huge_logits_give_finite_values_and_gradients(rule, tail_mass):
    _, _, soft, _ = _example(tail_mass=tail_mass)
    logits = np.random.default_rng(0).choice([-1e4, 0.0, 1e4], (N, V)).astype(np.float32)
    loss, gradient = _value_and_gradient(lambda x: _value(x, soft, np.ones(N), rule), logits)
    assert np.isfinite(loss)
    assert np.all(np.isfinite(gradient))


def test_renormalize_divides_the_teachers_listed_mass_to_one():
    logits, _, soft, weights = _example()
    full = soft._replace(
        logprobs=np.where(soft.logprobs > -9e3, soft.logprobs - np.log(0.5), soft.logprobs)
    )
    once = _value(logits, soft, weights, losses.Rule(tail="renormalize"))[0]
    scaled = _value(logits, full, weights, losses.Rule(tail="renormalize"))[0]
    np.testing.assert_allclose(once, scaled, rtol=1e-6)


def test_no_scored_token_gives_zero_not_nan():
    logits, targets, _, _ = _example()
    loss, metrics = losses.match_sample(logits, targets, np.zeros(N))
    assert loss == 0
    assert metrics["tokens"] == 0


@pytest.mark.parametrize("divergence", ["forward_kl", "jsd"])
def test_a_leftover_of_a_billionth_in_a_real_vocabulary_keeps_its_digits(divergence):
    """Nearly all of the loss hangs on the student's leftover mass, 1e-9 over 32,126 ids."""
    size = 32_128
    logits = np.random.default_rng(0).normal(size=(1, size)).astype(np.float32)
    logits[0, 2:] -= 20.0 + np.log(np.exp(logits[0, 2:] - 20.0).sum() / 1e-9)
    logits[0, :2] = np.log([0.75, 0.25])
    soft = _transferred([[0, 1]], [[np.log(0.075), np.log(0.025)]], [np.log(0.9)])
    rule = losses.Rule(divergence, beta=0.9)
    (loss, gradient) = _value_and_gradient(lambda x: _value(x, soft, np.ones(1), rule), logits)
    expected = dense.mean_loss(logits, np.zeros(1, int), soft, np.ones(1), rule)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    rest = np.exp(dense.log_softmax(logits[0])[2:])
    if divergence == "forward_kl":  # its gradient is q - p, the tail's part spread like q
        expected_gradient = rest - 0.9 * rest / rest.sum()
        np.testing.assert_allclose(gradient[0, 2:], expected_gradient, rtol=2e-5)


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9])
def test_jsd_is_zero_between_equals_and_at_most_the_entropy_of_its_weights(beta):
    logits = np.array([[1.0, 0.0, -1.0], [50.0, -50.0, 0.0]], np.float32)
    equal = np.asarray(jax.nn.log_softmax(logits))
    opposite = np.log(np.float32([[1e-20, 1, 1e-20]]))
    ids = np.array([[0, 1, 2]] * 2)
    rule = losses.Rule("jsd", beta=beta)
    unused = np.full(2, UNUSED_LOGPROB)
    same, _ = _value(logits, _transferred(ids, equal, unused), np.ones(2), rule)
    np.testing.assert_allclose(same, 0.0, atol=1e-6)
    far, _ = _value(logits[1:], _transferred(ids[:1], opposite, unused[:1]), np.ones(1), rule)
    np.testing.assert_allclose(
        far, -(beta * np.log(beta) + (1 - beta) * np.log(1 - beta)), rtol=1e-6
    )


def test_a_temperature_leaves_the_cross_entropy_of_one_hot_tokens_alone():
    logits, targets, soft, weights = _example()
    soft = soft._replace(kind=np.where(soft.kind == Kind.PAD, Kind.PAD, Kind.ONE_HOT))
    plain, _ = _value(logits, soft, weights, losses.Rule(tail="renormalize"))
    warm, _ = _value(logits, soft, weights, losses.Rule(tail="renormalize", temperature=3.0))
    assert plain == warm


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tail": "keep"}, "Unknown tail 'keep'.*bucket, renormalize, drop"),
        ({"divergence": "tv"}, "Unknown divergence 'tv'.*forward_kl, reverse_kl, jsd"),
        (
            {"divergence": "reverse_kl", "tail": "drop"},
            "reverse_kl is not defined with tail 'drop'.*reverse_kl with bucket, jsd",
        ),
        ({"temperature": 2.0}, "Temperature 2.0 needs tail 'renormalize', got 'bucket'"),
        ({"tail": "renormalize", "temperature": 0.0}, "temperature above 0, got 0.0"),
        ({"divergence": "jsd", "beta": 1.0}, r"beta in \(0, 1\), got 1.0"),
    ],
)
def test_what_is_not_defined_is_an_error_that_lists_the_choices(settings, message):
    logits, _, soft, weights = _example()
    with pytest.raises(ValueError, match=message):
        losses.match_distribution(logits, soft, weights, **settings)
