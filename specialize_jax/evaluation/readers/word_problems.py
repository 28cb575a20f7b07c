"""Word problems of other authors than GSM8K's: SVAMP, ASDiv and the parts of MAWPS."""

import functools
from xml.etree import ElementTree

from etils import epath

from specialize_jax.evaluation.readers import files
from specialize_jax.evaluation.readers.base import MATH_PROMPT, Question, QuestionSet
from specialize_jax.schemas import SchemaError

MAWPS = ("addsub", "multiarith", "singleeq", "singleop")


def svamp(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads SVAMP, with one full stop between body and question."""
    path = files.find(data_dir, "svamp", "SVAMP.json")
    fields = {"ID": str, "Body": str, "Question": str, "Answer": (int, float)}
    questions = []
    for row, source in files.json_items(path, fields):
        body = source["Body"].strip()
        stop = "" if body.endswith((".", "?", "!", ",")) else "."
        text = f"{body}{stop} {source['Question'].strip()}"
        gold = files.number(source["Answer"])
        questions.append(Question(f"svamp/{source['ID']}", text, gold, row=row, source=source))
    return questions


def asdiv(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads ASDiv: body, a space, question; the gold answer keeps its unit ("9 (apples)")."""
    path = files.find(data_dir, "asdiv", "ASDiv.xml")
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise SchemaError(f"{path}, line {error.position[0]}: expected XML: {error}") from error
    questions = []
    for row, problem in enumerate(root.iter("Problem")):
        texts = {child.tag: (child.text or "").strip() for child in problem}
        fields = dict.fromkeys(("ID", "Body", "Question", "Answer"), str)
        source = files.checked({**problem.attrib, **texts}, fields, f"{path}, problem {row}")
        text = f"{source['Body']} {source['Question']}"
        questions.append(
            Question(f"asdiv/{source['ID']}", text, source["Answer"], row=row, source=source)
        )
    return questions


def mawps(name: str, data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads a part of MAWPS from its plain form (`input`, `target`)."""
    path = files.find(data_dir, "mawps", f"mawps{name}.jsonl")
    return [
        Question(
            f"{name}/{row}", source["input"], files.number(source["target"]), "number", row, source
        )
        for row, source in files.json_lines(path, {"input": str, "target": (int, float)})
    ]


_READERS = {"svamp": svamp, "asdiv": asdiv} | {
    name: functools.partial(mawps, name)
    for name in ("multiarith", "addsub", "singleeq", "singleop")
}
SETS = {
    name: QuestionSet(reader, "out_of_distribution", harness="gsm8k_cot", prompt_file=MATH_PROMPT)
    for name, reader in _READERS.items()
}
