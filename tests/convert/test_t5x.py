"""t5x checkpoints, written here as t5x lays them out (with tensorstore and msgpack, not t5x)."""

import dataclasses
import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from flax import serialization, traverse_util

from specialize_jax import convert
from specialize_jax.models import t5
from tests.convert import tiny

CONFIG = tiny.CONFIG
TIED = dataclasses.replace(CONFIG, activation="relu", tied_embeddings=True, rescale_output=True)


def _unscanned(params):
    """Names and shapes of `examples/t5`."""
    theirs = {}
    for path, array in traverse_util.flatten_dict(params, sep="/").items():
        if "/layers/" in path:
            for number, layer in enumerate(array):
                theirs[path.replace("/layers/", f"/layers_{number}/")] = layer
        else:
            theirs[path.replace("logits_dense", "decoder/logits_dense")] = array
    return theirs


def _scanned(params, config=CONFIG):
    """Names and shapes of `examples/scalable_t5`: layers on axis 1, heads apart."""
    theirs = {}
    for path, array in traverse_util.flatten_dict(params, sep="/").items():
        stack, name = path.split("/")[0], path.split("/")[-2]
        if path.endswith("rel_embedding"):
            depth = getattr(config, f"num_{stack}_layers")
            path, array = f"{stack}/{path}", np.stack([array] * depth, axis=1)
        elif "/layers/" in path:
            path = path.replace("/layers/", f"/{stack}/")
            if name in ("query", "key", "value"):
                array = array.reshape(*array.shape[:2], config.num_heads, config.d_kv)
            if name == "out":
                array = array.reshape(-1, config.num_heads, config.d_kv, config.d_model)
            array = np.moveaxis(array, 0, 1)
        theirs[path.replace("logits_dense", "decoder/logits_dense")] = array
    return theirs


_CONTEXT = ts.Context({"file_io_sync": False})  # nobody needs these files after a crash


