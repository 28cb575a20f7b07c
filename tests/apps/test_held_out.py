"""Held-out accuracy inside training: the right number, few compilations, nothing else changed."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from specialize_jax import answers, decoding, models, tokenizers
from specialize_jax.apps import held_out, questions
from specialize_jax.data import formats
from specialize_jax.schemas import Format, SchemaError
from specialize_jax.training import checkpoints, metrics, partitioning
from tests import simulated_devices
from tests.apps.line import FIXTURES, gin, run
from tests.fixtures import world

PACKED = FIXTURES / "packed_rows"
INFO = json.loads((PACKED / "packed_info.json").read_text())
CHAINS = [Format.ZERO_SHOT_CHAIN_OF_THOUGHT, Format.IN_CONTEXT_CHAIN_OF_THOUGHT]
LAYERS = [f"--gin.models.build.num_{part}coder_layers=1" for part in ("en", "de")]
LENGTHS = {"input_length": 512, "max_decode_length": 4}


@pytest.fixture(scope="module")
def student():
    """A student with random weights, and its tokenizer."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "vocab_size": 128}
    sizes |= {"num_encoder_layers": 1, "num_decoder_layers": 1}
    return models.build("t5_1_1_tiny", **sizes), tokenizers.load(world.TOKENIZER)


def accuracy_of(student, asked, **lengths):
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    return held_out.make_accuracy(*student, asked, CHAINS, mesh=mesh, **(LENGTHS | lengths))


def plain_answer(student, params, prompt):
    """One prompt alone, without padding or batch."""
    model, tokenizer = student
    ids = np.array([[*tokenizer.encode(prompt), tokenizer.eos_id]], np.int32)
    tokens, _ = decoding.greedy(
        jax.jit(lambda cache, last: model.decode_step(params, cache, last)),
        model.init_cache(params, ids, LENGTHS["max_decode_length"]),
        batch_size=1,
        max_length=LENGTHS["max_decode_length"],
        eos_id=tokenizer.eos_id,
    )
    return tokenizer.decode(np.asarray(tokens)[0].tolist())


def test_accuracy_is_that_of_one_question_after_the_other_and_compiles_once(student):
    """The gold answer of one question is what the student says, that of the other is not."""
    params = student[0].init(jax.random.key(3))
    asked = questions.read_validation(PACKED, INFO)
    said = [
        plain_answer(student, params, formats.render_inputs(CHAINS[0], one.question.question))
        for one in asked
    ]
    asked = [
        one._replace(question=dataclasses.replace(one.question, answer=gold, kind="text"))
        for one, gold in zip(asked, (said[0], "none"), strict=True)
    ]
    expected = np.mean(
        [
            answers.equal(answers.extract(text, kind="text"), one.question.answer, kind="text")
            for text, one in zip(said, asked, strict=True)
        ]
    )
    traced = []

    def init_cache(params, tokens, length):
        traced.append(tokens.shape)
        return student[0].init_cache(params, tokens, length)

    counted = dataclasses.replace(student[0], init_cache=init_cache), student[1]
    accuracy = accuracy_of(counted, asked)
    found = accuracy(params)
    assert found["accuracy/zero_shot_chain_of_thought"] == expected == 0.5
    assert set(found) == {"accuracy", *(f"accuracy/{fmt.label}" for fmt in CHAINS)}
    assert found["accuracy"] == (expected + found[f"accuracy/{CHAINS[1].label}"]) / 2
    # Nothing is compiled again.
    assert accuracy(params) == found
    accuracy(student[0].init(jax.random.key(4)))
    assert len(traced) == len(set(traced)) == len(CHAINS)


def test_prompts_that_are_too_long_are_named_and_not_asked(student, capsys, monkeypatch):
    monkeypatch.setattr(
        held_out.answering, "greedy_decoder", lambda *args, **more: lambda params, tokens: tokens
    )
    asked = questions.read_validation(PACKED, INFO)
    accuracy = accuracy_of(student, asked, input_length=64)
    line = capsys.readouterr().out
    assert "accuracy/in_context_chain_of_thought: 2 of 2 held-out prompts are not asked" in line
    assert "more than 64 tokens (up to " in line and asked[0].question.id in line
    assert set(accuracy({})) == {"accuracy", "accuracy/zero_shot_chain_of_thought"}
    assert not capsys.readouterr().out


def test_the_formats_asked_are_chains_where_any_is_trained():
    labels = [fmt.label for fmt in Format]
    assert held_out.asked_formats(labels) == CHAINS
    assert held_out.asked_formats([labels[0], labels[2]]) == [Format(0), Format(2)]


def train(model_dir, packed, *more):
    arguments = [gin("MODEL_DIR", str(model_dir)), gin("PACKED_DIR", str(packed)), *more]
    arguments += [gin("TRAIN_STEPS_RELATIVE", 2), *LAYERS]
    return run("train", "--gin_file=testing/tiny.gin", *arguments)


def test_training_is_the_same_with_and_without(tmp_path, capsys):
    for name, count in (("with", 2), ("without", 0)):
        assert train(tmp_path / name, PACKED, gin("EVAL_ACCURACY_QUESTIONS", count)) == 0
    with_, without = (
        checkpoints.restore_params(tmp_path / name / "checkpoints", 2, like(tmp_path / name))
        for name in ("with", "without")
    )
    jax.tree.map(np.testing.assert_array_equal, with_, without)
    lines, others = (
        [
            {k: v for k, v in line.items() if k not in metrics.TIMED}
            for line in metrics.read(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("with", "without")
    )
    held_out_lines = [line for line in lines if line["split"] == "validation"]
    found = [line.pop(f"accuracy/{fmt.label}") for line in held_out_lines for fmt in CHAINS]
    assert [line.pop("accuracy") for line in held_out_lines] == [0]
    assert found == [0, 0] and lines == others
    shown = [line for line in capsys.readouterr().err.splitlines() if "  held-out  loss" in line]
    assert len(shown) == 2 and "accuracy zscot 0.0%" in shown[0]


def like(model_dir):
    config = checkpoints.read_config(model_dir / "checkpoints")
    model = models.rebuild(config["family"], config["name"], config["model"])
    return jax.eval_shape(model.init, jax.random.key(0))


def test_packed_rows_of_an_earlier_version_go_without(student, capsys):
    info = {key: value for key, value in INFO.items() if key not in questions.FILES}
    kept = questions.read_validation(PACKED, info)
    assert kept is None and questions.read_training(PACKED, info) is None
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    accuracy = held_out.from_settings(student[0], world.TOKENIZER, kept, info, count=2, mesh=mesh)
    assert accuracy({}) == {}
    assert "no held-out accuracy: the packed rows are of an earlier" in capsys.readouterr().out


@pytest.mark.parametrize("key", list(questions.FILES))
def test_a_damaged_file_of_questions_is_an_error(tmp_path, key, capsys):
    packed = tmp_path / "packed"
    shutil.copytree(PACKED, packed)
    with (packed / questions.FILES[key]).open("a") as file:
        file.write("\n")
    with pytest.raises(SchemaError, match="SHA-256 mismatch"):
        questions.check_folder(packed, INFO)
    assert train(tmp_path / "model", packed) == 1 and run("verify", packed) == 1
    assert capsys.readouterr().err.count("SHA-256 mismatch") == 2


def test_students_answer_on_every_mesh_as_on_one_device():
    assert simulated_devices.run("tests.apps.mesh_answers", "-W", "error") == ["equal"]
