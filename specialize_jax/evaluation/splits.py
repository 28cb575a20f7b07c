"""Validation and test rows of the sets that models are chosen by.

These splits are ours: 2301.12726 chooses models on a part of each set and reports the rest, but its
parts were not published. Sizes follow what is known of them:

| set          | of                | validation |  test |
|--------------|-------------------|-----------:|------:|
| `gsm8k`      | test, 1,319       |        500 |   819 |
| `multiarith` | 600               |        200 |   400 |
| `asdiv`      | 2,305             |        500 | 1,805 |
| `svamp`      | 1,000             |        500 |   500 |

A row is `Question.row`. Rows are put in the order of the SHA-256 of "seed/set/row", and the first
are validation: any language computes the same. The outcome is kept in `split_rows/<set>.json`,
which is what `rows` reads. Questions that a set holds twice are not kept together: the texts of 9
test questions of MultiArith and of 1 of ASDiv stand in the validation part too.
"""

import functools
import hashlib
import json
import pathlib
from typing import Any, Final, NamedTuple

SEED: Final = 0
PARTS = ("validation", "test")
_FOLDER = pathlib.Path(__file__).parent / "split_rows"


class _Sizes(NamedTuple):
    questions: int
    validation: int


_SIZES = {
    "gsm8k": _Sizes(1319, 500),
    "multiarith": _Sizes(600, 200),
    "asdiv": _Sizes(2305, 500),
    "svamp": _Sizes(1000, 500),
}
NAMES = tuple(_SIZES)
"""Sets that have a split."""


def rows(set_name: str, part: str) -> frozenset[int]:
    """Returns the rows of a part; the two parts of a set are disjoint and make up all of it.

    Args:
      set_name: one of `NAMES`.
      part: "validation" or "test".

    Raises:
      ValueError: the set has no split, or there is no such part; lists the choices.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part '{part}' of a set; choices: {', '.join(PARTS)}")
    if set_name not in _SIZES:
        raise ValueError(f"no split of '{set_name}'; choices: {', '.join(NAMES)}")
    validation = _validation(set_name)
    if part == "validation":
        return validation
    return frozenset(range(_SIZES[set_name].questions)) - validation


@functools.cache
def _validation(set_name: str) -> frozenset[int]:
    return frozenset(json.loads((_FOLDER / f"{set_name}.json").read_text())["validation"])


def make(set_name: str, seed: int = SEED) -> dict[str, Any]:
    """Returns what the index file of a set holds, computed anew."""
    sizes = _SIZES[set_name]

    def key(row: int) -> bytes:
        return hashlib.sha256(f"{seed}/{set_name}/{row}".encode()).digest()

    chosen = sorted(range(sizes.questions), key=key)[: sizes.validation]
    return {
        "set": set_name,
        "by": "specialize_jax; these are our rows, not those of a paper",
        "seed": seed,
        "questions": sizes.questions,
        "validation": sorted(chosen),
    }


def write(folder: pathlib.Path = _FOLDER) -> None:
    """Writes the index file of every set."""
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.json").write_text(json.dumps(make(name)) + "\n")
