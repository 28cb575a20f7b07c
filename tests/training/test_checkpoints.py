"""Saving, restoring, and what happens to damaged and foreign checkpoints."""

import math
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specialize_jax.training import checkpoints, manifest, streamed
from tests.training import damage, toy

WINDOW = {"steps": 1, "sums": {"loss_sum": 0.1 + 0.2}}


def _state(step: int):
    """A state whose every leaf is told apart by its step."""
    return jax.tree.map(lambda leaf: leaf + step, toy.start("adafactor"))


def _like():
    return jax.eval_shape(lambda: toy.start("adafactor"))


def _save(folder, steps, **options):
    with checkpoints.Checkpoints(folder, **options) as saved:
        for step in steps:
            saved.save(_state(step), data_state=toy.data_state(step), window=WINDOW)


def _assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_everything_comes_back_as_it_was(tmp_path):
    _save(tmp_path, [2, 4])
    with checkpoints.Checkpoints(tmp_path) as saved:
        restored = saved.restore_latest(_like())
    _assert_equal(restored.state, _state(4))
    assert restored.data_state == toy.data_state(4)
    assert restored.window == WINDOW


def test_steps_are_listed_and_all_are_kept_by_default(tmp_path):
    assert checkpoints.all_steps(tmp_path / "absent") == []
    assert checkpoints.latest_step(tmp_path) is None
    _save(tmp_path, [2, 4, 10])
    (tmp_path / "12.orbax-checkpoint-tmp-1").mkdir()
    assert checkpoints.all_steps(tmp_path) == [2, 4, 10]
    assert checkpoints.latest_step(tmp_path) == 10


def test_what_is_not_kept_is_removed_wholly(tmp_path):
    _save(tmp_path, [1, 2, 3], keep=checkpoints.Keep(last=2))
    assert checkpoints.all_steps(tmp_path) == [2, 3]
    assert {p.name for p in tmp_path.iterdir()} == {"2", "3"}
    for step in (2, 3):
        assert checkpoints.check(tmp_path, step)


def test_scores_are_stored_with_a_checkpoint(tmp_path):
    keep = checkpoints.Keep(last=1, best=1)
    with checkpoints.Checkpoints(tmp_path, keep=keep) as saved:
        for step, loss in [(0, None), (1, 0.5), (2, 0.25), (3, math.nan), (4, 0.5)]:
            saved.save(_state(step), data_state={}, scores=loss and {"loss": loss})
    assert checkpoints.all_steps(tmp_path) == [0, 2, 4]
    # Another run knows them, and goes by what it is told of those that hold none.
    with checkpoints.Checkpoints(tmp_path, keep=checkpoints.Keep(best=2)) as saved:
        saved.save(_state(5), data_state={})
        saved.save(_state(6), data_state={})
    assert checkpoints.all_steps(tmp_path) == [0, 2, 4, 6]
    with checkpoints.Checkpoints(tmp_path, keep=keep) as saved:
        saved.know_scores({6: {"loss": 0.125}, 2: {"loss": 9.0}})
        saved.save(_state(7), data_state={}, scores={"loss": 0.2})
        saved.save(_state(8), data_state={}, scores={"loss": 0.3})
    assert checkpoints.all_steps(tmp_path) == [0, 6, 8]


def test_a_metric_that_is_not_there_costs_no_checkpoint(tmp_path):
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(_state(1), data_state={}, scores={"loss": 0.5})
    keep = checkpoints.Keep(last=1, best=1, metric="accuracy")
    with checkpoints.Checkpoints(tmp_path, keep=keep) as saved:
        with pytest.raises(ValueError, match="'accuracy' .*held-out lines have loss"):
            saved.save(_state(2), data_state={}, scores={"loss": 0.25})
    assert checkpoints.all_steps(tmp_path) == [1, 2]


def test_an_empty_folder_restores_nothing(tmp_path):
    with checkpoints.Checkpoints(tmp_path) as saved:
        assert saved.restore_latest(_like()) is None


@damage.noisy
@pytest.mark.parametrize(
    ("harm", "has_manifest"),
    [
        *((harm, True) for harm in damage.ORBAX_SEES + damage.MANIFEST_SEES),
        *((harm, False) for harm in damage.ORBAX_SEES),
    ],
)
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, harm, has_manifest
):
    _save(tmp_path, [2, 4])
    if not has_manifest:
        (tmp_path / "4" / manifest.NAME).unlink()
    harm(tmp_path / "4")
    with checkpoints.Checkpoints(tmp_path) as saved:
        with pytest.warns(UserWarning, match=r"/4 is damaged and was renamed to 4.corrupt"):
            restored = saved.restore_latest(_like())
        damage.wait_for_noise()
        _assert_equal(restored.state, _state(2))
        saved.save(_state(4), data_state={})
    assert checkpoints.all_steps(tmp_path) == [2, 4]
    with warnings.catch_warnings(), checkpoints.Checkpoints(tmp_path) as saved:
        warnings.simplefilter("error")
        _assert_equal(saved.restore_latest(_like()).state, _state(4))


def test_another_model_is_an_error_and_leaves_the_checkpoints_alone(tmp_path):
    _save(tmp_path, [2, 4])
    like = _like()
    wider = like._replace(params=like.params | {"embed": jax.ShapeDtypeStruct((9, 9), "float32")})
    with checkpoints.Checkpoints(tmp_path) as saved:
        message = r"4/params is of another.*embed: stored \(16, 8\), expected \(9, 9\)"
        with pytest.raises(checkpoints.CheckpointError, match=message):
            saved.restore_latest(wider)
        message = "4/optimizer is of another.*opt_state/0/mu/embed: stored nothing"
        with pytest.raises(checkpoints.CheckpointError, match=message):
            saved.restore_latest(jax.eval_shape(lambda: toy.start("adamw")))
    assert checkpoints.all_steps(tmp_path) == [2, 4]


