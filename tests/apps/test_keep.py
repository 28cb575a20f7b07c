"""`train` keeps checkpoints as gin says, also through kills."""

import jax
import numpy as np
import pytest

from specialize_jax.training import checkpoints
from tests.apps.line import FIXTURES, gin, run
from tests.training import kills, toy

TINY = ("train", "--gin_file=testing/tiny.gin", gin("PACKED_DIR", str(FIXTURES / "packed_rows")))


def test_the_best_by_a_metric_and_the_newest_are_kept(tmp_path, capsys):
    model = tmp_path / "model"
    settings = [*TINY, gin("MODEL_DIR", str(model)), gin("CHECKPOINT_KEEP_BEST", 1)]
    settings += [gin("CHECKPOINT_FIRST", True), gin("EVAL_PERIOD", 2), gin("CHECKPOINT_PERIOD", 2)]
    assert run(*settings, gin("CHECKPOINT_BEST_METRIC", "score")) == 1
    said = capsys.readouterr().err
    assert "no held-out line has 'score'; choices: loss, kl_loss, ce_loss, loss/" in said
    assert checkpoints.all_steps(model / "checkpoints") == []
    assert run(*settings) == 0
    losses = {v["step"]: v["loss"] for v in toy.lines(model) if v["split"] == "validation"}
    assert sorted(losses) == [2, 4, 6, 8]
    best = min(losses, key=losses.get)
    assert checkpoints.all_steps(model / "checkpoints") == sorted({0, best, 8})
    assert run(*settings, gin("CHECKPOINT_PERIOD", 3)) == 1
    assert "a multiple of eval_period, got 3 and 2" in capsys.readouterr().err


@pytest.mark.long
def test_eight_kills_of_train(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    settings = [*TINY, gin("TRAIN_STEPS_RELATIVE", 200), gin("LOG_PERIOD", 1)]
    settings += [gin("EVAL_PERIOD", 2), gin("CHECKPOINT_PERIOD", 2), gin("EVAL_STEPS", 1)]
    settings += [gin("CHECKPOINTS_TO_KEEP", 2), gin("CHECKPOINT_KEEP_PERIOD", 50)]
    settings += [gin("CHECKPOINT_KEEP_BEST", 1)]
    command = ["specialize_jax.apps.main", *settings, gin("MODEL_DIR", str(killed))]
    found = kills.kill_often(killed, command, 8, 20)
    assert sum(kill.was_running and 0 < kill.reached < 200 for kill in found) >= 6
    for model in (killed, whole):
        assert run(*settings, gin("MODEL_DIR", str(model))) == 0
    kills.assert_came_through(killed, whole)
    ours, expected = (_everything(model / "checkpoints" / "200") for model in (killed, whole))
    assert len(expected) > 20
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def _everything(step_folder):
    """Parameters and optimizer state."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        return jax.tree.leaves([reader.restore(step_folder / n) for n in ("params", "optimizer")])
