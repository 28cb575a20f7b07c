"""`specialize-jax import` and `export` of what others wrote, and of what others read."""

import json

import pyarrow.parquet as pq
import pytest

from specialize_jax.data import corpus, sources
from specialize_jax.schemas import folders, records
from tests.apps.line import run
from tests.fixtures import world

# By index: what is said, and the verdict.
WRITTEN = ["right", "right", "wrong", "no gold", "right", "right", "right", "right"]


def line(index, verdict):
    question, chain, answer = world.problem(index)
    said = chain if verdict != "wrong" else f"{chain}1"
    gold = None if verdict == "no gold" else answer
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
    return {"messages": chat, "gold": gold}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.jsonl"
    lines = [line(index, verdict) for index, verdict in enumerate(WRITTEN)]
    # The last question's right chain has a wrong one beside it.
    lines.append(line(7, "wrong"))
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


def bring(file, out, *more):
    chains = ("--source=chains", f"--file={file}", "--form=messages", "--field=gold=gold")
    return run("import", *chains, f"--out={out}", *more)


def rows_of(folder):
    info = folders.read_info(folder, records.NAME)
    parts = folders.read_parts(folder, info, records.ARROW_SCHEMA)
    return info, [row for _, table in parts for row in table.to_pylist()]


def test_right_chains_are_kept_wrong_ones_beside_them_and_all_is_counted(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert bring(file, out, "--keep_wrong", "--teacher=Ann") == 0
    said = capsys.readouterr().out
    assert "chains: 7 records" in said and "2 wrong_answer" in said
    assert "text alone, for match_sample" in said and "1 without a gold answer" in said
    info, rows = rows_of(out / "chains")
    assert (info["teacher"]["name"], info["k"], info["unjudged"]) == ("Ann", 0, 1)
    assert [row["is_correct"] for row in rows] == [True, True, None, True, True, True, True]
    _, wrong = rows_of(out / "chains" / "wrong")
    assert [row["example_id"] for row in wrong] == ["own/2", "own/7"]
    assert run("verify", out / "chains") == run("verify", out / "chains" / "wrong") == 0
    assert bring(file, tmp_path / "any", "--any_answer") == 0
    assert len(rows_of(tmp_path / "any" / "chains")[1]) == len(WRITTEN) + 1


def test_text_alone_is_aligned_and_has_an_answer_only_target_where_it_has_an_answer(file, tmp_path):
    # From here on it is as the worked solutions of test_line.py.
    assert bring(file, tmp_path / "out") == 0
    aligned = tmp_path / "aligned"
    tokenizer = f"--student_tokenizer={world.TOKENIZER}"
    chains = f"--records={tmp_path / 'out' / 'chains'}"
    assert run("align", chains, tokenizer, "--processes=1", f"--out={aligned}") == 0
    info = json.loads((aligned / "alignment_info.json").read_text())
    assert info["coverage"] == 0 and set(info["reasons"]) == {"no_logprobs"}

    def read():
        return corpus.read_corpus((str(aligned),), 0, None)

    everything = sources.AlignedSource(read).select("train")
    assert [row["gold_answer"] is None for row in everything].count(True) == 1
    # "The answer is" and no answer would be learned otherwise.
    answered = sources.AlignedSource(read, first_sample_only=True).select("train")
    assert [row["example_id"] for row in everything if row["gold_answer"]] == [
        row["example_id"] for row in answered
    ]


def test_the_same_command_again_does_nothing_and_another_is_refused(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert bring(file, out) == 0
    assert bring(file, out) == 0
    assert "chains: already in" in capsys.readouterr().out
    assert bring(file, out, "--min_chars=3") == 1
    assert "imported with other settings (filter: " in capsys.readouterr().err
    file.write_text(file.read_text() + "\n")
    assert bring(file, out) == 1
    assert "imported with other settings (file_sha256: " in capsys.readouterr().err


def test_bad_lines_are_listed_if_wished(file, tmp_path, capsys):
    file.write_text(file.read_text() + '{"messages": []}\nnonsense\n')
    assert bring(file, tmp_path / "out") == 1
    assert "own.jsonl:10: expected a string 'messages', got []" in capsys.readouterr().err
    assert bring(file, tmp_path / "out", "--on_error=skip", "--keep_wrong") == 0
    said = capsys.readouterr().out
    assert "2 bad_line" in said and "left out, the first of 2: " in said
    info, _ = rows_of(tmp_path / "out" / "chains")
    assert [text.split(": ")[0].rsplit(":")[-1] for text in info["skipped"]] == ["10", "11"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source=chains"], "--source chains: expected --file FILE"),
        (["--source=codex_text_log"], "codex_text_log: no such file was published: expected --f"),
        (
            ["--source=chains", "--file=gone.jsonl", "--form=gsm8k"],
            "expected the file 'gone.jsonl'",
        ),
        (["--source=gsm8k", "--source=chains", "--file=x"], "--file: goes with one --source, got"),
        (["--source=gsm8k", "--file=x", "--form=gsm8k"], "--form: only --source chains takes"),
        (["--source=gsm8k", "--on_error=pass"], "--on_error: expected one of fail, skip"),
        (["--source=chains", "--file=x.jsonl"], "name a --form (completion, prompt_completion"),
        (["--source=chains", "--file=x.jsonl", "--field=a=b"], "expected ROLE=NAME with a role of"),
        (["--source=cot_text_gsm8k_gpt4", "--file=x"], "--file: this source is 'teacher_cot_text/"),
    ],
)
def test_flags_that_say_too_little_or_too_much(arguments, message, tmp_path, capsys):
    assert run("import", *arguments, f"--data_dir={tmp_path}", f"--out={tmp_path / 'out'}") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_questions_of_their_own_file(tmp_path, capsys):
    chains, questions = tmp_path / "said.jsonl", tmp_path / "asked.jsonl"
    chains.write_text('{"of": 1, "said": ["So 2", "So 3"]}\n')
    questions.write_text('{"id": 1, "question": "1+1?", "answer": "2"}\n')
    own = ("--source=chains", f"--file={chains}", f"--questions={questions}", "--field=id=of")
    assert run("import", *own, "--field=chain=said", f"--out={tmp_path}") == 0
    (row,) = rows_of(tmp_path / "chains")[1]
    assert (row["example_id"], row["completion"], row["gold_answer"]) == ("1", "So 2", "2")
    questions.write_text(questions.read_text() * 2)
    assert run("import", *own, "--field=chain=said", f"--out={tmp_path / 'b'}") == 1
    assert "the id '1' stands twice" in capsys.readouterr().err


def test_a_file_of_one_s_own_in_a_public_form_needs_no_data_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SPECIALIZE_JAX_DATA", raising=False)
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "1+1?", "answer": "So 2.\\n#### 2"}\n')
    assert run("import", "--source=gsm8k", f"--file={path}", f"--out={tmp_path}") == 0
    assert [row["example_id"] for row in rows_of(tmp_path / "gsm8k")[1]] == ["mine/0"]
    steps = [[[t, 0.9], [t, 0.9]] for t in (" step", "\n", "The answer is 2", "\n")]
    record = {"question_index": 3, "generation_index": 0, "question": "1+1?", "steps": steps}
    path.write_text(json.dumps(record | {"answer": "2"}) + "\n")
    assert run("import", "--source=codex_top5_steps", f"--file={path}", f"--out={tmp_path}") == 0
    _, (row,) = rows_of(tmp_path / "codex_top5_steps")
    assert row["gold_answer"] == "2" and records.has_logprobs(row)
    path.write_text(json.dumps(record) + "\n")
    out = tmp_path / "other"
    assert run("import", "--source=codex_top5_steps", f"--file={path}", f"--out={out}") == 1
    assert "expected a 'question_index' in [0, 0)" in capsys.readouterr().err


