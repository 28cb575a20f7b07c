"""Sums to lines, and a file that reads as one run."""

import json

import numpy as np
import pytest

from specialize_jax import losses
from specialize_jax.training import metrics

SUMS = {
    "loss_sum": 12.0,
    "tokens": 8.0,
    "kl_sum": 2.0,
    "kl_tokens": 4.0,
    "ce_sum": 10.0,
    "ce_tokens": 4.0,
    "cot_tokens": 5.0,
    "transferred_tokens": 4.0,
    "group_loss_sum": np.array([0.0, 12.0, 0.0, 0.0]),
    "group_tokens": np.array([0.0, 8.0, 0.0, 0.0]),
}


def test_means_in_nats_per_token_and_null_where_nothing_was_counted():
    summary = metrics.summarize(SUMS | {"ce_sum": 0.0, "ce_tokens": 0.0})
    assert summary["loss"] == 1.5
    assert summary["kl_loss"] == 0.5
    assert summary["ce_loss"] is None
    assert summary["coverage"] == 0.8
    assert summary["loss/zero_shot_chain_of_thought"] == 1.5
    assert summary["loss/in_context_answer_only"] is None


def test_the_losses_report_what_is_summarised_here():
    assert set(losses.METRICS) == set(SUMS)


def test_more_groups_than_names_is_an_error():
    with pytest.raises(ValueError, match="a name for each of 4 groups"):
        metrics.summarize(SUMS, ["one"])


def test_a_window_adds_sums_averages_norms_and_keeps_the_last_rate():
    window = metrics.Window()
    window.add(SUMS | {"grad_norm": 1.0, "learning_rate": 0.1})
    window.add(
        {name: 3 * value for name, value in SUMS.items()} | {"grad_norm": 2.0, "learning_rate": 0.2}
    )
    summary = window.summary()
    assert summary["loss"] == 1.5
    assert summary["tokens"] == 32
    assert summary["grad_norm"] == 1.5
    assert summary["learning_rate"] == 0.2


def test_a_window_survives_json_exactly():
    window = metrics.Window()
    window.add({"loss_sum": np.float32(0.1), "tokens": 3.0, "group_tokens": np.ones(2) / 3})
    again = metrics.Window(json.loads(json.dumps(window.to_json())))
    for one in (window, again):
        one.add({"loss_sum": np.float32(0.7), "tokens": 3.0, "group_tokens": np.ones(2) / 7})
    assert window.to_json() == again.to_json()


def test_lines_after_the_restored_step_and_half_lines_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = metrics.MetricsFile(path)
    for step in (3, 6, 9):
        file.write(step, "train", {"loss": float(step)})
    with path.open("a") as opened:
        opened.write('{"step": 12, "spl')
    file.cut_after(6)
    file.write(9, "validation", {"loss": float("nan")})
    lines = metrics.read(path)
    assert [(line["step"], line["split"]) for line in lines] == [
        (3, "train"),
        (6, "train"),
        (9, "validation"),
    ]
    assert lines[-1]["loss"] is None
    assert path.read_text().endswith("\n")


def test_other_hosts_write_nothing(tmp_path):
    file = metrics.MetricsFile(tmp_path / "metrics.jsonl", write=False)
    file.write(1, "train", {"loss": 1.0})
    file.cut_after(0)
    assert not (tmp_path / "metrics.jsonl").exists()
