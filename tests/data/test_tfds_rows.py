"""GSM8K from TensorFlow Datasets, by a stand-in for its builder: nothing is downloaded."""

import hashlib
import subprocess
import sys
import types

import pytest

from specialize_jax.data import tfds_rows

ROWS = [{"question": f"What is {i}?", "answer": f"{i}\n#### {i}"} for i in range(40)]
EXPECTED = {"test": tfds_rows.digest(row["question"] for row in ROWS)}


def as_tfds_keeps_them(split):
    """Rows in the order of TFDS's shuffler, as the bytes that it gives."""
    keyed = [
        (int(hashlib.md5(split.encode() + str(key).encode()).hexdigest(), 16), row)
        for key, row in enumerate(ROWS)
    ]
    order = [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
    assert order != ROWS
    return [{name: value.encode() for name, value in row.items()} | {"more": b""} for row in order]


def test_rows_come_back_in_the_order_of_the_file():
    asked = []

    def load(split, data_dir):
        asked.append((split, data_dir))
        return as_tfds_keeps_them(split)

    assert tfds_rows.gsm8k("test", data_dir="here", load=load, expected=EXPECTED) == ROWS
    assert asked == [("test", "here")]


@pytest.mark.parametrize("kept", [lambda rows: rows[::-1], lambda rows: rows[:-1], lambda rows: []])
def test_other_rows_or_another_order_are_refused(kept):
    def load(split, data_dir):
        return kept(as_tfds_keeps_them(split))

    with pytest.raises(ValueError, match="split 'test', from TensorFlow Datasets: .* use the file"):
        tfds_rows.gsm8k("test", load=load, expected=EXPECTED)


def fake_library(load):
    return types.SimpleNamespace(
        load=load, ReadConfig=lambda **settings: settings, as_numpy=lambda found: found
    )


def test_the_library_is_asked_without_shuffling(monkeypatch):
    def load(name, *, split, data_dir, shuffle_files, read_config):
        assert (name, data_dir, shuffle_files) == ("gsm8k", "here", False)
        return as_tfds_keeps_them(split)

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake_library(load))
    assert tfds_rows.gsm8k("test", data_dir="here", expected=EXPECTED) == ROWS


def test_what_is_missing_is_said_in_words(monkeypatch):
    def load(name, **settings):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake_library(load))
    with pytest.raises(FileNotFoundError, match=r"--data_dir.*\(folder: x\): ConnectionError: no"):
        tfds_rows.gsm8k("test", data_dir="x")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(FileNotFoundError, match=r"neither in the data folder.*pip install"):
        tfds_rows.gsm8k("test")


def test_importing_it_loads_no_tensorflow():
    code = (
        "import sys; import specialize_jax.apps.data_dir\n"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'jax') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