def test_params_alone_for_evaluation(tmp_path):
    _save(tmp_path, [2, 4])
    params = checkpoints.restore_params(tmp_path, 2, _like().params)
    _assert_equal(params, _state(2).params)
    with pytest.raises(checkpoints.CheckpointError, match=r"No checkpoint of step 3.*\[2, 4\]"):
        checkpoints.restore_params(tmp_path, 3, _like().params)
    with pytest.raises(
        checkpoints.CheckpointError, match="mlp/in: stored .8, 32., expected nothing"
    ):
        checkpoints.restore_params(tmp_path, 2, {"embed": jnp.zeros((2, 2))})


@damage.noisy
def test_only_damaged_checkpoints_are_an_error_not_a_new_start(tmp_path):
    _save(tmp_path, [2, 4])
    for step in (2, 4):
        damage.cut_data_short(tmp_path / str(step))
    with checkpoints.Checkpoints(tmp_path) as saved:
        with pytest.raises(checkpoints.CheckpointError, match=r"None of the checkpoints \[4, 2\]"):
            saved.restore_latest(_like())
    damage.wait_for_noise()


def test_a_relative_folder_is_taken_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _save("run/checkpoints", [2])
    assert checkpoints.all_steps(tmp_path / "run" / "checkpoints") == [2]
    _assert_equal(
        checkpoints.restore_params("run/checkpoints", 2, _like().params), _state(2).params
    )


def test_config_is_kept_beside(tmp_path):
    config = {"model": "t5_1_1_tiny", "dropout_rate": 0.1}
    _save(tmp_path, [2], config=config)
    _save(tmp_path, [4])
    assert checkpoints.read_config(tmp_path) == config
    with pytest.raises(checkpoints.CheckpointError, match="No .*config.json"):
        checkpoints.read_config(tmp_path / "elsewhere")


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(checkpoints.CheckpointError, match="Cannot write checkpoints to .*/file/c"):
        checkpoints.Checkpoints(tmp_path / "file" / "checkpoints")


@damage.noisy
@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize(
    "harm", [damage.remove_data, damage.cut_data_short, damage.leave_only_the_folder]
)
def test_damaged_params_are_named(tmp_path, harm, has_manifest):
    _save(tmp_path, [2])
    if not has_manifest:
        (tmp_path / "2" / manifest.NAME).unlink()
    harm(tmp_path / "2")
    message = rf"The parameters in {tmp_path}/2 cannot be read"
    with pytest.raises(checkpoints.CheckpointError, match=message):
        checkpoints.restore_params(tmp_path, 2, _like().params)
    with pytest.raises(checkpoints.CheckpointError, match=f"{tmp_path}/2 (is damaged|cannot be)"):
        checkpoints.check(tmp_path, 2)
    damage.wait_for_noise()


@pytest.mark.parametrize("harm", [damage.flip_params, damage.append_to_params, damage.cut_manifest])
def test_changed_params_are_not_used_and_the_file_is_named(tmp_path, harm):
    _save(tmp_path, [2])
    harm(tmp_path / "2")
    found = set()
    for read in (
        lambda: checkpoints.restore_params(tmp_path, 2, _like().params),
        lambda: checkpoints.check(tmp_path, 2),
        lambda: streamed.open_params(tmp_path, 2),
    ):
        with pytest.raises(checkpoints.CheckpointError) as caught:
            read()
        found |= set(re.findall(r"'(/.*?)'", str(caught.value)))
    [name] = found  # all name the one file
    assert (tmp_path / "2") in pathlib.Path(name).parents and pathlib.Path(name).is_file()


def test_a_changed_optimizer_does_not_matter_for_the_parameters(tmp_path):
    _save(tmp_path, [2])
    damage.flip_optimizer(tmp_path / "2")
    _assert_equal(checkpoints.restore_params(tmp_path, 2, _like().params), _state(2).params)
    with pytest.raises(checkpoints.CheckpointError, match="/2/optimizer/.*SHA-256 mismatch"):
        checkpoints.check(tmp_path, 2)


def test_damage_at_the_same_step_again_is_set_aside_too(tmp_path):
    for _ in range(2):
        _save(tmp_path, [2, 4])
        damage.flip_params(tmp_path / "4")
        with checkpoints.Checkpoints(tmp_path) as saved:
            with pytest.warns(UserWarning, match="/4 is damaged and was renamed"):
                assert saved.restore_latest(_like()).state.step == 2
    assert {p.name for p in tmp_path.iterdir()} == {"2", "4.corrupt", "4.corrupt.corrupt"}


def test_what_a_killed_run_left_is_removed(tmp_path):
    _save(tmp_path, [2])
    for name in ("4.orbax-checkpoint-tmp", "6.orbax-checkpoint-tmp-1", ".removed/1/params"):
        (tmp_path / name).mkdir(parents=True)
    checkpoints.Checkpoints(tmp_path).close()
    assert {p.name for p in tmp_path.iterdir()} == {"2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model": ', "expected JSON"),
        (b"\xff", "expected JSON"),
        (b"[]", "with the key 'model', got list"),
        (b'{"seed": 1}', r"with the key 'model', got keys \['seed'\]"),
    ],
)
def test_a_config_of_another_form_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(checkpoints.CheckpointError, match=f"{tmp_path}/config.json: .*{message}"):
        checkpoints.read_config(tmp_path)