def exported(folder, tmp_path, *more, name="a.jsonl"):
    out = tmp_path / name
    assert run("export", folder, f"--out={out}", *more) == 0
    if name.endswith("parquet"):
        return pq.read_table(out).to_pylist()
    return [json.loads(text) for text in out.read_text().splitlines()]


def test_records_come_back_from_what_other_trainers_read(file, tmp_path, capsys):
    """Import, export, import again: the same questions and chains."""
    assert bring(file, tmp_path / "out", "--keep_wrong") == 0
    folder = tmp_path / "out" / "chains"
    told = {(row["question"], row["completion"]) for row in rows_of(folder)[1]}
    forms = [
        (["--to=trl"], "prompt_completion"),
        (["--to=trl", "--chat"], "prompt_completion"),
        (["--to=trl", "--form=messages"], "messages"),
        (["--to=axolotl", "--form=alpaca"], "instruction"),
    ]
    for number, (flags, form) in enumerate(forms):
        name = f"{number}.{'parquet' if number % 2 else 'jsonl'}"
        exported(folder, tmp_path, "--prompt=question", *flags, name=name)
        own = ("--source=chains", f"--file={tmp_path / name}", f"--form={form}")
        assert run("import", *own, f"--out={tmp_path / name}.d") == 0
        back = rows_of(tmp_path / f"{name}.d" / "chains")[1]
        assert {(row["question"], row["completion"]) for row in back} == told
    capsys.readouterr()
    (pair,) = exported(folder, tmp_path, "--to=trl", "--form=preference", name="pairs.jsonl")
    question, chain, _ = world.problem(7)
    assert pair == {
        "prompt": f"Q: {question}\nLet's think step by step",
        "chosen": f"\n{chain}",
        "rejected": f"\n{chain}1",
    }
    said = capsys.readouterr().out
    assert "without a partner: 5 right, 1 wrong chains; without a verdict: 1" in said
    again = exported(
        folder, tmp_path, "--to=trl", "--form=preference", f"--wrong={folder / 'wrong'}",
        name="pairs.parquet",
    )  # fmt: skip
    assert again == [pair]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to=trl", "--form=kd"], "'trl' has no text form 'kd'; choices: prompt_completion, mes"),
        (["--to=axolotl", "--form=alpaca", "--chat"], "no text form 'alpaca' with --chat; choices"),
        (["--to=trl", "--form=preference"], "expected questions with a right and a wrong chain"),
        (["--to=trl", "--wrong=x"], "--wrong: goes with --form preference only"),
        (["--to=trl", "--form=preference", "--wrong=gone"], "expected teacher_records with"),
        (["--to=axolotl"], "expected aligned_examples with 'alignment_info.json'"),
        (["--to=trl", "--bos_id=3"], "--bos_id: goes with --form kd only"),
    ],
)
def test_exports_that_cannot_be_leave_no_file(file, tmp_path, capsys, arguments, message):
    assert bring(file, tmp_path / "out") == 0
    out = tmp_path / "made" / "a.jsonl"
    assert run("export", tmp_path / "out" / "chains", f"--out={out}", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(out.parent.glob("*"))
