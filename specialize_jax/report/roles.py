"""What a task measures: its data set, the format it was asked in, and its role for the student.

Our own results files say all three in a task's config. Others are placed by the name of the data
set, as the paper's four are, or stay without a role.
"""

from collections.abc import Sequence
from typing import Any

from specialize_jax.report import evaluations
from specialize_jax.schemas import Format

IN_DISTRIBUTION = "gsm8k"
OUT_OF_DISTRIBUTION = ("multiarith", "asdiv", "svamp")
PAPER = (IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION)

# As `evaluation.readers.ROLES`, which a report of files alone does not import; shown in this order.
WORDS = {
    "in_distribution": "in-distribution",
    "out_of_distribution": "out-of-distribution",
    "generic": "generic",
}
OTHER = "other"  # what None, an unknown role, is called

_FORMATS = {
    Format.ZERO_SHOT_CHAIN_OF_THOUGHT.label: "zero-shot CoT",
    Format.IN_CONTEXT_CHAIN_OF_THOUGHT.label: "in-context CoT",
    Format.ZERO_SHOT_ANSWER_ONLY.label: "zero-shot answer",
    Format.IN_CONTEXT_ANSWER_ONLY.label: "in-context answer",
}
_WITH = " + "
_FORMAT_ORDER = (None, *_FORMATS.values())
_LETTERS = 26  # of a short name: what a legend on a phone has room for


def place(task: str, config: dict[str, Any]) -> dict[str, str | None]:
    """Returns what a task measures, under `task`, `data_set`, `split`, `format` and `role`.

    With a calculator, or where answers were not greedy, `format` says so, and the parts are under
    `asked`, `calculator` and `sampling`.

    Args:
      task: its name, which stands for the data set where `config` has no `dataset`.
      config: of the task, as in the results file; may be empty or another program's.
    """
    data_set, label, role = (_text(config.get(key)) for key in ("dataset", "format", "role"))
    data_set = data_set or task
    base, split = _base(data_set)
    asked = None if label is None else format_words(label)
    computed, drawn = evaluations.calculator(config), evaluations.sampling(config)
    parts = (asked, None if computed is None else f"calculator ({computed})", drawn)
    return {
        "task": task,
        "data_set": data_set,
        "split": split,
        "format": _WITH.join(part for part in parts if part) or None,
        "asked": asked,
        "calculator": computed,
        "sampling": drawn,
        "role": role if role in WORDS else _role_by_name(base),
    }


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of greedy answers without a calculator; all where there are none such.

    Args:
      rows: with what `place` gives.
    """
    return [r for r in rows if r["calculator"] is None and r["sampling"] is None] or list(rows)


def format_words(label: str) -> str:
    """Returns a format in short words, as tables and legends have them."""
    return _FORMATS.get(label, label.replace("_", " "))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _base(data_set: str) -> tuple[str, str | None]:
    """Returns a set of the paper and its split, as in `svamp_validation`; other names are whole."""
    base, _, split = data_set.lower().partition("_")
    return (base, split or None) if base in PAPER else (data_set.lower(), None)


def _role_by_name(base: str) -> str | None:
    if base == IN_DISTRIBUTION:
        return "in_distribution"
    return "out_of_distribution" if base in OUT_OF_DISTRIBUTION else None


def words(role: str | None) -> str:
    """Returns a role as a reader sees it."""
    return OTHER if role is None else WORDS[role]


def role_order(role: str | None) -> int:
    """Returns the sort key of a role: in-distribution, out-of-distribution, generic, other."""
    return len(WORDS) if role is None else list(WORDS).index(role)


def format_order(name: str | None) -> tuple[int, str]:
    """Returns the sort key of a format in short words: ours as listed, others by name."""
    plain = name.partition(_WITH)[0] if name else name  # with more: after that without
    place = _FORMAT_ORDER.index(plain) if plain in _FORMAT_ORDER else len(_FORMAT_ORDER)
    return (place, name or "")


def data_set_order(name: str) -> tuple[int, str]:
    """Returns the sort key of a data set: the paper's in its order, others by name."""
    base, _ = _base(name)
    return (PAPER.index(base) if base in PAPER else len(PAPER), name)


def short_names(names: Sequence[str], among: Sequence[str] = ()) -> dict[str, str]:
    """Returns each name as a legend has room for it: without what all share at the front.

    Args:
      names: data sets shown together.
      among: more of the same run, which tell what a single name shares with others.
    """
    compared = set(names) if len(set(names)) > 1 else {*names, *among}
    parts = [name.split("_") for name in compared]
    # Every name keeps its last part, and a lone name all of them: `gsm8k_test` is not "test".
    most = min(map(len, parts), default=1) - 1 if len(parts) > 1 else 0
    shared = 0
    while shared < most and len({part[shared] for part in parts}) == 1:
        shared += 1
    short = {name: " ".join(name.split("_")[shared:]) for name in names}
    return {n: s if len(s) <= _LETTERS else f"{s[: _LETTERS - 1]}…" for n, s in short.items()}


def counted(sets: Sequence[str]) -> str:
    """Returns how many data sets there are, in words."""
    return f"{len(sets)} set{'s' * (len(sets) != 1)}"


def missing_of_paper(data_sets: Sequence[str]) -> list[str]:
    """Returns the sets of the paper that were not measured, or none where none of them was.

    Args:
      data_sets: names of all that were measured.
    """
    bases = {_base(name)[0] for name in data_sets}
    return [name for name in PAPER if name not in bases] if bases & set(PAPER) else []
