"""Which checkpoints are scored, while a run goes on writing and removing them."""

import shutil
import threading

import pytest

from specialize_jax.apps import evaluation_steps, run_end
from specialize_jax.schemas import results
from tests.apps import students
from tests.apps.line import gin, run, write_data
from tests.apps.test_evaluate import FORMAT, TINY


@pytest.fixture
def folder(tmp_path):
    """A run with a config and no checkpoint."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "config.json").write_text("{}")
    return tmp_path


class Trainer:
    """Does one thing at each pause of the evaluation, instead of sleeping."""

    def __init__(self, folder, monkeypatch, *acts):
        self._checkpoints, self.pauses, self._acts = folder / "checkpoints", 0, list(acts)
        monkeypatch.setattr(evaluation_steps.time, "sleep", self._pause)
        self._folder = folder

    def write(self, step):
        (self._checkpoints / str(step)).mkdir()

    def remove(self, step):
        shutil.rmtree(self._checkpoints / str(step))

    def finish(self, step):
        run_end.mark(self._folder, step)

    def _pause(self, seconds):
        assert 0 < seconds <= 5
        self.pauses += 1
        name, step = self._acts.pop(0) if self._acts else (None, None)
        if name is not None:
            getattr(self, name)(step)


def test_checkpoints_are_scored_as_they_come_until_the_run_is_finished(folder, monkeypatch, capsys):
    trainer = Trainer(
        folder, monkeypatch, (None, 0), ("write", 4), (None, 0), ("write", 8), ("finish", 8)
    )
    trainer.write(2)
    assert list(evaluation_steps.follow(folder, 60)) == [2, 4, 8]
    assert trainer.pauses == 5
    told = capsys.readouterr().out
    assert told.count("waiting for a new checkpoint") == 3
    assert "no further checkpoint: the run is finished" in told


def test_one_that_is_removed_is_not_yielded_again(folder, monkeypatch):
    trainer = Trainer(folder, monkeypatch, ("finish", 4))
    trainer.write(2)
    steps = evaluation_steps.follow(folder, 60)
    assert next(steps) == 2
    trainer.remove(2)
    trainer.write(4)
    assert list(steps) == [4]


def test_a_checkpoint_that_comes_with_the_end_is_not_missed(folder, monkeypatch):
    """The end is looked at first: between the two looks a run may write its last and finish."""
    trainer = Trainer(folder, monkeypatch)
    there = evaluation_steps.checkpoints.all_steps

    def all_steps(path):
        found = there(path)
        if not found:
            trainer.write(8)
            trainer.finish(8)
        return found

    monkeypatch.setattr(evaluation_steps.checkpoints, "all_steps", all_steps)
    assert list(evaluation_steps.follow(folder, 60)) == [8]


def test_waiting_ends(folder):
    with pytest.raises(evaluation_steps.WaitedError, match=r"waited 0 s \(EVAL_WAIT_SECONDS\)"):
        list(evaluation_steps.follow(folder, 0))
    with pytest.raises(evaluation_steps.WaitedError, match="config.json"):
        evaluation_steps.wait_for_run(folder / "absent", 0)


def test_how_a_run_has_ended(folder):
    (folder / "checkpoints" / "8").mkdir()
    assert run_end.read(folder) is None
    (folder / "stopped_at_5.json").touch()  # of an earlier try, which went on
    assert run_end.read(folder) is None
    (folder / "stopped_at_9.json").touch()
    assert "the run stopped, see" in run_end.read(folder)
    run_end.mark(folder, 8)
    assert run_end.read(folder) == "the run is finished"
    run_end.clear(folder)
    run_end.clear(folder)
    (folder / "stopped_at_9.json").unlink()
    assert run_end.read(folder) is None


def test_evaluating_while_a_run_writes(tmp_path, monkeypatch, capsys):
    """The student is waited for, then scored at each checkpoint, in another thread's time."""
    monkeypatch.setattr(evaluation_steps, "_POLL_SECONDS", 0.05)
    model_dir, data = tmp_path / "model", write_data(tmp_path / "data")
    scored = model_dir / "eval" / "2"

    def train():
        students.write(model_dir, (2,))
        while not list(scored.glob("results_*.json")):
            threading.Event().wait(0.05)
        students.write_checkpoint(model_dir, 4, students.build())
        run_end.mark(model_dir, 4)

    trainer = threading.Thread(target=train)
    trainer.start()
    flags = [gin("MODEL_DIR", str(model_dir)), gin("EVAL_CHECKPOINTS", "new")]
    flags += [gin("EVAL_SETS", ("gsm8k",)), gin("MAX_DECODE_LENGTH", 4), f"--data_dir={data}"]
    assert run("evaluate", TINY, *flags, gin("EVAL_WAIT_SECONDS", 100)) == 0
    trainer.join()
    for step in (2, 4):
        [path] = (model_dir / "eval" / str(step)).glob("results_*.json")
        assert set(results.read_results(path)["results"]) == {f"gsm8k_{FORMAT}"}
    run_end.clear(model_dir)
    assert run("evaluate", TINY, *flags, gin("EVAL_WAIT_SECONDS", 0)) == 1
    told = capsys.readouterr().out
    assert told.count("scored before: ") == 2 and "what was scored is kept" in told
