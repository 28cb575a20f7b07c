"""Readers that turn what others wrote into teacher records.

| source             | teacher            | log-probabilities                              |
|--------------------|--------------------|------------------------------------------------|
| `codex_top5_steps` | code-davinci-002   | the five most probable tokens of every step    |
| `codex_text_log`   | code-davinci-002   | the same: the log of 2301.12726's code         |
| `gsm8k`            | the human authors  | none                                           |
| `chains`           | anybody            | none                                           |
| `published.FILES`  | OpenAI's           | none                                           |

| module                | what                                                              |
|-----------------------|-------------------------------------------------------------------|
| `files`               | rows of JSON lines, JSON, Parquet and Arrow                       |
| `fields`              | which field of a row is what                                      |
| `gold`, `questions`   | gold answers; files of questions                                  |
| `chains`, `published` | chains of text; public files of them                              |
| `top5`, `text_log`    | steps with candidates, of 2301.12726's code                       |

All give rows of `schemas.records`, right and wrong ones, cut and dropped by `teacher.filtering`, as
a server's answers are; `teacher.records` keeps the right ones and writes them.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from specialize_jax.schemas.faults import Faults
from specialize_jax.teacher import filtering
from specialize_jax.teacher.importers import chains, published, questions, text_log, top5
from specialize_jax.teacher.importers.fields import FORMS, ROLES, Fields, named
from specialize_jax.teacher.importers.files import check_there, read_jsonl
from specialize_jax.teacher.importers.gold import gsm8k_parts

__all__ = [
    "FORMS",
    "ROLES",
    "SOURCES",
    "Fields",
    "Source",
    "chains",
    "check_there",
    "gsm8k_parts",
    "named",
    "published",
    "questions",
    "read_jsonl",
]

_Rows = Iterator[dict[str, Any] | str]
# data folder, another file, rules, faults -> rows
_Read = Callable[[epath.Path, str | None, filtering.Rules, Faults | None], _Rows]
_GSM8K = ("gsm8k", "train.jsonl")
_GSM8K_LAYOUT = chains.Layout(FORMS["gsm8k"], stem="gsm8k/train")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where records come from.

    Attributes:
      read: reads them; `rows` is how it is called.
      info: what `teacher_info.json` says of the source.
      answer_line: whether an answer ends with its line that says "answer is", if nobody says so.
      needs_file: whether there is no public file of it.
    """

    read: _Read
    info: dict[str, Any]
    answer_line: bool = False
    needs_file: bool = False

    def rows(
        self,
        data_dir: epath.Path,
        *,
        file: str | None = None,
        rules: filtering.Rules | None = None,
        faults: Faults | None = None,
    ) -> _Rows:
        """Yields rows of `schemas.records` or, for a drop, the reason.

        Args:
          data_dir: the folder of public data.
          file: another file of the same form.
          rules: what is kept; None for the rules of the source.
          faults: what a bad row does; None ends the work.

        Raises:
          ValueError: a file is needed, and none is given.
          SchemaError: a file or a row is not as it should be.
        """
        if self.needs_file and file is None:
            raise ValueError("no such file was published: expected one")
        kept = filtering.Rules(answer_line=self.answer_line) if rules is None else rules
        return self.read(data_dir, file, kept, faults)


def _gsm8k(
    data_dir: epath.Path, file: str | None, rules: filtering.Rules, faults: Faults | None
) -> _Rows:
    layout = _GSM8K_LAYOUT if file is None else dataclasses.replace(_GSM8K_LAYOUT, stem=None)
    return chains.rows(file or data_dir.joinpath(*_GSM8K), layout, rules, faults=faults)


def _top5(
    data_dir: epath.Path, file: str | None, rules: filtering.Rules, faults: Faults | None
) -> _Rows:
    path = file or data_dir / "codex_top5_steps" / "codex_top5_steps.jsonl"
    train = data_dir.joinpath(*_GSM8K)
    # Lines of another file may bring their own gold answers.
    needed = file is None or train.exists()
    golds = [asked.answer for asked in questions.read(train)] if needed else []
    return top5.rows(path, golds, rules, faults=faults)


def _text_log(
    data_dir: epath.Path, file: str | None, rules: filtering.Rules, faults: Faults | None
) -> _Rows:
    return text_log.rows(file or "", rules, faults=faults)


_CODEX = {
    "teacher": {"name": "code-davinci-002", "revision": None},
    "tokenizer": {"name": "p50k_base", "sha256": None},
    # papers.md A.2: scripts/codex_decode_gsm8k.py of the reference repository
    "sampling": {"temperature": 0.5, "max_tokens": 256, "logprobs": 5},
}
SOURCES = {
    "codex_text_log": Source(_text_log, _CODEX, answer_line=True, needs_file=True),
    "codex_top5_steps": Source(_top5, _CODEX, answer_line=True),
    "gsm8k": Source(
        _gsm8k,
        {
            "teacher": {"name": "GSM8K authors (worked solutions)", "revision": None},
            "tokenizer": {"name": None, "sha256": None},
            "sampling": {},
        },
    ),
}
