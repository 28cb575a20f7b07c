"""Checkpoints of t5x, laid out as t5x lays them out, with tensorstore and msgpack alone."""

import json
import pathlib

import numpy as np
import tensorstore as ts
from flax import serialization, traverse_util

from tests.convert import tiny


def unscanned(params):
    """Names and shapes of `examples/t5`."""
    theirs = {}
    for path, array in traverse_util.flatten_dict(params, sep="/").items():
        if "/layers/" in path:
            for number, layer in enumerate(array):
                theirs[path.replace("/layers/", f"/layers_{number}/")] = layer
        else:
            theirs[path.replace("logits_dense", "decoder/logits_dense")] = array
    return theirs


def scanned(params, config=tiny.CONFIG):
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


def legacy(folder: pathlib.Path, arrays) -> pathlib.Path:
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


def orbax(folder: pathlib.Path, arrays) -> pathlib.Path:
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
