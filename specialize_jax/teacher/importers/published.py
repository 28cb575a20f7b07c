"""Public files of chains by a name: where they lie in the data folder, and how they are read.

Both sets answer test questions: samples of teachers' text, and for evaluation. A student trained on
them must not be scored on those questions, which `evaluate` finds by their text.
"""

from typing import Any, NamedTuple

from specialize_jax.teacher.importers.chains import Layout
from specialize_jax.teacher.importers.fields import Fields

_NOTE = "test questions: a student that is trained on them must not be scored on them"
_TEACHERS = {"code002": "code-davinci-002", "text003": "text-davinci-003", "gpt4": "gpt-4"}
# data set -> folder, kind of its answers, and which teachers answered
_COT_TEXT = {
    "gsm8k": ("GSM8K", "number", ("code002", "text003", "gpt4")),
    "svamp": ("SVAMP", "number", ("code002",)),
    "asdiv": ("ASDiv", "number", ("code002",)),
    "multiarith": ("MultiArith", "number", ("code002",)),
    "aqua": ("AQUA", "option", ("code002",)),
    "strategyqa": ("StrategyQA", "boolean", ("code002",)),
}


class Published(NamedTuple):
    """A public file of chains.

    Attributes:
      file: below the data folder.
      questions: the file of the questions that it answers, if they are not in it.
      layout: how it is read.
      info: what `teacher_info.json` says of it.
    """

    file: str
    questions: str | None
    layout: Layout
    info: dict[str, Any]


def _info(teacher: str) -> dict[str, Any]:
    return {
        "teacher": {"name": teacher, "revision": None},
        "tokenizer": {"name": None, "sha256": None},
        "sampling": {},
        "note": _NOTE,
    }


FILES = {
    f"cot_text_{name}_{model}": Published(
        f"teacher_cot_text/{folder}/{model}_COT/predictions.jsonl",
        f"teacher_cot_text/data/{folder}/test.jsonl",
        Layout(Fields(id="id", chain="completions"), kind, stem=f"{name}/test"),
        _info(_TEACHERS[model]),
    )
    for name, (folder, kind, models) in _COT_TEXT.items()
    for model in models
} | {
    f"openai_gsm8k_{size}_{way}": Published(
        "teacher_gsm8k_openai/example_model_solutions.jsonl",
        None,
        Layout(
            Fields(question="question", solution=f"{size}_{way}.solution", gold="ground_truth"),
            mark="A: ",
            stem="gsm8k/test",
        ),
        _info(f"GPT-3 {size}, {way} (2110.14168)"),
    )
    for size in ("6b", "175b")
    for way in ("finetuning", "verification")
}
