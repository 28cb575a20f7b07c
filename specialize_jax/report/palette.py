"""How a position of an aligned example is drawn: words, letter, hatch and colour.

The chart, the table and the alignment viewer share these, so that a colour means one thing on the
whole page. The hues are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people
with colour-blindness tell apart; letter and hatch say the same without any colour.
"""

import dataclasses

from specialize_jax import schemas


@dataclasses.dataclass(frozen=True)
class Mark:
    """How one outcome of the transfer is drawn.

    Attributes:
      words: what a reader sees.
      letter: stands on the token; empty for a transferred one, the normal case.
      hatch: of matplotlib; the style sheet has a pattern of the same look.
      light: colour on a light page, as `#rrggbb`.
      dark: colour on a dark page.
      meaning: one sentence for the legend.
    """

    words: str
    letter: str
    hatch: str
    light: str
    dark: str
    meaning: str


TRANSFERRED = "transferred"
# Keys are the lower-case names of `schemas.Reason`, and "transferred" for `Kind.TRANSFERRED`.
MARKS = {
    TRANSFERRED: Mark(
        "transferred", "", "", "#0072b2", "#56b4e9", "the teacher's distribution reached the token"
    ),
    "different_string": Mark(
        "different string", "D", "///", "#e69f00", "#f0b429", "one teacher token, another string"
    ),
    "many_teacher_tokens": Mark(
        "many teacher tokens", "M", "xxx", "#d55e00", "#ff8552", "several teacher tokens for one"
    ),
    "shared_teacher_token": Mark(
        "shared teacher token",
        "S",
        "\\\\\\",
        "#cc79a7",
        "#e39ac2",
        "its teacher token serves others",
    ),
    "end_of_sequence": Mark(
        "end of sequence",
        "E",
        "---",
        "#009e73",
        "#2fc79a",
        "no candidates were recorded for the end",
    ),
    "inside_segment": Mark(
        "inside a segment",
        "I",
        "\\\\",
        "#8c6d31",
        "#c9a85c",
        "it starts inside one source character",
    ),
    "no_mass": Mark(
        "no mass", "0", "**", "#7f3c8d", "#b57fc2", "no candidate agrees with the tokens so far"
    ),
    "no_logprobs": Mark(
        "no log-probabilities", "N", "...", "#6e7781", "#9aa4ae", "the record has text alone"
    ),
    "answer_only": Mark(
        "answer only", "A", "+++", "#8c7b00", "#f0e442", "a token of an answer-only target"
    ),
}

# Colours of the page itself, light and dark.
PAGE = {
    "ink": ("#1f2328", "#e6e8eb"),
    "muted": ("#59636e", "#a3acb6"),
    "line": ("#d1d9e0", "#3a424c"),
    "paper": ("#ffffff", "#14181d"),
    "panel": ("#f6f8fa", "#1d232a"),
    "right": ("#1a7f37", "#4ac26b"),
    "wrong": ("#cf222e", "#ff7b72"),
}

# Curves take the marks' colours in this order, then begin again.
SERIES = (
    "transferred",
    "many_teacher_tokens",
    "end_of_sequence",
    "shared_teacher_token",
    "different_string",
    "no_logprobs",
)

# Where a curve stands for a role, it has this colour on every chart.
ROLES: dict[str | None, str] = {
    "in_distribution": "transferred",
    "out_of_distribution": "many_teacher_tokens",
    "generic": "end_of_sequence",
    None: "no_logprobs",
}


def colours() -> dict[str, tuple[str, str]]:
    """Returns every colour by the name of its CSS variable: (light, dark)."""
    return PAGE | {name: (mark.light, mark.dark) for name, mark in MARKS.items()}


def mark_of(kind: int | str, reason: int | str) -> str:
    """Returns the key in `MARKS` of a position.

    Args:
      kind: a `schemas.Kind`, or its name in any case.
      reason: a `schemas.Reason`, or its name in any case.

    Raises:
      ValueError: there is no such kind or reason.
    """
    kind_name = kind if isinstance(kind, str) else schemas.Kind(kind).name
    name = reason if isinstance(reason, str) else schemas.Reason(reason).name
    if kind_name.lower() == TRANSFERRED:
        return TRANSFERRED
    if name.lower() not in MARKS:
        raise ValueError(f"a one-hot position needs a reason among {sorted(MARKS)}, got {reason!r}")
    return name.lower()