def _write_zarr(store, array):
    chunks = [max(1, size // 2) for size in array.shape]
    metadata = {"shape": list(array.shape), "chunks": chunks}
    if array.ndim == 2:
        metadata["compressor"] = {"id": "gzip", "level": 1}
    spec = {"driver": "zarr", "kvstore": store, "metadata": metadata}
    dtype = ts.dtype(array.dtype.name)
    opened = ts.open(spec, dtype=dtype, create=True, context=_CONTEXT).result()
    opened.write(array).result()


def _legacy(folder: pathlib.Path, arrays) -> pathlib.Path:
    """The tree as msgpack; matrices in zarr folders of their own, the rest inline."""
    folder.mkdir(parents=True)
    target = {}
    for path, array in arrays.items():
        name = f"target.{path.replace('/', '.')}"
        if array.ndim == 1:
            target[path] = array
            continue
        _write_zarr(f"file://{folder}/{name}/", array)
        target[path] = {
            "driver": "zarr",
            "dtype": array.dtype.name,
            "kvstore": {"driver": "file", "path": name},
            "metadata": {"shape": list(array.shape)},
        }
    optimizer = {
        "target": traverse_util.unflatten_dict(target, sep="/"),
        "state": {"step": np.int32(7), "param_states": {"m": np.ones(2)}},
    }
    content = serialization.msgpack_serialize({"version": 3, "optimizer": optimizer})
    (folder / "checkpoint").write_bytes(content)
    return folder


def _orbax(folder: pathlib.Path, arrays) -> pathlib.Path:
    """One OCDBT store with every array, and the tree as JSON."""
    state = folder / "state"
    state.mkdir(parents=True)
    every = {f"target/{path}": array for path, array in arrays.items()} | {
        "state/step": np.ones((1,), np.int32),
        "state/param_states/token_embedder/embedding/v_row": np.ones((3,), np.float32),
    }
    for path, array in every.items():
        store = {"driver": "ocdbt", "base": f"file://{state}", "path": path.replace("/", ".")}
        _write_zarr(store, array)
    tree = {
        str(tuple(path.split("/"))): {
            "key_metadata": [{"key": key, "key_type": 2} for key in path.split("/")],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
        for path in every
    }
    metadata = {"tree_metadata": tree, "use_ocdbt": True, "use_zarr3": False}
    (state / "_METADATA").write_text(json.dumps(metadata))
    return folder


LAYOUTS = {"legacy": _legacy, "orbax": _orbax}
FORMS = {"unscanned": _unscanned, "scanned": _scanned}


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_parameters_come_through(write, form, tmp_path):
    params = tiny.params()
    folder = write(tmp_path / "checkpoint_40", form(params))
    config, found = convert.load_t5x(folder)
    assert config == CONFIG
    tiny.assert_same(found, params)
    given, found = convert.load_t5x(folder, dataclasses.replace(CONFIG, dropout_rate=0.1))
    assert given.dropout_rate == 0.1
    tiny.assert_same(found, params)


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS)
def test_t5_1_0_is_known_by_its_shapes(write, tmp_path):
    params = tiny.params(TIED)
    config, found = convert.load_t5x(write(tmp_path / "checkpoint_1", _unscanned(params)))
    assert config == TIED
    tiny.assert_same(found, params)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_shardings_and_dtype(form, tmp_path):
    params = tiny.params()
    folder = _legacy(tmp_path / "c", form(params))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shardings = jax.tree.map(lambda _: sharding, params)
    _, found = convert.load_t5x(folder, dtype="bfloat16", shardings=shardings)
    tiny.assert_same(found, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params))
    assert {leaf.sharding for leaf in jax.tree.leaves(found)} == {sharding}
    with pytest.raises(ValueError, match="got float16"):
        convert.load_t5x(folder, dtype="float16")


def test_every_part_equals_that_of_the_whole(tmp_path):
    folder = _orbax(tmp_path / "c", _scanned(tiny.params()))
    _, params, _ = convert.open_t5x(folder)
    for path, leaf in params.shapes.items():
        whole = params.read(path, ())
        index = tuple(slice(size // 3, size - size // 4) for size in leaf.shape)
        np.testing.assert_array_equal(params.read(path, index), whole[index])


def test_the_last_checkpoint_of_a_folder_is_meant_and_its_step_is_told(tmp_path):
    for step in (9, 10):
        _legacy(tmp_path / f"checkpoint_{step}", _unscanned(tiny.params(seed=step)))
    (tmp_path / "checkpoint_11").mkdir()  # unfinished
    config, params, step = convert.open_t5x(tmp_path)
    assert step == 10
    tiny.assert_same(params.load(), tiny.params(seed=10))


def test_a_vocabulary_padded_otherwise_is_said(tmp_path):
    params = tiny.params(dataclasses.replace(CONFIG, vocab_size=100))
    folder = _legacy(tmp_path / "c", _unscanned(params))
    with pytest.warns(UserWarning, match="of 100 rows is padded"):
        config, found = convert.load_t5x(folder, CONFIG)
    assert config == CONFIG
    assert found["token_embedder"]["embedding"].shape == (128, 8)
    assert found["logits_dense"]["kernel"].shape == (8, 128)


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS)
def test_all_misfits_are_named_at_once(write, tmp_path):
    arrays = _unscanned(tiny.params())
    arrays["encoder/layers_1/adapter/kernel"] = np.ones((2, 2), np.float32)
    del arrays["decoder/decoder_norm/scale"]
    arrays["decoder/layers_2/mlp/wo/kernel"] = np.ones((8, 12), np.float32)
    with pytest.raises(ValueError) as caught:
        convert.load_t5x(write(tmp_path / "c", arrays), CONFIG)
    message = str(caught.value)
    assert "unknown parameter encoder/layers_1/adapter/kernel" in message
    assert "missing parameter decoder/decoder_norm/scale" in message
    expected = "decoder/layers_2/mlp/wo/kernel: expected shape (12, 8), got (8, 12)"
    assert expected in message
    assert message.count(";") == 2


def test_the_names_of_the_first_scalable_t5_are_read(tmp_path):
    def older(path):
        path = path.replace("encoder/encoder/", "encoder/layers/")
        path = path.replace("decoder/decoder/", "decoder/layers/")
        return path.replace("relpos_bias", "relative_posemb")

    arrays = {older(path): array for path, array in _scanned(tiny.params()).items()}
    config, found = convert.load_t5x(_legacy(tmp_path / "c", arrays))
    assert config == CONFIG
    tiny.assert_same(found, tiny.params())


def test_relative_biases_that_differ_between_layers_are_refused(tmp_path):
    arrays = _scanned(tiny.params())
    arrays["decoder/decoder/relpos_bias/rel_embedding"][0, 2, 5] += 1
    with pytest.raises(ValueError, match="layers of the decoder have relative biases of their own"):
        convert.load_t5x(_orbax(tmp_path / "c", arrays))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a t5x checkpoint.* found none at"):
        convert.load_t5x(tmp_path)
    folder = _legacy(tmp_path / "legacy", _unscanned(tiny.params()))
    name = "encoder.layers_0.mlp.wo.kernel"
    (folder / f"target.{name}" / ".zarray").unlink()
    with pytest.raises(ValueError, match="cannot be read: encoder/layers_0/mlp/wo/kernel"):
        convert.load_t5x(folder)
    (folder / "checkpoint").write_bytes((folder / "checkpoint").read_bytes()[:100])
    with pytest.raises(ValueError, match="legacy: the tree of parameters cannot be read"):
        convert.load_t5x(folder)
    folder = _orbax(tmp_path / "orbax", _unscanned(tiny.params()))
    (folder / "state" / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match="orbax: the tree of parameters cannot be read"):
        convert.load_t5x(folder)


def test_another_network_and_another_size_are_refused(tmp_path):
    arrays = {"encoder/blocks/kernel": np.ones((2, 2), np.float32)}
    with pytest.raises(ValueError, match="not a T5 of t5x: it lacks encoder/relpos_bias"):
        convert.load_t5x(_legacy(tmp_path / "c", arrays))
    with pytest.raises(ValueError, match="Expected size to be one of .*flan_t5_xxl.*got 'huge'"):
        convert.load_t5x(tmp_path / "c", "huge")
    folder = _legacy(tmp_path / "d", _unscanned(tiny.params()))
    with pytest.raises(ValueError, match=r"query/kernel: expected shape \(64, 64\), got \(8, 8\)"):
        convert.load_t5x(folder, "t5_1_1_tiny")


def test_the_published_sizes_have_the_names_that_t5x_gives_them():
    """558 arrays of Flan-T5 XXL, 11,135,332,352 parameters: counted from t5x's own network."""
    from specialize_jax.convert import t5x

    sources = t5x._sources(t5.SIZES["flan_t5_xxl"], {})
    names = [name for source in sources.values() for name in source.names]
    sizes = [np.prod(source.shape) * len(source.names) for source in sources.values()]
    assert len(names) == len(set(names)) == 558
    assert sum(map(int, sizes)) == 11_135_332_352
    assert sources["encoder/relpos_bias/rel_embedding"].shape == (64, 32)
    assert "decoder/logits_dense/kernel" in names
