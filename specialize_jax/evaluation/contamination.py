"""Whether a question that a student is scored on was among those that it was trained on.

Two questions are the same if `normalize` writes them alike: letters whatever their case and Unicode
form, numbers whatever their thousands commas, and symbols that compute something; not spaces,
sentence punctuation, quotes or hyphens. So a question that was only set anew is found, and one with
another number in it is another question. Of training, hashes are kept, not texts.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from specialize_jax.evaluation.readers import Question
from specialize_jax.schemas import SchemaError, folders

NAME = "training_questions"
VERSION = 1
"""Of the file and of what `normalize` does."""
_SHOWN = 3
_TEXT = 60  # letters of a question in an error

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_INSIDE_WORDS = "'\"`\u2018\u2019\u201c\u201d"
# A number, a word, a minus before a number, or one symbol other than sentence punctuation.
_TOKEN = re.compile(
    r"(?:(?<!\w)\.)?\d+(?:[.:/]\d+)*|[^\W\d]+|-(?=\s*\.?\d)|[^\w\s.,;:!?\-\u2026\u2014]"
)


class ContaminationError(ValueError):
    """Evaluation questions are in the training mixture."""


def normalize(text: str) -> str:
    """Returns what two settings of one question have in common: tokens with a space between.

    >>> normalize("Ann\u2019s 1,200 apples - all  RED - cost $.5 each!")
    'anns 1200 apples all red cost $ .5 each'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_TOKEN.findall(_THOUSANDS.sub("", "".join(map(_plain, folded)))))


def _plain(char: str) -> str:
    """Returns a character as `_TOKEN` knows it: one minus, one fraction bar; "" drops it."""
    if char in _INSIDE_WORDS or unicodedata.category(char) == "Cf":
        return ""
    if char == "\u2212" or (unicodedata.category(char) == "Pd" and char != "\u2014"):
        return "-"
    return "/" if char == "\u2044" else char


def fingerprint(text: str) -> str | None:
    """Returns 64 bits of the SHA-256 of a normalised text, in hexadecimal; None if it is empty."""
    plain = normalize(text)
    # JSON can hold half of a surrogate pair, which no UTF-8 can.
    content = plain.encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:16] if plain else None


def write(path: epath.PathLike, hashes: Iterable[str]) -> None:
    """Writes the fingerprints of training questions, each once."""
    content = {"schema": NAME, "version": VERSION, "hashes": sorted(set(hashes))}
    folders.write_bytes(epath.Path(path), (json.dumps(content, indent=0) + "\n").encode())


def read(path: epath.PathLike) -> frozenset[str]:
    """Reads what `write` wrote.

    Raises:
      SchemaError: the file is cut, holds something else, or is of another version.
    """
    content = folders.parse_json(epath.Path(path).read_bytes(), f"'{path}'")
    folders.check_keys(content, ("schema", "version", "hashes"), f"'{path}'")
    if (content["schema"], content["version"]) != (NAME, VERSION):
        found = f"version {content['version']!r} of '{content['schema']}'"
        raise SchemaError(f"'{path}': expected version {VERSION} of '{NAME}', got {found}")
    return frozenset(content["hashes"])


def find(questions: Iterable[Question], hashes: frozenset[str]) -> list[Question]:
    """Returns the questions that were trained on."""
    return [question for question in questions if fingerprint(question.question) in hashes]


def check(
    sets: Mapping[str, Sequence[Question]], hashes: frozenset[str], *, allowed: bool
) -> dict[str, list[Question]]:
    """Looks for the questions of evaluation sets among those of training.

    Args:
      sets: name -> questions.
      hashes: of the training questions.
      allowed: whether what is found is returned, and no error.

    Returns:
      name -> the questions that were trained on, for every set.

    Raises:
      ContaminationError: there are some; the number in each set, and the first ones, are named.
    """
    found = {name: find(questions, hashes) for name, questions in sets.items()}
    if any(found.values()) and not allowed:
        raise ContaminationError(
            f"{describe(found, sets)}; leave them out of training or of the evaluation sets, or "
            "set ALLOW_CONTAMINATION to True"
        )
    return found


def describe(
    found: Mapping[str, Sequence[Question]], sets: Mapping[str, Sequence[Question]]
) -> str:
    """Returns in one line which questions of which sets were found, and of how many."""
    if not any(found.values()):
        numbers = ", ".join(f"{name} {len(questions)}" for name, questions in sets.items())
        return f"no evaluation question is in the training mixture ({numbers})"
    parts = []
    for name, questions in found.items():
        if questions:
            first = "; ".join(f"{q.id} {_short(q.question)}" for q in questions[:_SHOWN])
            more = ", ..." if len(questions) > _SHOWN else ""
            parts.append(f"{len(questions)} of {len(sets[name])} of {name} ({first}{more})")
    total = sum(map(len, found.values()))
    noun = "question is" if total == 1 else "questions are"
    return f"{total} evaluation {noun} in the training mixture: {', '.join(parts)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}\u2026")
