"""Sets whose answers are chosen: AQuA, CommonsenseQA (options) and StrategyQA (yes or no).

Options stand behind the question as in the prompts of 2201.11903: `Answer Choices: (a) 24 (b) 36`.
"""

from collections.abc import Sequence

from etils import epath

from specialize_jax.evaluation.readers import files
from specialize_jax.evaluation.readers.base import Question, QuestionSet
from specialize_jax.schemas import SchemaError


def with_options(question: str, options: Sequence[str]) -> str:
    r"""Returns a question and its options.

    >>> with_options("How many?", ["24", "36"])
    'How many?\nAnswer Choices: (a) 24 (b) 36'
    """
    shown = " ".join(f"({chr(ord('a') + i)}) {option}" for i, option in enumerate(options))
    return f"{question}\nAnswer Choices: {shown}"


def aqua(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads AQuA; the letters in its options ("A)24") are replaced by those of `with_options`."""
    path = files.find(data_dir, "aqua", f"{split}.json")
    fields = {"question": str, "options": list, "correct": str}
    questions = []
    for row, source in files.json_lines(path, fields):
        where = f"{path}, line {row + 1}"
        letters = [str(option)[:2] for option in source["options"]]
        _check_letters([letter.removesuffix(")") for letter in letters], source["correct"], where)
        text = with_options(source["question"], [o[2:].strip() for o in source["options"]])
        gold = f"({source['correct']})"
        questions.append(Question(f"aqua/{split}/{row}", text, gold, "option", row, source))
    return questions


def commonsenseqa(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads CommonsenseQA: the development split, for the test answers were never published."""
    path = files.find(data_dir, "commonsenseqa", "dev_rand_split.jsonl")
    questions = []
    for row, source in files.json_lines(path, {"id": str, "answerKey": str, "question": dict}):
        where = f"{path}, line {row + 1}"
        asked = files.checked(source["question"], {"stem": str, "choices": list}, where)
        options = [
            files.checked(choice, {"label": str, "text": str}, where) for choice in asked["choices"]
        ]
        _check_letters([option["label"] for option in options], source["answerKey"], where)
        text = with_options(asked["stem"], [option["text"] for option in options])
        id_, gold = f"commonsenseqa/{source['id']}", f"({source['answerKey']})"
        questions.append(Question(id_, text, gold, "option", row, source))
    return questions


def strategyqa(data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads StrategyQA; "validation" is `dev.json`, for the test answers were never published."""
    file = {"validation": "dev.json", "train": "train.json"}[split]
    path = files.find(data_dir, "strategyqa", file)
    return [
        Question(
            f"strategyqa/{source['qid']}",
            source["question"],
            "yes" if source["answer"] else "no",
            "boolean",
            row,
            source,
        )
        for row, source in files.json_items(path, {"qid": str, "question": str, "answer": bool})
    ]


def _check_letters(letters: Sequence[str], gold: str, where: str) -> None:
    """Checks that options are lettered A, B, ... and that the gold answer is one of them."""
    expected = [chr(ord("A") + i) for i in range(len(letters))]
    if list(letters) != expected or gold not in expected:
        raise SchemaError(
            f"{where}: expected options A, B, ... and one of them, got {letters}, {gold!r}"
        )


SETS = {
    "aqua": QuestionSet(aqua, "out_of_distribution", splits=("test", "dev")),
    "strategyqa": QuestionSet(strategyqa, "generic", splits=("validation", "train")),
    "commonsenseqa": QuestionSet(commonsenseqa, "generic", splits=("validation",)),
}
