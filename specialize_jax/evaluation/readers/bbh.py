"""BIG-Bench Hard: 27 tasks, each a set `bbh_<task>`; the group `bbh` is all of them."""

import functools

from etils import epath

from specialize_jax.evaluation import bbh
from specialize_jax.evaluation.readers import files
from specialize_jax.evaluation.readers.base import Question, QuestionSet

PREFIX = "bbh_"


def read(task: str, data_dir: epath.PathLike, split: str) -> list[Question]:
    """Reads a task; three gold answers of the published files name no option (`has_gold`)."""
    path = files.find(data_dir, "bbh", "bbh", f"{task}.json")
    return [
        Question(
            f"{PREFIX}{task}/{row}", source["input"], source["target"], bbh.KINDS[task], row, source
        )
        for row, source in files.json_items(path, {"input": str, "target": str}, "examples")
    ]


def render(task: str, label: str, question: Question, data_dir: epath.PathLike, mode: str) -> str:
    """Returns an in-context prompt, made by `bbh.prompt` from the published one."""
    path = files.find(data_dir, "bbh", "cot-prompts", f"{task}.txt")
    return bbh.prompt(_text(str(path)), question.question, label, mode, str(path))


@functools.lru_cache(maxsize=64)
def _text(path: str) -> str:
    return epath.Path(path).read_text(encoding="utf-8")


SETS = {
    f"{PREFIX}{task}": QuestionSet(
        functools.partial(read, task),
        "generic",
        harness="bbh_cot_fewshot",
        render=functools.partial(render, task),
        shots=bbh.SHOTS,
        harness_direct="bbh_fewshot",
    )
    for task in bbh.KINDS
}
