"""t5x checkpoints, in both layouts and both forms of the tree."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from specialize_jax import convert
from specialize_jax.models import t5
from tests.convert import t5x_folders, tiny

CONFIG = tiny.CONFIG
TIED = dataclasses.replace(CONFIG, activation="relu", tied_embeddings=True, rescale_output=True)


LAYOUTS = {"legacy": t5x_folders.legacy, "orbax": t5x_folders.orbax}
FORMS = {"unscanned": t5x_folders.unscanned, "scanned": t5x_folders.scanned}


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
    config, found = convert.load_t5x(
        write(tmp_path / "checkpoint_1", t5x_folders.unscanned(params))
    )
    assert config == TIED
    tiny.assert_same(found, params)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_shardings_and_dtype(form, tmp_path):
    params = tiny.params()
    folder = t5x_folders.legacy(tmp_path / "c", form(params))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shardings = jax.tree.map(lambda _: sharding, params)
    _, found = convert.load_t5x(folder, dtype="bfloat16", shardings=shardings)
    tiny.assert_same(found, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params))
    assert {leaf.sharding for leaf in jax.tree.leaves(found)} == {sharding}
    with pytest.raises(ValueError, match="got float16"):
        convert.load_t5x(folder, dtype="float16")


def test_every_part_equals_that_of_the_whole(tmp_path):
    folder = t5x_folders.orbax(tmp_path / "c", t5x_folders.scanned(tiny.params()))
    _, params, _ = convert.open_t5x(folder)
    for path, leaf in params.shapes.items():
        whole = params.read(path, ())
        index = tuple(slice(size // 3, size - size // 4) for size in leaf.shape)
        np.testing.assert_array_equal(params.read(path, index), whole[index])


def test_the_last_checkpoint_of_a_folder_is_meant_and_its_step_is_told(tmp_path):
    for step in (9, 10):
        t5x_folders.legacy(
            tmp_path / f"checkpoint_{step}", t5x_folders.unscanned(tiny.params(seed=step))
        )
    (tmp_path / "checkpoint_11").mkdir()  # unfinished
    config, params, step = convert.open_t5x(tmp_path)
    assert step == 10
    tiny.assert_same(params.load(), tiny.params(seed=10))


def test_a_vocabulary_padded_otherwise_is_said(tmp_path):
    params = tiny.params(dataclasses.replace(CONFIG, vocab_size=100))
    folder = t5x_folders.legacy(tmp_path / "c", t5x_folders.unscanned(params))
    with pytest.warns(UserWarning, match="of 100 rows is padded"):
        config, found = convert.load_t5x(folder, CONFIG)
    assert config == CONFIG
    assert found["token_embedder"]["embedding"].shape == (128, 8)
    assert found["logits_dense"]["kernel"].shape == (8, 128)


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS)
def test_all_misfits_are_named_at_once(write, tmp_path):
    arrays = t5x_folders.unscanned(tiny.params())
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

    arrays = {older(path): array for path, array in t5x_folders.scanned(tiny.params()).items()}
    config, found = convert.load_t5x(t5x_folders.legacy(tmp_path / "c", arrays))
    assert config == CONFIG
    tiny.assert_same(found, tiny.params())


def test_relative_biases_that_differ_between_layers_are_refused(tmp_path):
    arrays = t5x_folders.scanned(tiny.params())
    arrays["decoder/decoder/relpos_bias/rel_embedding"][0, 2, 5] += 1
    with pytest.raises(ValueError, match="layers of the decoder have relative biases of their own"):
        convert.load_t5x(t5x_folders.orbax(tmp_path / "c", arrays))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a t5x checkpoint.* found none at"):
        convert.load_t5x(tmp_path)
    folder = t5x_folders.legacy(tmp_path / "legacy", t5x_folders.unscanned(tiny.params()))
    name = "encoder.layers_0.mlp.wo.kernel"
    (folder / f"target.{name}" / ".zarray").unlink()
    with pytest.raises(ValueError, match="cannot be read: encoder/layers_0/mlp/wo/kernel"):
        convert.load_t5x(folder)
    (folder / "checkpoint").write_bytes((folder / "checkpoint").read_bytes()[:100])
    with pytest.raises(ValueError, match="legacy: the tree of parameters cannot be read"):
        convert.load_t5x(folder)
    folder = t5x_folders.orbax(tmp_path / "orbax", t5x_folders.unscanned(tiny.params()))
    (folder / "state" / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match="orbax: the tree of parameters cannot be read"):
        convert.load_t5x(folder)


def test_another_network_and_another_size_are_refused(tmp_path):
    arrays = {"encoder/blocks/kernel": np.ones((2, 2), np.float32)}
    with pytest.raises(ValueError, match="not a T5 of t5x: it lacks encoder/relpos_bias"):
        convert.load_t5x(t5x_folders.legacy(tmp_path / "c", arrays))
    with pytest.raises(ValueError, match="Expected size to be one of .*flan_t5_xxl.*got 'huge'"):
        convert.load_t5x(tmp_path / "c", "huge")
    folder = t5x_folders.legacy(tmp_path / "d", t5x_folders.unscanned(tiny.params()))
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
