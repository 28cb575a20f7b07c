"""Vocabularies with and without padding."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from specialize_jax import convert
from specialize_jax.convert import lazy, vocabulary
from tests.convert import tiny


@pytest.mark.parametrize(
    ("size", "other", "expected"),
    [
        (32100, 32128, True),
        (50257, 50304, True),
        (32128, 32128, True),
        (32000, 32128, False),
        (128, 129, False),
        (32128, 32256, False),
    ],
)
def test_sizes_that_are_one_vocabulary(size, other, expected):
    assert vocabulary.same(size, other) == vocabulary.same(other, size) == expected


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [3, 5, 9])
def test_every_part_equals_that_of_the_whole(axis, size):
    array = np.random.default_rng(1).standard_normal((5, 5)).astype(np.float32)
    whole = np.moveaxis(array, axis, 0)
    rows = [whole[row] if row < 5 else whole.mean(0, dtype=np.float64) for row in range(size)]
    expected = np.moveaxis(np.stack(rows).astype(np.float32), 0, axis)
    source = lazy.Lazy(
        {"e": jax.ShapeDtypeStruct((5, 5), np.dtype("float32"))}, lambda path, at: array[at]
    )
    found = vocabulary.resized(source, {"e": axis}, size)
    assert found.shapes["e"].shape == expected.shape
    for start in range(size):
        for stop in range(start, size + 1):
            at = [slice(1, 4), slice(1, 4)]
            at[axis] = slice(start, stop)
            index = tuple(at)
            np.testing.assert_array_equal(found.read("e", index), expected[index])


def _cut_rows(folder, rows):
    """What tools that cut the padding off leave: fewer rows than config.json says."""
    for path in folder.glob("*.safetensors"):
        tensors = {
            name: tensor[:rows].copy() if name in ("shared.weight", "lm_head.weight") else tensor
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})


def test_rows_that_are_missing_are_padded_and_it_is_said(tmp_path):
    folder, params = tiny.folder(tmp_path)
    _cut_rows(folder, 100)
    with pytest.warns(UserWarning, match="vocabulary of 100 rows is padded .* to 128 rows"):
        config, found = convert.load_hf(folder)
    assert config == tiny.CONFIG
    embedding = found["token_embedder"]["embedding"]
    before = params["token_embedder"]["embedding"][:100]
    np.testing.assert_array_equal(embedding[:100], before)
    np.testing.assert_allclose(embedding[100:], np.tile(before.mean(0), (28, 1)), atol=1e-6)
    head = found["logits_dense"]["kernel"]
    np.testing.assert_array_equal(head[:, :100], params["logits_dense"]["kernel"][:, :100])
    # So no hidden state makes an unused id the most probable.
    hidden = np.random.default_rng(3).standard_normal((500, 8)).astype(np.float32)
    assert ((hidden @ head).argmax(-1) < 100).all()


def test_padding_and_cutting_gives_back_the_bytes(tmp_path):
    folder, params = tiny.folder(tmp_path / "a", dataclasses.replace(tiny.CONFIG, vocab_size=100))
    with pytest.warns(UserWarning, match="padded"):
        config, padded = convert.load_hf(folder, vocab_size=128)
    convert.save_hf(config, padded, tmp_path / "b")
    with pytest.warns(UserWarning, match="vocabulary of 128 rows is cut, to 100 rows"):
        config, again = convert.load_hf(tmp_path / "b", vocab_size=100)
    assert config.vocab_size == 100
    tiny.assert_same(again, params)


def test_another_vocabulary_is_an_error(tmp_path):
    folder, _ = tiny.folder(tmp_path)
    with pytest.raises(ValueError, match="vocabulary of 128 rows, 256 are wanted"):
        convert.load_hf(folder, vocab_size=256)
    with pytest.raises(ValueError, match="vocabulary of 128 rows, 0 are wanted"):
        convert.load_hf(folder, vocab_size=0)
    raw = json.loads((folder / "config.json").read_text()) | {"vocab_size": 129}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"shared.weight: expected shape \(129, 8\), got \(128, 8"):
        convert.load_hf(folder)


def test_a_tokenizer_with_more_ids_than_rows_are_stored_is_an_error(tmp_path):
    """The rows that padding adds are the mean of others: no token's."""
    folder, _ = tiny.folder(tmp_path)
    _cut_rows(folder, 100)
    for ids, fits in ((100, True), (101, False)):
        (folder / "vocab.json").write_text(json.dumps({"last": ids - 1}))
        outcome = (
            pytest.warns(UserWarning, match="padded")
            if fits
            else pytest.raises(ValueError, match="vocab.json has 101 ids, the embedding 100 rows")
        )
        with outcome:
            convert.load_hf(folder)
