"""`collect` from a student of ours: interrupted or whole, few or many at a time, the same bytes."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from specialize_jax import models
from specialize_jax.apps import local_teacher, main, serving, student
from specialize_jax.schemas import folders, records
from tests.apps import students
from tests.fixtures import world

GPT2 = {"d_model": 32, "d_ff": 32, "vocab_size": 128, "pad_id": 0, "num_positions": 128}
STOPS = ["n", "w", "b", "7"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return students.write(tmp_path_factory.mktemp("t5"), (1, 2))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    model = models.build("gpt2_tiny", **GPT2)
    return students.write(tmp_path_factory.mktemp("gpt2"), (2,), model)


@pytest.fixture(params=["t5", "gpt2"])
def checkpoint(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Runs of a checkpoint share their decoder, which keeps nothing but programs."""
    made, decoder = {}, serving.Decoder

    def get(asked, params, **limits):
        key = str(asked.folder), float(jax.tree.leaves(params)[0].sum()), *limits.values()
        if key not in made:
            made[key] = decoder(asked, params, **limits)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "Decoder", get)
        yield


@pytest.fixture
def flags(tmp_path):
    """Returns a function that gives the flags of a run."""
    problems = [world.problem(index) for index in range(7)]
    lines = [
        json.dumps({"id": f"q/{i}", "question": question, "answer": answer})
        for i, (question, _, answer) in enumerate(problems)
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    (tmp_path / "prompt.txt").write_text("Q: {question}\nA:")

    def make(checkpoint, out="out", **changes):
        settings = {
            **{"checkpoint": checkpoint, "questions": tmp_path / "questions.jsonl"},
            **{"prompt": tmp_path / "prompt.txt", "samples": 3, "top_logprobs": 4, "seed": 5},
            # Random students seldom end: a text ends before any of these.
            **{"max_tokens": 24, "stop": STOPS, "temperature": 3, "batch_size": 2},
            **{"input_length": 100, "any_answer": True, "out": tmp_path / out, **changes},
        }
        return ["collect"] + [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, values in settings.items()
            for value in (values if isinstance(values, list) else [values])
            if value is not None
        ]

    return make


def content(folder):
    """Every byte that a run must give again: the records, and what is said of them."""
    found = folders.read_info(folder, records.NAME)
    return found, [(folder / shard["file"]).read_bytes() for shard in found["shards"]]


def rows(folder):
    found = folders.read_info(folder, records.NAME)
    tables = folders.read_parts(folder, found, records.ARROW_SCHEMA)
    return [row for _, table in tables for row in table.to_pylist()]


def test_interrupted_or_one_at_a_time_it_gives_the_same_bytes(
    checkpoint, flags, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(local_teacher, "_ROUNDS", 2)  # several groups
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nobody.invalid/v1")  # of no matter
    assert main.main(flags(checkpoint)) == 0
    assert main.main(["verify", str(tmp_path / "out")]) == 0
    whole = content(tmp_path / "out")
    assert whole[0]["answers"] == {"wanted": 21, "there": 21} and whole[0]["rows"] > 8
    assert whole[0]["logprobs_temperature"] == 1.0 and whole[0]["k"] == 4
    assert len({row["completion"] for row in rows(tmp_path / "out")}) > 5
    # One that is stopped by a budget, and then within a group.
    common = {"out": "parts", "concurrency": 1}
    assert main.main(flags(checkpoint, max_tokens_total=220, **common)) == 0
    assert 0 < content(tmp_path / "parts")[0]["answers"]["there"] < 21
    ask, left = local_teacher.LocalClient.ask, [2]

    async def interrupted(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return await ask(self, *args)

    monkeypatch.setattr(local_teacher.LocalClient, "ask", interrupted)
    assert main.main(flags(checkpoint, **common)) == 130
    monkeypatch.setattr(local_teacher.LocalClient, "ask", ask)
    there = (tmp_path / "parts/requests/journal.jsonl").read_text().count('"question"')
    assert there < 7
    assert main.main(flags(checkpoint, **common)) == 0
    assert content(tmp_path / "parts") == whole
    capsys.readouterr()
    assert main.main(flags(checkpoint, **common)) == 0
    assert "already collected" in capsys.readouterr().out


def test_log_probabilities_are_the_students_own(checkpoint, flags, tmp_path):
    assert main.main(flags(checkpoint, keep_wrong=True)) == 0
    asked = student.read(checkpoint)
    params = asked.restore(2)
    seen = 0
    for row in rows(tmp_path / "out")[:6]:
        ids = row["token_ids"]
        own, best = _scores(asked, params, row["prompt"], ids)
        np.testing.assert_allclose(row["token_logprobs"], own, rtol=2e-3, atol=1e-4)
        steps = [*row["topk_logprobs"], row["terminal_logprobs"]]
        for step, listed in enumerate(steps[: len(best)]):
            if listed is not None and step < len(best):
                seen += len(listed)
                far = np.abs(np.subtract.outer(listed, best[step])).min(axis=1)
                np.testing.assert_array_less(far, 1e-3 - 2e-3 * np.array(listed))
    assert seen > 40


def _scores(asked, params, prompt, ids):
    """By one parallel pass: log-probabilities of tokens, and all of each step in falling order."""
    read = asked.tokenizer.encode(prompt)
    if asked.model.decoder_only:
        batch = {"decoder_input_tokens": np.array([[*read, *ids]], np.int32)}
        first = len(read) - 1
    else:
        inputs = np.array([[*read, asked.tokenizer.eos_id]], np.int32)
        batch = {
            "encoder_input_tokens": inputs,
            "decoder_input_tokens": np.array([[0, *ids]], np.int32),
        }
        first = 0
    logits = jax.jit(asked.model.logits)(params, batch)[0, first:]
    found = np.asarray(jax.nn.log_softmax(logits))
    return found[np.arange(len(ids)), ids], -np.sort(-found, axis=-1)


def test_answers_that_are_there_are_scored(checkpoint, flags, tmp_path):
    texts = [world.problem(i)[1].replace("\n", " ") for i in range(7)]
    texts[5] += "\n\u4e2d"  # no student's token: kept, without log-probabilities
    lines = [{"id": f"q/{i}", "completion": text} for i, text in enumerate(texts)]
    existing = tmp_path / "existing.jsonl"
    existing.write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = flags(checkpoint, score_existing=existing, max_tokens=64, any_answer=None, stop=None)
    assert main.main(argv) == 0
    found = rows(tmp_path / "out")
    assert [records.target_text(row).strip() for row in found] == texts
    assert [bool(row["token_bytes"]) for row in found] == [True] * 5 + [False, True]
    asked = student.read(checkpoint)
    for row in found[:2]:
        ids = [*row["token_ids"], asked.tokenizer.eos_id]
        own, _ = _scores(asked, asked.restore(2), row["prompt"], ids)
        np.testing.assert_allclose(row["token_logprobs"], own[:-1], rtol=2e-3, atol=1e-4)
        end = dict(zip(row["terminal_bytes"], row["terminal_logprobs"], strict=True))
        assert end[b"</s>"] == pytest.approx(own[-1], rel=2e-3, abs=1e-4)


def test_another_checkpoint_does_not_go_on_with_these_answers(t5, flags, tmp_path, capsys):
    assert main.main(flags(t5, step=1)) == 0
    assert main.main(flags(t5)) == 1
    said = capsys.readouterr().err
    assert "step: 1 there, 2 here" in said and "checkpoint: " in said
    # The same student in another place is the same.
    moved = shutil.copytree(t5, tmp_path / "moved")
    assert main.main(flags(moved, step=1)) == 0
    assert "already collected" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"base_url": "http://localhost:1/v1"},
            "--base_url or a student by --checkpoint, got both",
        ),
        ({"gin_file": "x.gin"}, "got both"),
        ({"teacher_tokenizer": "a.model"}, "a student of --checkpoint has its own"),
        ({"checkpoint": "absent"}, "absent/checkpoints/config.json"),
        ({"step": 7}, "no checkpoint in '.*checkpoints/7'"),
        ({"questions": None}, r"expected --questions \("),
        ({"input_length": 10}, "question 'q/0': a prompt of .* tokens, at most 10 can be read"),
        ({"mode": "fu"}, "--mode: unknown 'fu'; choices: corrected, fu2023.*gsm8k_cot"),
    ],
)
def test_bad_input_is_said(t5, flags, tmp_path, capsys, changes, expected):
    assert main.main(flags(**{"checkpoint": t5, **changes})) == 1
    assert re.search(expected, capsys.readouterr().err)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_help_names_families_of_modes_alone(capsys):
    with pytest.raises(SystemExit):
        main.main(["collect", "--help"])
    said = capsys.readouterr().out
    assert said.count("gsm8k_cot") == 1 and "--mode MODE" in said
