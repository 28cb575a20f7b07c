"""Our loss and feature converter inside t5x; skipped, with the reason, where t5x is not installed.

Its packages are not on PyPI together, so CI has none of this: README.md, "Inside t5x", says how to
have them beside the repository.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from specialize_jax import convert
from specialize_jax.apps.gin_setup import PACKAGED
from specialize_jax.losses import Rule
from specialize_jax.models import t5
from specialize_jax.schemas import Kind, SparseTargets
from tests.fixtures import world
from tests.losses import dense

with warnings.catch_warnings():  # of t5x and what it imports
    warnings.simplefilter("ignore")
    try:
        import t5x.train
        from t5x import adafactor, checkpoints, models, trainer
        from t5x.examples.t5 import network
    except ImportError as missing:
        pytest.skip(f"t5x cannot be imported: {missing}", allow_module_level=True)
    from specialize_jax import t5x_adapter

T5X = pathlib.Path(t5x.train.__file__).parents[1]
ALIGNED = str(world.HERE / "aligned_examples")
B, T, S, V, K = 4, 6, 8, 24, 3


@pytest.fixture(autouse=True)
def as_t5x_runs():
    """Its network broadcasts over ranks, which tests/conftest.py forbids."""
    with jax.numpy_rank_promotion("allow"):
        yield


def build(cls=None, **settings):
    config = network.T5Config(
        vocab_size=V,
        emb_dim=16,
        num_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        head_dim=8,
        mlp_dim=32,
        mlp_activations=("gelu", "linear"),
        dropout_rate=0.0,
    )
    return (cls or t5x_adapter.DistillationModel)(
        module=network.Transformer(config),
        input_vocabulary=None,
        output_vocabulary=None,
        optimizer_def=adafactor.Adafactor(logical_factor_rules={}),
        **settings,
    )


@pytest.fixture(scope="module")
def soft():
    """Targets and soft targets of all kinds; rows end at different places."""
    targets, soft = dense.random_targets(np.random.default_rng(0), B * S, V, K)
    there = np.tile(np.arange(S), B) < np.repeat([8, 6, 5, 3], S)
    return targets * there, soft._replace(kind=soft.kind * there)


@pytest.fixture(scope="module")
def batch(soft):
    targets, soft = soft
    fields = {"target_tokens": targets, "input_tokens": np.roll(targets, 1)}
    fields |= {"loss_weights": (soft.kind != Kind.PAD).astype(np.float32)}
    fields |= {f"soft_{name}": getattr(soft, name) for name in SparseTargets._fields[:4]}
    batch = {f"decoder_{name}": a.reshape(B, S, *a.shape[1:]) for name, a in fields.items()}
    inputs = np.random.default_rng(1).integers(1, V, (B, T)).astype(np.int32)
    return batch | {"encoder_input_tokens": inputs}


@pytest.fixture(scope="module")
def params(batch):
    shapes = {name: value.shape for name, value in batch.items()}
    types = dict.fromkeys(batch, jnp.int32)
    with jax.numpy_rank_promotion("allow"):
        init = jax.jit(lambda key: build().get_initial_variables(key, shapes, types)["params"])
        return init(jax.random.key(0))


def evaluate(model, params, batch):
    loss, metrics = jax.jit(lambda p: model.loss_fn(p, batch, None))(params)
    return loss, {name: float(m.compute()) for name, m in metrics.items() if "timing" not in name}


@pytest.mark.parametrize("factor", [None, 100.0, "NUM_REAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"])
def test_match_sample_is_the_loss_of_t5x(params, batch, factor):
    settings = {"loss_normalizing_factor": factor}
    ours, metrics = evaluate(build(objective="match_sample", **settings), params, batch)
    theirs, expected = evaluate(build(models.EncoderDecoderModel, **settings), params, batch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    for name in ("accuracy", "loss", "loss_per_nonpadding_target_token"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-6)
    assert set(metrics) - set(expected) == {"ce_loss"}


def test_match_sample_has_the_gradient_of_t5x(params, batch):
    def gradient(model):
        return jax.jit(jax.grad(lambda p: model.loss_fn(p, batch, None)[0]))(params)

    ours = gradient(build(objective="match_sample"))
    theirs = gradient(build(models.EncoderDecoderModel))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


@pytest.mark.parametrize(
    "rule", [Rule(), Rule("jsd", "renormalize", 2.0, 0.3)], ids=lambda rule: rule.divergence
)
def test_match_distribution_is_the_dense_sum(params, batch, soft, rule):
    targets, soft = soft
    model = build(**dataclasses.asdict(rule))
    loss, metrics = evaluate(model, params, batch)
    logits = np.asarray(model._compute_logits(params, batch)).reshape(-1, V)
    each = np.array([dense.token_loss(logits[n], targets[n], soft, n, rule) for n in range(B * S)])
    by_kl, by_ce = soft.kind == Kind.TRANSFERRED, soft.kind > Kind.TRANSFERRED
    cot = by_kl | (soft.kind == Kind.ONE_HOT)
    assert 0 < by_kl.sum() < cot.sum() < (soft.kind > 0).sum()
    np.testing.assert_allclose(loss, each[by_kl | by_ce].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl_loss"], each[by_kl].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["ce_loss"], each[by_ce].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["coverage"], by_kl.sum() / cot.sum(), rtol=1e-6)


def test_microbatches_change_nothing(params, batch):
    """t5x adds their gradients up; the rows differ in length, so a mean would show."""
    model = build(loss_normalizing_factor=100.0)

    def run(microbatches):
        def accumulate(params, rng):
            state = types.SimpleNamespace(params=params, flax_mutables=None)
            function = trainer.accumulate_grads_microbatched
            return function(model, state, batch, rng, microbatches)[:2]

        return jax.jit(accumulate)(params, jax.random.key(1))

    (whole, metrics), (parts, merged) = run(None), run(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)
    for name in ("loss_per_nonpadding_target_token", "kl_loss", "ce_loss", "coverage"):
        of_all, of_parts = metrics[name].compute(), merged[name].compute()
        np.testing.assert_allclose(of_all, of_parts, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"objective": "kd"}, "match_distribution, match_sample"),
        ({"divergence": "reverse_kl", "tail": "drop"}, "reverse_kl is not defined with tail"),
        ({"temperature": 2.0}, "needs tail 'renormalize'"),
        ({"z_loss": 1e-4}, "expected z_loss 0, got 0.0001"),
        ({"label_smoothing": 0.1}, "expected label_smoothing 0"),
    ],
)
def test_settings_are_checked(settings, expected):
    with pytest.raises(ValueError, match=expected):
        build(**settings)


def train(tmp_path, *bindings):
    """Runs the documented command for two steps on the fixtures; returns what it logged."""
    bindings = (
        f"MODEL_DIR='{tmp_path / 'model'}'",
        f"ALIGNED_DIRS=('{ALIGNED}',)",
        "VALIDATION=2",
        "TRAIN_STEPS=2",
        "BATCH_SIZE=2",
        "T5Config.vocab_size=128",
        "train.stats_period=1",
        "train.eval_period=2",
        *bindings,
    )
    command = [sys.executable, "-m", "t5x.train", "--logtostderr", "--gin_file=t5x/tiny.gin"]
    command += [f"--gin_search_paths={T5X},{PACKAGED}", *(f"--gin.{b}" for b in bindings)]
    repository = pathlib.Path(__file__).parents[1]
    paths = [str(repository), *sys.path]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def logits_of_t5x(written, batch, tiny):
    """The logits of t5x's network on what t5x, or the library that it writes with, reads back."""
    if (written / "state").exists():
        read = orbax.checkpoint.PyTreeCheckpointer().restore(written / "state")
    else:
        read = checkpoints.load_t5x_checkpoint(str(written))
    config = network.T5Config(
        vocab_size=tiny.vocab_size,
        emb_dim=tiny.d_model,
        num_heads=tiny.num_heads,
        num_encoder_layers=tiny.num_encoder_layers,
        num_decoder_layers=tiny.num_decoder_layers,
        head_dim=tiny.d_kv,
        mlp_dim=tiny.d_ff,
        mlp_activations=("gelu", "linear"),
    )
    # The last one tells t5x what is padding; here nothing is.
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_input_tokens")
    return jax.jit(network.Transformer(config).apply, static_argnames="enable_dropout")(
        {"params": read["target"]}, *(batch[name] for name in names), enable_dropout=False
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("use_orbax", [True, False])
def test_t5x_trains_on_our_mixtures_and_we_read_its_checkpoint(tmp_path, use_orbax):
    code, log = train(tmp_path, f"train.use_orbax={use_orbax}", "DIVERGENCE='jsd'")
    assert code == 0, log[-2000:]
    for split in ("train", "training_eval/distill_zero_shot"):
        lines = [line for line in log.split("\n") if f"collection={split} " in line]
        assert any("kl_loss=" in line and "coverage=" in line for line in lines), split
    assert (
        "DistillationModel.divergence = %DIVERGENCE"
        in (tmp_path / "model" / "config.gin").read_text()
    )
    written = tmp_path / "model" / "checkpoint_2"
    assert (written / ("state" if use_orbax else "checkpoint")).exists()

    config, params = convert.load_t5x(written)
    words = np.random.default_rng(0).integers(1, config.vocab_size, (2, B, S)).astype(np.int32)
    batch = {"encoder_input_tokens": words[0], "decoder_input_tokens": words[1]}
    ours = t5.build(config).logits(params, batch)
    theirs = logits_of_t5x(written, batch, config)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
