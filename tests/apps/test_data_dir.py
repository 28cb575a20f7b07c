import argparse

import pytest

from specialize_jax.apps import data_dir
from specialize_jax.data import tfds_rows
from specialize_jax.evaluation import readers

SOLVED = {"question": "1 + 1?", "answer": "#### 2"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.delenv(readers.DATA_DIR_VARIABLE, raising=False)
    yield
    data_dir.use_tfds(None)


def parse(*flags):
    parser = argparse.ArgumentParser()
    data_dir.add_argument(parser)
    data_dir.add_tfds_argument(parser)
    return parser.parse_args(flags)


def test_gsm8k_comes_from_tfds_where_its_folder_is_named(monkeypatch):
    asked = []
    monkeypatch.setattr(
        tfds_rows, "gsm8k", lambda split, *, data_dir: asked.append((split, data_dir)) or [SOLVED]
    )
    data_dir.use_tfds(parse("--tfds_data_dir", "there").tfds_data_dir)
    assert [question.question for question in readers.read("gsm8k")] == ["1 + 1?"]
    assert asked == [("test", "there")]
    data_dir.use_tfds(parse().tfds_data_dir)
    with pytest.raises(FileNotFoundError, match="no data folder given.*--tfds_data_dir"):
        readers.read("gsm8k")
    monkeypatch.setenv("TFDS_DATA_DIR", "elsewhere")
    data_dir.use_tfds(parse().tfds_data_dir)
    readers.read("gsm8k", split="train")
    assert asked[1:] == [("train", "elsewhere")]
