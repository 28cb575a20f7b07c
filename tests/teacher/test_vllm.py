"""`collect` from a real vLLM, which serves a GPT-2 with random weights (`make test-server`).

What it says of its tokens is compared with a pass of our own GPT-2 over the same weights.
"""

import json
import os
from typing import NamedTuple

import numpy as np
import pytest

from specialize_jax.schemas import folders, records
from tests.apps.line import run
from tests.fixtures import world
from tests.teacher import random_gpt2, vllm_server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        vllm_server.VARIABLE not in os.environ,
        reason=f"{vllm_server.VARIABLE} names no Python with vLLM; `make test-server` makes one",
    ),
]

K, SAMPLES, TEMPERATURE = 5, 24, 0.7
ASKED = {
    "q/0": "What is 1 + 1?",
    "q/1": "Was kostet ein Café in 日本?",
    "q/2": "How many are 12 and 34?",
}
PROMPT = "Question: {question}\nLet us think"
ANSWERS = [
    {"id": "q/0", "completion": "the answer is 12\nso é日本 it is."},
    {"id": "q/1", "completion": "é Café naïve 日本 the answer is 34."},
]
AS_IDS = json.dumps({"return_tokens_as_token_ids": True})
# Each: flags, and whether tokens are named by ids.
FORMS = {
    "completions": (("--api=completions",), False),
    "chat": (("--api=chat",), False),
    "completions by ids": (("--api=completions", f"--extra_body={AS_IDS}"), True),
    "chat by ids": (("--api=chat", f"--extra_body={AS_IDS}"), True),
    "chat with ids": (("--api=chat", '--extra_body={"return_token_ids": true}'), True),
}


class Served(NamedTuple):
    url: str
    teacher: random_gpt2.Teacher
    included: float  # temperature that the log-probabilities include
    has_ids: bool  # whether our loader knows the bytes of ids


# Before the temperature, which is how it starts; and after it, with a tokenizer of the other kind.
@pytest.fixture(scope="module", params=["byte_level", "byte_fallback"])
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    is_first = request.param == "byte_level"
    flags = () if is_first else ("--logprobs-mode=processed_logprobs",)
    teacher = random_gpt2.write(folder / "model", request.param)
    with vllm_server.serve(teacher.folder, folder / "log", *flags) as url:
        yield Served(url, teacher, 1.0 if is_first else TEMPERATURE, is_first)


def collect(served, folder, *flags, by_ids=False):
    """Collects into a folder; returns its info and rows."""
    lines = [json.dumps({"id": i, "question": q, "answer": "1"}) for i, q in ASKED.items()]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    (folder / "prompt.txt").write_text(PROMPT)
    if by_ids:
        flags = (*flags, f"--teacher_tokenizer={served.teacher.folder / 'tokenizer.json'}")
    server = (f"--base_url={served.url}", f"--model={vllm_server.MODEL}", f"--top_logprobs={K}")
    files = (f"--questions={folder / 'questions.jsonl'}", f"--prompt={folder / 'prompt.txt'}")
    assert run("collect", *server, *files, "--any_answer", *flags, "--out", folder / "out") == 0
    assert run("verify", folder / "out") == 0
    info = folders.read_info(folder / "out", records.NAME)
    parts = folders.read_parts(folder / "out", info, records.ARROW_SCHEMA)
    return info, [row for _, table in parts for row in table.to_pylist()]


def ids_of(teacher, tokens):
    """Returns the ids of tokens by their bytes; a character that was made of several has many."""
    last = {value: token for token, value in enumerate(teacher.values)}
    found = [
        [last[value]] if value in last else [last[bytes([b])] for b in value] for value in tokens
    ]
    return [token for ids in found for token in ids], [len(ids) for ids in found]


