"""The questions behind packed rows: those trained on, as hashes, and those held out, as texts.

`pack` writes two files beside its rows, and their SHA-256 into `packed_info.json`:

| file                         | holds                                                           |
|------------------------------|-----------------------------------------------------------------|
| `training_questions.json`    | `evaluation.contamination`'s hash of each, exemplars included   |
| `validation_questions.jsonl` | `id`, `question`, `answer`, `kind`, and `exemplars`: what would |
|                              | stand before the question in context                            |

`train` copies the first to its MODEL_DIR, where `evaluate` reads it. Folders of earlier versions
have neither: the functions that read return None.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from etils import epath

from specialize_jax import answers
from specialize_jax.data import formats
from specialize_jax.evaluation import contamination
from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError, folders

if TYPE_CHECKING:
    from specialize_jax.data.corpus import Corpus

TRAINING = "training_questions"
VALIDATION = "validation_questions"
FILES = {TRAINING: f"{TRAINING}.json", VALIDATION: f"{VALIDATION}.jsonl"}
"""Key of an info file -> the file that it vouches for."""


class HeldOut(NamedTuple):
    """A question that was kept out of training.

    Attributes:
      question: its text and gold answer.
      exemplars: training questions that stand before it in context; none where there are too few.
    """

    question: Question
    exemplars: list[formats.Exemplar]


class Recorder:
    """Notes the questions of training while rows are packed.

    Those of the corpus come first. A task of a user's own may ask others, or the same in other
    words, so the inputs of every example are read back, too.
    """

    def __init__(self, corpus: "Corpus", decode: Callable[[Iterable[int]], str]) -> None:
        self._decode = decode
        # In-context inputs hold the same exemplars again and again.
        self._fingerprint = functools.lru_cache(maxsize=1 << 16)(contamination.fingerprint)
        self._hashes: set[str | None] = set()
        for row in corpus.rows["train"]:
            self._hashes.add(self._fingerprint(row["question"]))

    def see(self, split: str, inputs: np.ndarray) -> None:
        """Notes the questions in the encoder input of an example."""
        if split == "train":
            for question in formats.questions_in(self._decode(inputs.tolist())):
                self._hashes.add(self._fingerprint(question))

    def hashes(self) -> set[str]:
        """Returns what was noted."""
        return {found for found in self._hashes if found is not None}


def write(
    folder: epath.Path, recorder: Recorder, held_out: Sequence[HeldOut]
) -> dict[str, dict[str, Any]]:
    """Writes both files and returns their entries for the info file."""
    hashes = recorder.hashes()
    contamination.write(folder / FILES[TRAINING], hashes)
    lines = "".join(
        json.dumps(
            {
                "id": question.id,
                "question": question.question,
                "answer": question.answer,
                "kind": question.kind,
                "exemplars": [exemplar._asdict() for exemplar in exemplars],
            }
        )
        + "\n"
        for question, exemplars in held_out
    )
    folders.write_bytes(folder / FILES[VALIDATION], lines.encode())
    counts = {TRAINING: len(hashes), VALIDATION: len(held_out)}
    return {key: folders.part_entry(folder / FILES[key], counts[key]) for key in FILES}


def held_out_of(corpus: "Corpus", seed: int) -> list[HeldOut]:
    """Returns the validation questions of a corpus that have a gold answer, each once."""
    size, count = len(corpus.pool), corpus.num_exemplars
    found: dict[str, HeldOut] = {}
    for row in corpus.rows["validation"]:
        text, gold = row["question"], row["gold_answer"]
        if text in found or (kind := _kind(gold)) is None:
            continue
        drawn: Iterable[int] = ()
        if size >= count:
            drawn = formats.draw_exemplars(size, seed=(seed, len(found)), count=count)
        question = Question(row["example_id"], text, gold, kind, row=len(found))
        found[text] = HeldOut(question, [corpus.pool[index] for index in drawn])
    return list(found.values())


def _kind(gold: str | None) -> str | None:
    """Returns the kind of a gold answer, which aligned rows do not say."""
    kinds = ("number", "boolean", "text")
    return next((k for k in kinds if answers.extract(gold or "", kind=k) is not None), None)


def read_training(folder: epath.PathLike, info: Mapping[str, Any]) -> frozenset[str] | None:
    """Returns the hashes of the questions that packed rows train on; None if nothing says them.

    Raises:
      SchemaError: the file is missing, changed or cut.
    """
    path = _checked(folder, info, TRAINING)
    return None if path is None else contamination.read(path)


def read_validation(folder: epath.PathLike, info: Mapping[str, Any]) -> list[HeldOut] | None:
    """Returns the questions of the validation split; None if nothing says them.

    Raises:
      SchemaError: the file is missing, changed or cut.
    """
    path = _checked(folder, info, VALIDATION)
    return None if path is None else list(_held_out(path))


def _checked(folder: epath.PathLike, info: Mapping[str, Any], key: str) -> epath.Path | None:
    if key not in info:
        return None
    path = epath.Path(folder) / FILES[key]
    folders.check_hash(path, info[key])
    return path


def _held_out(path: epath.Path) -> Iterator[HeldOut]:
    for number, line in enumerate(path.read_text().split("\n")[:-1]):
        try:
            row = json.loads(line)
            exemplars = [formats.Exemplar(**exemplar) for exemplar in row.pop("exemplars")]
            yield HeldOut(Question(row=number, **row), exemplars)
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(f"{path}, line {number + 1}: expected a question: {error}") from error


def check_folder(folder: epath.PathLike, info: Mapping[str, Any]) -> None:
    """Checks both files of a packed folder, where it has them.

    Raises:
      SchemaError: one is missing, changed or cut.
    """
    read_training(folder, info)
    read_validation(folder, info)
