import json
import pathlib
import re
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from specialize_jax import convert

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
UNTIED = GOLDEN / "t5_tiny_hf"
TIED = GOLDEN / "t5_tiny_tied_hf"


@pytest.fixture
def folder(tmp_path):
    """A copy of the golden that a test may spoil, with functions to change its parts."""
    return pathlib.Path(shutil.copytree(UNTIED, tmp_path / "copy"))


def _change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _change_config(folder, **fields):
    raw = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(raw))


def _assert_same_trees(params, expected):
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize("golden", [UNTIED, TIED], ids=["t5 1.1", "t5 1.0"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip_is_byte_identical(golden, dtype, tmp_path):
    source = pathlib.Path(shutil.copytree(golden, tmp_path / "source"))

    def cast(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.astype(dtype)

    _change_tensors(source, cast)
    config, params = convert.load_hf(source)
    convert.save_hf(config, params, tmp_path / "again")
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype == np.dtype(dtype), name
        assert after[name].shape == tensor.shape, name
        assert after[name].tobytes() == tensor.tobytes(), name
    assert convert.load_hf(tmp_path / "again")[0] == config
    theirs = json.loads((source / "config.json").read_text())
    ours = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {key: ours[key] for key in theirs if key in ours} == {
        key: theirs[key] for key in theirs if key in ours
    }


def test_shards_are_written_and_read(tmp_path):
    config, params = convert.load_hf(UNTIED)
    convert.save_hf(config, params, tmp_path, max_shard_bytes=40_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 2
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in jax.tree.leaves(params))
    _assert_same_trees(convert.load_hf(tmp_path)[1], params)
    convert.save_hf(config, params, tmp_path)  # one file again: the index must not win
    assert not (tmp_path / "model.safetensors.index.json").exists()
    _assert_same_trees(convert.load_hf(tmp_path)[1], params)


def test_dtype_is_as_asked(folder):
    _change_tensors(
        folder, lambda ts: ts.update({n: t.astype(ml_dtypes.bfloat16) for n, t in ts.items()})
    )
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(convert.load_hf(folder)[1])}
    assert kinds == {"bfloat16"}
    _, params = convert.load_hf(folder, dtype="float32")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_shardings_place_what_plain_loading_reads():
    config, params = convert.load_hf(UNTIED)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    shardings = jax.tree.map(lambda _: jax.sharding.NamedSharding(mesh, spec), params)
    _, placed = convert.load_hf(UNTIED, shardings=shardings)
    _assert_same_trees(placed, params)
    for leaf in jax.tree.leaves(placed):
        assert leaf.sharding.spec == spec


def test_repeated_embeddings_are_read_once(folder):
    _, expected = convert.load_hf(UNTIED)

    def repeat(tensors):
        for stack in ("encoder", "decoder"):
            tensors[f"{stack}.embed_tokens.weight"] = tensors["shared.weight"].copy()

    _change_tensors(folder, repeat)
    _assert_same_trees(convert.load_hf(folder)[1], expected)
    _change_tensors(folder, lambda tensors: tensors.pop("shared.weight"))
    _assert_same_trees(convert.load_hf(folder)[1], expected)


def test_differing_copy_of_the_embedding_is_an_error(folder):
    _change_tensors(
        folder, lambda ts: ts.update({"encoder.embed_tokens.weight": ts["shared.weight"] + 1})
    )
    with pytest.raises(ValueError, match="encoder.embed_tokens.weight differs from shared.weight"):
        convert.load_hf(folder)


def test_transformers_5_says_tied_and_the_head_decides(folder):
    """Transformers 5.23 saves an untied T5 1.1 with these two fields."""
    _, expected = convert.load_hf(UNTIED)
    _change_config(folder, tie_word_embeddings=True, scale_decoder_outputs=False)
    config, params = convert.load_hf(folder)
    assert not config.tied_embeddings
    assert not config.rescale_output
    _assert_same_trees(params, expected)
    _change_tensors(folder, lambda ts: ts.update({"lm_head.weight": ts["shared.weight"].copy()}))
    config, params = convert.load_hf(folder)
    assert config.tied_embeddings
    assert not config.rescale_output
    assert "logits_dense" not in params


def test_all_misfits_are_named_at_once(folder):
    def spoil(tensors):
        tensors["decoder.block.0.layer.3.Adapter.weight"] = np.zeros(3, np.float32)
        del tensors["lm_head.weight"]
        norm = "encoder.block.1.layer.0.layer_norm.weight"
        tensors[norm] = np.zeros(31, np.float32)
        # Old files have this one; it is no misfit.
        bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensors[bias] = np.zeros((32, 3), np.float32)

    _change_tensors(folder, spoil)
    with pytest.raises(ValueError) as caught:
        convert.load_hf(folder)
    message = str(caught.value)
    assert "unknown tensor decoder.block.0.layer.3.Adapter.weight" in message
    assert "missing tensor lm_head.weight" in message
    assert "encoder.block.1.layer.0.layer_norm.weight: expected shape (32,), got (31,)" in message
    assert message.count(";") == 2


def test_parameters_that_do_not_fit_are_not_saved(tmp_path):
    config, params = convert.load_hf(UNTIED)
    params["logits_dense"] = {"kernel": np.zeros((32, 63), np.float32), "bias": np.zeros(64)}
    del params["encoder"]["encoder_norm"]
    with pytest.raises(ValueError) as caught:
        convert.save_hf(config, params, tmp_path / "none")
    message = str(caught.value)
    assert "unknown parameter logits_dense/bias" in message
    assert "missing parameter encoder/encoder_norm/scale" in message
    assert "logits_dense/kernel: expected shape (32, 64), got (32, 63)" in message
    assert not (tmp_path / "none").exists()
    config, params = convert.load_hf(UNTIED)
    with pytest.raises(FileNotFoundError, match="other files in a folder, found no absent"):
        convert.save_hf(config, params, tmp_path / "none", source="absent")
    assert not (tmp_path / "none").exists()


def test_other_models_and_folders_are_refused(folder, tmp_path):
    _change_config(folder, model_type="bart")
    with pytest.raises(ValueError, match="model_type .* one of t5, mt5, gpt2, got 'bart'"):
        convert.load_hf(folder)
    _change_config(folder, model_type="t5", feed_forward_proj="gated-silu")
    with pytest.raises(ValueError, match="activation .* gated-gelu, relu, got 'gated-silu'"):
        convert.load_hf(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors or model.safetensors.index"):
        convert.load_hf(folder)


@pytest.mark.parametrize("name", ["t5_tiny_hf", "t5_tiny_tied_hf", "mt5_tiny_hf", "gpt2_tiny_hf"])
def test_every_part_equals_that_of_the_whole(name):
    """Parts are what a device holds; layers, transposes and joined tensors are cut alike."""
    with convert.open_hf(GOLDEN / name) as opened:
        whole = traverse_util.flatten_dict(opened.params.load(), sep="/")
        for path, array in whole.items():
            for share in (2, 3):
                index = tuple(slice(size // share, size) for size in array.shape)
                np.testing.assert_array_equal(opened.params.read(path, index), array[index])


def test_layers_stored_in_several_dtypes_are_named(folder):
    name = "encoder.block.1.layer.0.layer_norm.weight"

    def change(tensors):
        tensors[name] = tensors[name].astype(np.float16)

    _change_tensors(folder, change)
    stack = name.replace(".1.", ".{}.", 1)
    message = f"layers of {re.escape(stack)} are stored as float16 and float32"
    with pytest.raises(ValueError, match=message):
        convert.load_hf(folder)