def said_by_itself(value):
    try:
        return bool(value.decode())
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("form", FORMS)
def test_samples(served, form, tmp_path):
    flags, by_ids = FORMS[form]
    if by_ids and not served.has_ids:
        pytest.skip("our loader knows the bytes of ids for tokenizers of GPT-2's kind alone")
    asked = (f"--samples={SAMPLES}", f"--temperature={TEMPERATURE}", "--max_tokens=40", "--stop=;")
    info, rows = collect(served, tmp_path, *flags, *asked, by_ids=by_ids)
    assert info["answers"] == {"wanted": 3 * SAMPLES, "there": 3 * SAMPLES}
    assert info["rows"] + sum(info["dropped"].values()) == 3 * SAMPLES and info["rows"] >= 10
    assert len({(row["example_id"], row["sample_id"]) for row in rows}) == len(rows)
    assert info["logprobs_temperature"] == served.included
    assert info["left_out"].get("no_tokens", 0) == 0 and info["k"] == K
    if form.endswith("by ids"):
        assert info["left_out"]["ambiguous"] == 0
    for row in rows:
        assert ";" not in row["completion"]
        check_row(served, row, form, by_ids=by_ids)
    student = ("--student_tokenizer", world.TOKENIZER)
    for mode in ("one_to_one", "marginal"):
        out = tmp_path / mode
        assert (
            run("align", "--records", tmp_path / "out", *student, "--mode", mode, "--out", out) == 0
        )
        assert run("verify", out) == 0


def check_row(served, row, form, *, by_ids):
    """Compares a row with a pass of our own."""
    is_chat, names_are_ids = "chat" in form, form.endswith("by ids")
    teacher, tokens = served.teacher, row["token_bytes"]
    ids, counts = (row["token_ids"], [1] * len(tokens)) if by_ids else ids_of(teacher, tokens)
    assert [teacher.values[token] for token in ids] == tokens or max(counts) > 1
    prompt = random_gpt2.CHAT.format(row["prompt"]) if is_chat else row["prompt"]
    before = teacher.tokenizer.encode(prompt, add_special_tokens=False).ids
    expected = teacher.logprobs(before, ids, served.included)
    assert b"".join(tokens) == row["completion"].encode()
    place = 0
    for step, count in enumerate(counts):
        own = sum(expected[place + i, ids[place + i]] for i in range(count))
        assert row["token_logprobs"][step] == pytest.approx(own, abs=2e-3)
        if count == 1:
            found = dict(zip(row["topk_bytes"][step], row["topk_logprobs"][step], strict=True))
            if found or names_are_ids or said_by_itself(tokens[step]):
                check_candidates(teacher, found, expected[place], is_chat, names_are_ids)
            if tokens[step] in found:
                assert found[tokens[step]] == row["token_logprobs"][step]
        place += count


def check_candidates(teacher, found, expected, is_chat, names_are_ids):
    """Checks that candidates are the most probable tokens, but for those without a name."""
    assert sum(map(np.exp, found.values())) <= 1 + 1e-5
    best = [int(token) for token in np.argsort(-expected)[:K]]
    named = [(teacher.values[token] or end_of(teacher), expected[token]) for token in best]
    if not names_are_ids:
        named = [(value, logprob) for value, logprob in named if said_by_itself(value)]
    # The least probable one may be the sampled token, of which it cannot be told.
    unsure = is_chat or len(named) < K
    assert len(named) - unsure <= len(found) <= len(named)
    for value, logprob in named[: len(found)]:
        assert found[value] == pytest.approx(logprob, abs=2e-3)


def end_of(teacher):
    return teacher.tokenizer.id_to_token(teacher.end).encode()


@pytest.mark.parametrize("by_ids", [False, True])
@pytest.mark.parametrize("how", ["prompt_logprobs", "echo"])
def test_answers_that_are_there(served, how, by_ids, tmp_path):
    if by_ids and not served.has_ids:
        pytest.skip("our loader knows the bytes of ids for tokenizers of GPT-2's kind alone")
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(answer) + "\n" for answer in ANSWERS))
    flags = [f"--score_existing={file}", f"--scored_by={how}"]
    if by_ids and how == "echo":
        flags.append(f"--extra_body={AS_IDS}")
    info, rows = collect(served, tmp_path, *flags, by_ids=by_ids)
    assert [row["completion"] for row in rows] == [answer["completion"] for answer in ANSWERS]
    assert info["left_out"].get("no_tokens", 0) == 0
    teacher = served.teacher
    for row in rows:
        prompt = teacher.tokenizer.encode(row["prompt"] + "\n").ids
        ids = teacher.tokenizer.encode(row["prompt"] + "\n" + row["completion"]).ids[len(prompt) :]
        expected = teacher.logprobs(prompt, ids, 1.0)[np.arange(len(ids)), ids]
        assert sum(row["token_logprobs"]) == pytest.approx(sum(expected), abs=1e-2)
        # By names, the tokens of a character are one.
        assert (len(row["token_bytes"]) == len(ids)) == by_ids
