"""Runs subcommands on the fixtures, and makes a little data folder in the public form."""

import json
import pathlib

from specialize_jax.apps import main
from tests.fixtures import world

FIXTURES = world.HERE


def run(*argv: object) -> int:
    """Runs a subcommand in this process; returns its exit status."""
    return main.main([str(arg) for arg in argv])


def gin(name: str, value: object) -> str:
    """Returns the flag that binds a macro to a Python value."""
    return f"--gin.{name}={value!r}"


def write_data(folder: pathlib.Path) -> pathlib.Path:
    """Writes GSM8K, MultiArith, ASDiv and SVAMP with three questions each."""

    def lines(path: pathlib.Path, rows: list[dict]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    problems, others = ([world.problem(index, seed=seed) for index in range(3)] for seed in (5, 6))
    for split, chosen in (("test", problems), ("train", others)):
        answers = [
            {"question": q, "answer": f"{chain.rsplit(chr(10), 1)[0]}\n#### {a}"}
            for q, chain, a in chosen
        ]
        lines(folder / "gsm8k" / f"{split}.jsonl", answers)
    lines(
        folder / "mawps" / "mawpsmultiarith.jsonl",
        [{"input": q, "target": int(a)} for q, _, a in problems],
    )
    (folder / "svamp").mkdir()
    svamp = [
        {
            "ID": f"s-{i}",
            "Body": q,
            "Question": "How many?",
            "Answer": float(a),
            "Equation": "",
            "Type": "",
        }
        for i, (q, _, a) in enumerate(problems)
    ]
    (folder / "svamp" / "SVAMP.json").write_text(json.dumps(svamp))
    (folder / "asdiv").mkdir()
    rows = "".join(
        f'<Problem ID="a-{i}"><Body>{q}</Body><Question>How many?</Question>'
        f"<Answer>{a} (things)</Answer><Formula>x</Formula></Problem>"
        for i, (q, _, a) in enumerate(problems)
    )
    (folder / "asdiv" / "ASDiv.xml").write_text(
        f"<Machine-Reading-Corpus-File><ProblemSet>{rows}</ProblemSet></Machine-Reading-Corpus-File>"
    )
    return folder
