"""GPT-2's folders read, written and refused; parity is in `test_parity`."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from specialize_jax import convert
from specialize_jax.convert import gpt2_hf
from specialize_jax.models import gpt2

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "gpt2_tiny_hf"


@pytest.fixture
def folder(tmp_path):
    """A copy of the golden that a test may spoil."""
    return pathlib.Path(shutil.copytree(GOLDEN, tmp_path / "copy"))


def _change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def _change_config(folder, **fields):
    raw = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(raw))


def _assert_same_tensors(folder, expected):
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def test_the_table_lists_every_parameter_once_and_joins_in_order():
    config = gpt2.GPT2Config(8, 12, 2, 3, vocab_size=10, num_positions=6, pad_id=9)
    shapes = jax.eval_shape(gpt2.build(config).init, jax.random.key(0))
    paths = traverse_util.flatten_dict(shapes, sep="/")
    rows = gpt2_hf.table(config)
    assert sorted(row.ours for row in rows) == sorted(paths)
    theirs = [(name, row.part) for row in rows for name in row.tensors()]
    assert len(set(theirs)) == len(theirs)
    assert [row.ours.split("/")[3] for row in rows if row.parts == 3 and "kernel" in row.ours] == [
        "query",
        "key",
        "value",
    ]


def test_round_trip_is_byte_identical_and_the_config_reads_the_same(tmp_path):
    config, params = convert.load_hf(GOLDEN)
    convert.save_hf(config, params, tmp_path)
    _assert_same_tensors(tmp_path, load_file(GOLDEN / "model.safetensors"))
    assert convert.load_hf(tmp_path)[0] == config


def test_prefix_buffers_and_a_repeated_head_change_nothing(folder):
    expected = convert.load_hf(GOLDEN)

    def old(tensors):
        """As in the files of 2019: no prefix, the causal mask as a buffer, no head."""
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        masks = {f"h.{layer}.attn.bias": np.ones((1, 1, 32, 32), np.float32) for layer in (0, 1)}
        return bare | masks | {"h.0.attn.masked_bias": np.float32([-1e4]).reshape(())}

    for change in (old, lambda ts: ts | {"lm_head.weight": ts["wte.weight"].copy()}):
        _change_tensors(folder, change)
        config, params = convert.load_hf(folder)
        assert config == expected[0]
        jax.tree.map(np.testing.assert_array_equal, params, expected[1])


def test_a_head_of_its_own_is_refused(folder):
    embedding = "transformer.wte.weight"
    _change_tensors(folder, lambda ts: ts | {"lm_head.weight": ts[embedding] + 1})
    with pytest.raises(ValueError, match="head is its embedding"):
        convert.load_hf(folder)


def test_missing_halves_of_a_joined_tensor_are_named_once(folder):
    name = "h.1.attn.c_attn.weight"
    _change_tensors(folder, lambda ts: ts | {f"transformer.{name}": np.zeros((24, 71), np.float32)})
    with pytest.raises(ValueError, match=re.escape("(24, 72), got (24, 71)")) as caught:
        convert.load_hf(folder)
    assert str(caught.value).count(name) == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("activation_function", "gelu", "gelu_new, gelu_pytorch_tanh, got 'gelu'"),
        ("scale_attn_by_inverse_layer_idx", True, "one of False, got True"),
        ("n_head", 5, "num_heads to divide d_model, got 5 and 24"),
    ],
)
def test_other_kinds_of_gpt2_are_refused(folder, field, value, message):
    _change_config(folder, **{field: value})
    with pytest.raises(ValueError, match=message):
        convert.load_hf(folder)


@pytest.mark.parametrize(("given", "pad"), [({}, 63), ({"pad_token_id": 5}, 5)])
def test_padding_is_the_end_of_text_unless_the_config_says_otherwise(folder, given, pad):
    _change_config(folder, **given)
    assert convert.load_hf(folder)[0].pad_id == pad


def test_token_ids_stay_where_the_config_changes(folder, tmp_path):
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    _change_config(folder, **ids)
    config, params = convert.load_hf(folder)
    trained = dataclasses.replace(config, dropout_rate=0.25)
    convert.save_hf(trained, params, tmp_path / "out", source=folder)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["resid_pdrop"] == 0.25
    assert {name: written[name] for name in ids} == ids


def test_names_begin_as_those_of_the_source(folder, tmp_path):
    bare = lambda tensors: {k.removeprefix("transformer."): v for k, v in tensors.items()}  # noqa: E731
    _change_tensors(folder, bare)
    config, params = convert.load_hf(folder)
    convert.save_hf(config, params, tmp_path / "out", source=folder)
    _assert_same_tensors(tmp_path / "out", load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    convert.save_hf(config, params, tmp_path / "unknown", source=folder)
    names = load_file(tmp_path / "unknown" / "model.safetensors")
    assert all(name.startswith("transformer.") for name in names)
