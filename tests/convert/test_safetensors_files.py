"""Our reader and writer of safetensors against the library's, and damaged files."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from specialize_jax.convert.safetensors_files import Reader, Spec, write_shards

RNG = np.random.default_rng(0)
TENSORS = {
    "odd": RNG.standard_normal((3, 5)).astype(np.float32),
    "half": RNG.standard_normal((7,)).astype(ml_dtypes.bfloat16),
    "cube": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "mask": np.tri(4, dtype=bool)[None],
    "scalar": np.float32(-1e4),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def folder(tmp_path):
    save_file({k: np.asarray(v) for k, v in TENSORS.items()}, tmp_path / "model.safetensors")
    return tmp_path


def test_reads_what_the_library_wrote(folder):
    with Reader(folder) as reader:
        assert sorted(reader.names()) == sorted(TENSORS)
        for name, tensor in TENSORS.items():
            assert reader.spec(name) == Spec(tensor.shape, tensor.dtype)
            np.testing.assert_array_equal(reader.read(name), tensor)


@pytest.mark.parametrize(
    "index",
    [
        (slice(0, 1),),
        (slice(1, 2), slice(1, 3), slice(0, 4)),
        (slice(0, 2), slice(0, 3), slice(3, 4)),
        (slice(None), slice(None, 2)),
        (slice(2, 2),),
    ],
)
def test_reads_parts(folder, index):
    with Reader(folder) as reader:
        np.testing.assert_array_equal(reader.read("cube", index), TENSORS["cube"][index])


def test_the_library_reads_what_was_written(tmp_path):
    kept = {name: TENSORS[name] for name in ("half", "odd", "cube", "mask")}
    specs = {name: Spec(tensor.shape, tensor.dtype) for name, tensor in kept.items()}
    write_shards(tmp_path, specs, kept.__getitem__, max_shard_bytes=10**6)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == kept.keys()
    for name, tensor in kept.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    # Tensors that are mapped into memory have to start at multiples of their item's size.
    raw = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    header.pop("__metadata__")
    for name, entry in header.items():
        assert entry["data_offsets"][0] % kept[name].dtype.itemsize == 0


def test_one_tensor_is_asked_for_at_a_time_and_once(tmp_path):
    asked = []

    def tensor(name):
        asked.append(name)
        return np.full((10,), len(asked), np.float32)

    specs = {f"t{number}": Spec((10,), np.dtype(np.float32)) for number in range(5)}
    write_shards(tmp_path, specs, tensor, max_shard_bytes=80)
    assert asked == list(specs)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3
    with Reader(tmp_path) as reader:
        assert [reader.read(name)[0] for name in specs] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_a_cut_file_is_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut short"), Reader(folder):
        pass


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
        b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    ],
)
def test_a_damaged_header_is_named(tmp_path, header):
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    (tmp_path / "model.safetensors").write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"model\.safetensors: .*header is damaged"),
        Reader(tmp_path),
    ):
        pass


def test_missing_shards_are_named_at_once(tmp_path):
    specs = {f"t{number}": Spec((10,), np.dtype(np.float32)) for number in range(4)}
    write_shards(tmp_path, specs, lambda name: np.zeros(10, np.float32), max_shard_bytes=40)
    for number in (1, 3):
        (tmp_path / f"model-0000{number}-of-00004.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        Reader(tmp_path)
    assert "model-00001-of-00004.safetensors, model-00003-of-00004" in str(caught.value)


@pytest.mark.parametrize("index", ["{", "[]", '{"metadata": {}}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_named(folder, index):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match="index.json: expected JSON with a weight_map"):
        Reader(folder)


def test_a_dtype_that_numpy_lacks_is_named_when_it_is_asked_for(tmp_path):
    header = b'{"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}'
    content = struct.pack("<Q", len(header)) + header + bytes(1)
    (tmp_path / "model.safetensors").write_bytes(content)
    with (
        Reader(tmp_path) as reader,
        pytest.raises(ValueError, match="a: expected a dtype .* got F4"),
    ):
        reader.spec("a")


def test_torch_s_own_files_are_not_taken_for_tensors(tmp_path):
    with pytest.raises(FileNotFoundError, match="found neither.$"):
        Reader(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="neither. pytorch_model.bin is torch's own form"):
        Reader(tmp_path)
