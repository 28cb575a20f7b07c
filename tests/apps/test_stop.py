"""`train` that SIGTERM stops says so, and goes on with the same command."""

import os
import signal

from specialize_jax.data.packed import PackedRows
from specialize_jax.training import checkpoints
from tests.apps.line import FIXTURES, gin, run
from tests.training import toy


def test_a_run_stopped_in_its_last_held_out_loss_is_not_done(tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    command = ["train", "--gin_file=testing/tiny.gin", gin("MODEL_DIR", str(model))]
    command += [gin("PACKED_DIR", str(FIXTURES / "packed_rows")), gin("TRAIN_STEPS_RELATIVE", 2)]
    in_order = PackedRows.in_order

    def stopped(self, *arguments):
        for batch in in_order(self, *arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(PackedRows, "in_order", stopped)
    assert run(*command) == 128 + signal.SIGTERM
    assert "saved step 2; its held-out loss is still to come" in capsys.readouterr().err
    assert checkpoints.all_steps(model / "checkpoints") == [2]
    assert [line["split"] for line in toy.lines(model)] == ["train"]
    monkeypatch.undo()
    assert run(*command) == 0
    assert [line["split"] for line in toy.lines(model)] == ["train", "validation"]
