"""A run's programs, compiled for TPU slices that do not exist. `make test` fetches libtpu."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from specialize_jax import models

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LIBTPU = _ROOT / ".libtpu"
needs_libtpu = pytest.mark.skipif(
    not (_LIBTPU / "libtpu").exists(), reason="no libtpu in .libtpu: `make test` fetches it"
)


def run(*flags, path=_LIBTPU):
    paths = [str(_ROOT), str(path), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "specialize_jax.apps.main", "compile", *flags],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


@needs_libtpu
def test_a_small_step_on_four_chips(tmp_path):
    found = run(
        "--gin_file=testing/tiny.gin",
        "--topology=v5e:2x2",
        "--gin.BATCH_SIZE=8",
        "--gin.FSDP_PARTITIONS=2",
        "--gin.MODEL_PARTITIONS=2",
        f"--json={tmp_path}/found.json",
    )
    assert found.returncode == 0, found.stderr
    assert "8 rows of 512 + 96 tokens on 4 TPU v5 lite" in found.stdout
    assert "fits: peak" in found.stdout
    numbers = json.loads((tmp_path / "found.json").read_text())
    assert numbers["chips"] == 4
    assert 0 < numbers["state_bytes"] < numbers["peak_bytes"] < 2**30
    # Two encoder and two decoder layers: parameters are gathered in both passes of each.
    times, size = numbers["traffic"]["all-gather"]
    assert times >= 8 and size > 0
    assert numbers["traffic"]["all-reduce"][0] > 0


def numbers_of(tmp_path, *flags):
    """Runs with few tokens a row; returns the numbers and what was printed."""
    found = run("--gin_file=testing/tiny.gin", f"--json={tmp_path}/found.json", *flags)
    assert found.returncode == 0, found.stderr
    return json.loads((tmp_path / "found.json").read_text()), found.stdout


@needs_libtpu
def test_decoding_counts_the_longest_answers(tmp_path):
    numbers, printed = numbers_of(
        tmp_path,
        "--program=decode",
        "--topology=v5e:2x2",
        "--lengths=64,16",
        "--gin.EVAL_BATCH_SIZE=8",
        "--gin.FSDP_PARTITIONS=2",
        "--gin.MODEL_PARTITIONS=2",
    )
    assert "decoding, 8 rows of 64 + 16 tokens on 4 TPU v5 lite" in printed
    assert "if every answer has 16 tokens; the loop ends when all answers have" in printed
    whole, each = numbers["traffic"], numbers["token_traffic"]
    # Heads are split: a token's products are summed over chips in both layers' three parts.
    assert each["all-reduce"][0] >= 2 * 3
    for kind, (times, size) in each.items():
        assert whole[kind][0] >= 16 * times and whole[kind][1] >= 16 * size
    work = models.build("t5_1_1_tiny", d_model=32, d_kv=8, d_ff=64, vocab_size=128).decoding_flops
    assert numbers["flops"] == 8 * (work(64, 16).inputs + 16 * work(64, 16).token)
    assert set(numbers["estimates"]) == {"inputs", "token"}


@needs_libtpu
def test_the_held_out_loss_needs_no_optimizer_and_a_third_of_the_work(tmp_path):
    flags = ("--topology=v5e:2x2", "--lengths=64,32", "--gin.BATCH_SIZE=8")
    held_out, printed = numbers_of(tmp_path, "--program=evaluate", *flags)
    step, _ = numbers_of(tmp_path, "--gin.OPTIMIZER='adamw'", *flags)
    assert "held-out loss, 8 rows" in printed
    assert 3 * held_out["flops"] == step["flops"]
    assert held_out["state_bytes"] < 0.5 * step["state_bytes"]


D_MODEL, D_FF, VOCABULARY = 512, 1024, 1024
WIDE = (
    f"--gin.models.build.d_model={D_MODEL}",
    f"--gin.models.build.d_kv={D_MODEL // 8}",
    f"--gin.models.build.d_ff={D_FF}",
    f"--gin.models.build.vocab_size={VOCABULARY}",
    "--gin.models.build.num_heads=8",
    "--gin.DTYPE='bfloat16'",
    "--gin.REMAT='full'",
    "--gin.OPTIMIZER='adamw'",
    "--gin.FSDP_PARTITIONS=4",
    "--lengths=128,128",
    "--chip_config=megacore",
    "--topology=v4:2x2x1",
)


@needs_libtpu
def test_one_and_two_slices_move_what_full_sharding_must(tmp_path):
    """The report against sums by hand: two encoder and two decoder layers, four chips a copy."""
    one, _ = numbers_of(tmp_path, *WIDE, "--gin.BATCH_SIZE=4")
    two, printed = numbers_of(tmp_path, *WIDE, "--gin.BATCH_SIZE=8", "--num_slices=2")
    assert "8 rows of 128 + 128 tokens on 8 TPU v4 (v4:2x2x1 x 2): data 2, fsdp 4" in printed
    attention, feed_forward = 4 * D_MODEL * D_MODEL, 3 * D_MODEL * D_FF
    layers = 2 * (attention + feed_forward) + 2 * (2 * attention + feed_forward)
    table = VOCABULARY * D_MODEL  # tokens are embedded by one, and unembedded by another
    # Parameters and two moments in float32, a quarter each.
    assert one["state_bytes"] == pytest.approx(3 * 4 * (layers + 2 * table) / 4, rel=0.02)
    assert two["state_bytes"] == pytest.approx(one["state_bytes"], rel=0.01)
    for numbers in (one, two):
        moved = {kind: size for kind, (_, size) in numbers["traffic"].items()}
        # The layers' weights in bfloat16, forward and again backward, where the compiler may do it
        # once for the activations and once for the gradient.
        gathered = moved["all-gather"] + moved.get("collective-permute", 0)
        assert 2 * 2 * layers < gathered < 3 * 2 * layers + 4 * 2 * table
        # Their gradients once; those of the tables in float32.
        reduced = moved["reduce-scatter"] + moved.get("all-reduce", 0)
        assert 2 * layers + 4 * table < 1.01 * reduced < 2 * layers + 3 * 4 * table
    assert "between-slices" not in one["traffic"]
    # Only gradients travel, each chip its quarter, those of the embedding by token; and nothing
    # grows within a slice.
    between, by_token = two["traffic"]["between-slices"][1], 4 * 2 * 2 * 128 * D_MODEL
    assert 2 * layers + 4 * 2 * table < 4 * between < 2 * layers + 4 * 4 * table + 4 * by_token
    assert two["peak_bytes"] < 1.25 * one["peak_bytes"]
    assert two["flops"] == 2 * one["flops"]


@needs_libtpu
def test_what_does_not_fit_is_said_with_the_compiler_s_words():
    found = run(
        "--gin_file=experiments/flan_t5_xxl_gsm8k.gin",
        "--topology=v5e:2x2",
        "--gin.ALIGNED_DIRS=()",
        "--gin.MODEL_PARTITIONS=4",
    )
    assert found.returncode == 1, found.stderr
    assert "does not fit: RESOURCE_EXHAUSTED" in found.stdout
    assert "hbm" in found.stdout.lower()


@needs_libtpu
def test_one_chip_is_a_slice_too(tmp_path):
    numbers, _ = numbers_of(tmp_path, "--topology=v6e:1x1", "--program=evaluate", "--lengths=64,16")
    assert numbers["chips"] == 1 and numbers["traffic"] == {}


@needs_libtpu
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--topology=v9:2x2"], "cannot describe 'v9:2x2'.*expected a name as v5e:8x8"),
        (["--topology=v5e:2x2", "--gin.MODEL_PARTITIONS=3"], "1 x model may be one of 1, 2, 4"),
        (["--topology=v5e:2x2", "--gin.BATCH_SIZE=6"], "nearest that do: 4, 8"),
        (
            ["--topology=v5e:2x2", "--program=decode", "--gin.EVAL_BATCH_SIZE=6"],
            "nearest that do: 4, 8",
        ),
        (["--topology=v5e:2x2", "--lengths=512"], "two numbers as 1536,296, got '512'"),
    ],
)
def test_bad_input(flags, message):
    import re

    found = run("--gin_file=testing/tiny.gin", "--gin.BATCH_SIZE=8", *flags)
    assert found.returncode == 1
    assert re.search(message, found.stderr), found.stderr
    assert "Traceback" not in found.stderr


def test_decoding_needs_the_settings_of_evaluate(tmp_path):
    (tmp_path / "own.gin").write_text(
        """include 'runs/train.gin'
include 'models/t5/base.gin'
include 'objectives/match_distribution.gin'
SIZE = 't5_1_1_tiny'
BATCH_SIZE = 4
TRAIN_STEPS_RELATIVE = 1
"""
    )
    found = run(f"--gin_file={tmp_path}/own.gin", "--topology=v5e:2x2", "--program=decode")
    assert found.returncode == 1
    assert "include runs/evaluate.gin" in found.stderr


def test_without_libtpu_the_extra_is_named(tmp_path):
    found = run("--gin_file=testing/tiny.gin", "--topology=v5e:2x2", path=tmp_path)
    assert found.returncode == 1
    assert "libtpu is not installed: pip install '.[tpu]'" in found.stderr
