import json
import pathlib

import pytest

from specialize_jax.evaluation import readers, splits
from tests.real_data import data_dir

SIZES = {
    "gsm8k": (500, 819),
    "multiarith": (200, 400),
    "asdiv": (500, 1805),
    "svamp": (500, 500),
}


@pytest.mark.parametrize("name", splits.NAMES)
def test_parts_are_disjoint_and_make_up_the_set(name):
    validation, test = splits.rows(name, "validation"), splits.rows(name, "test")
    assert (len(validation), len(test)) == SIZES[name]
    assert validation | test == frozenset(range(sum(SIZES[name])))


@pytest.mark.parametrize("name", splits.NAMES)
def test_files_hold_what_the_seed_gives(name, tmp_path):
    kept = pathlib.Path(splits.__file__).parent / "split_rows" / f"{name}.json"
    splits.write(tmp_path)
    assert kept.read_bytes() == (tmp_path / f"{name}.json").read_bytes()
    content = json.loads(kept.read_text())
    assert frozenset(content["validation"]) == splits.rows(name, "validation")
    assert "not those of a paper" in content["by"]
    assert splits.make(name, seed=1)["validation"] != content["validation"]


@pytest.mark.parametrize("name", splits.NAMES)
def test_rows_are_those_of_the_real_set(name):
    of_set = {question.row for question in readers.read(name, data_dir())}
    assert of_set == splits.rows(name, "validation") | splits.rows(name, "test")


def test_unknown_sets_and_parts_list_the_choices():
    with pytest.raises(ValueError, match=r"'aqua'; choices: gsm8k, multiarith, asdiv, svamp"):
        splits.rows("aqua", "test")
    with pytest.raises(ValueError, match=r"'dev' of a set; choices: validation, test"):
        splits.rows("gsm8k", "dev")
