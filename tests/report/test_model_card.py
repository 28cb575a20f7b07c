"""The model card says what the files of a run say, and that the rest is unknown."""

import json

import pytest
import yaml

from specialize_jax.report import model_card
from specialize_jax.schemas import results

GIN = """\
from specialize_jax.apps import train

BATCH_SIZE = 16
CLIP = None
INITIAL_CHECKPOINT_PATH = 'flan-t5-small'
OBJECTIVE = 'match_distribution'
PACKED_DIR = 'packed'
MODEL = @models.build()
train.run.batch_size = %BATCH_SIZE
"""


@pytest.fixture
def model_dir(tmp_path):
    """A run whose folders lie beside each other, named from the folder that holds them."""
    folder = tmp_path / "model"
    files = {
        "model/checkpoints/config.json": {"name": "flan_t5_small", "model": {"d_model": 8}},
        "model/train_provenance.json": {"git_commit": "abc123", "date": "2026-11-20"},
        "packed/packed_info.json": {
            "mixture": "four | formats",
            "validation_ids": ["gsm8k/train/3", "gsm8k/train/9", "my_own/5"],
        },
        "aligned/alignment_info.json": {
            "mode": "marginal",
            "rows": 12,
            "coverage": 0.875,
            "teachers": [
                {
                    "teacher": {"name": "code-davinci-002", "revision": None},
                    "tokenizer": {"name": "p50k_base"},
                    "sampling": {"temperature": 0.7},
                    "k": 5,
                    "source": "specialize-jax import",
                }
            ],
        },
    }
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))
    (folder / "train.gin").write_text(GIN)
    (tmp_path / "packed" / "pack.gin").write_text("ALIGNED_DIRS = ('aligned',)\nBATCH_SIZE = 1\n")
    _score(folder / "eval" / "200", 0.25)
    _score(folder / "eval" / "100", 0.125)
    return folder


def _score(folder, accuracy):
    folder.mkdir(parents=True)
    value = {
        "results": {
            "gsm8k_zero_shot": {
                "alias": "gsm8k",
                "exact_match,corrected": accuracy,
                "exact_match_stderr,corrected": 0.01,
            }
        },
        "configs": {"gsm8k_zero_shot": {"dataset": "asdiv"}},
        "n-samples": {"gsm8k_zero_shot": {"original": 1319, "effective": 500}},
    }
    (folder / f"results_{results.timestamp(0)}.json").write_text(json.dumps(value))


def _parts(card):
    _, front, body = card.split("---\n", 2)
    sections = {part.split("\n")[0]: part for part in body.split("\n## ")[1:]}
    return yaml.safe_load(front), sections


def test_everything_that_the_files_say(model_dir):
    front, sections = _parts(model_card(model_dir, 200, base_model="google/flan-t5-small"))
    assert front == {
        "license": "unknown",
        "library_name": "transformers",
        "base_model": "google/flan-t5-small",
        "datasets": ["openai/gsm8k"],
        "metrics": ["exact_match"],
        "tags": ["specialize_jax"],
    }
    assert "google/flan-t5-small" in sections["Base model"]
    teacher = sections["Teacher"]
    assert "code-davinci-002, revision unknown; tokenizer p50k_base; 5 candidates" in teacher
    data = sections["Data sets"]
    assert "| gsm8k | training | MIT |" in data
    assert "| my_own | training | unknown |" in data
    assert "| asdiv | evaluation | CC BY-NC 4.0" in data
    assert "four \\| formats" in data
    assert "`marginal`: 12 answers; 87.50%" in data
    settings = sections["Settings"]
    assert "| BATCH_SIZE | 16 |" in settings
    assert "| CLIP | none |" in settings
    assert "| OPTIMIZER | unknown |" in settings
    assert "| git commit | abc123 |" in settings
    row = "| gsm8k_zero_shot | exact_match,corrected | 0.2500 | 0.0100 | 500 |"
    assert row in sections["Scores"]
    assert "0.1250" not in sections["Scores"]


def test_what_is_not_there_is_unknown(tmp_path):
    (tmp_path / "train.gin").write_text("INITIAL_CHECKPOINT_PATH = None\n")
    (tmp_path / "train_provenance.json").write_text("damaged {")
    front, sections = _parts(model_card(tmp_path, 5))
    assert "base_model" not in front
    assert "datasets" not in front
    assert "metrics" not in front
    assert sections["Base model"].split() == ["Base", "model", "none"]
    assert sections["Teacher"].split() == ["Teacher", "unknown"]
    assert "| unknown | training | unknown |" in sections["Data sets"]
    assert "| git commit | unknown |" in sections["Settings"]
    assert "no results for step 5" in sections["Scores"]


def test_names_cannot_break_the_front_matter(tmp_path):
    front, _ = _parts(model_card(tmp_path, 0, base_model='a: "b"\n- c'))
    assert front["base_model"] == 'a: "b"\n- c'


def test_what_was_only_converted_is_not_called_specialised(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    config = {"name": "flan", "converted_from": {"form": "hf", "path": "home/flan"}}
    (tmp_path / "checkpoints" / "config.json").write_text(json.dumps(config))
    card = model_card(tmp_path, 0)
    assert "# flan, converted\n" in card
    assert "specialised" not in card
    assert "converted weights, of the form hf before, and not the run that trained them" in card
