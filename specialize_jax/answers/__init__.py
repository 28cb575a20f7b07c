r"""Final answers: find one in a text, write it in one form, compare two.

The teacher's correctness filter and every evaluation share this part, so that a sample kept for
training and an answer counted as right mean the same.

| mode                | kinds                         | rule                                       |
|---------------------|-------------------------------|--------------------------------------------|
| `corrected`         | number, option, boolean, text | below; the default                         |
| `fu2023`            | number                        | last match of `\d*\.?\d+`, compared as     |
|                     |                               | floats, as the code of 2301.12726 does:    |
|                     |                               | "1,200" reads as 200, "-5" as 5, "3/4" as 4|
| `fu2023_bbh`        | all                           | the same code on BIG-Bench Hard: right if  |
|                     |                               | the gold answer is a part of what follows  |
|                     |                               | "the answer is"                            |
| `fu2023_bbh_direct` | all                           | the same without a chain of thought: right |
|                     |                               | if it is a part of the text                |
| TASK`:`FILTER       | those of the task             | lm-evaluation-harness's, as                |
|                     |                               | `gsm8k_cot:strict-match`: `harness_rules`  |

How `corrected` finds a number. A cue is "answer is", "answer:", `#### ` or `\boxed{}`. The last
cue with a number behind it counts; of the sentence (or box) behind it the *last* number is taken,
so that "5 + 3 = 8" reads as 8, and "9 and 11" as 11, as the papers' protocol does. Without a cue it
is the last number of the text. Numbers that belong to a name, unit, exponent or subscript ("H2O",
"cm^2", "x_2") count only when there is no other.

How it writes a number, so that equal values have one string: "1,200" -> "1200", "-$5.00" -> "-5",
".5" and "1/2" -> "0.5", "1/3" -> "1/3", "1 1/2" -> "1.5". Currency, percent sign and units go:
"50%" is 50. Ratios and clock times stay as they stand ("3:4", "9:05"); of a range or a date the
last part is taken. A minus is a sign only where nothing stands before it to subtract from.
Expressions are never evaluated, apart from the fraction bar between two numbers.

Everything here takes time linear in the text, whatever the text; nothing is executed.
"""

from collections.abc import Callable

from specialize_jax.answers import fu2023, harness_rules, numbers, words

MODES = ("corrected", "fu2023", "fu2023_bbh", "fu2023_bbh_direct", *harness_rules.RULES)
KINDS = ("number", "option", "boolean", "text")
TOLERANCE = numbers.TOLERANCE

_CORRECTED = {
    "number": numbers.extract,
    "option": words.option,
    "boolean": words.boolean,
    "text": words.text,
}
# By substring: neither side is read any further, and the first must hold the second.
_HOLDING: dict[str, Callable[[str], str | None]] = {
    "fu2023_bbh": fu2023.after_phrase,
    "fu2023_bbh_direct": lambda text: text or None,
}


def extract(text: str, mode: str = "corrected", *, kind: str = "number") -> str | None:
    r"""Returns the final answer that a text gives.

    >>> extract("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 1,200"), extract("no idea")
    ('1200', None)
    >>> extract("The answer is 18", "gsm8k_cot:strict-match")
    '1'

    Args:
      text: a worked solution or a model's output; for `corrected` and `fu2023` also a gold answer,
        which `reference` reads for every mode.
      mode: one of `MODES`; the module docstring defines them.
      kind: one of `KINDS`: "number" gives a canonical number, "option" a capital letter, "boolean"
        "yes" or "no", "text" the rest of the line after the last cue (the last line without one).
        That is `corrected`; other modes give the characters that they find.

    Returns:
      The answer, or None when there is none.

    Raises:
      ValueError: unknown mode or kind, or a kind that the mode does not know; lists the choices.
    """
    _check(mode, kind)
    if mode in harness_rules.RULES:
        return harness_rules.extract(text, harness_rules.RULES[mode])
    if mode in _HOLDING:
        return _HOLDING[mode](text)
    return fu2023.number(text) if mode == "fu2023" else _CORRECTED[kind](text)


def reference(gold: str, mode: str = "corrected", *, kind: str = "number") -> str | None:
    """Returns what a mode compares answers with, given the gold answer of a test set.

    `corrected` and `fu2023` read it as they read a model's text ("1,200" is 200 to `fu2023`, as in
    the papers' code); the others take it as it stands, since their phrases are not in it.

    >>> reference("1,200", "fu2023"), reference("9 (apples)", "gsm8k_cot:strict-match")
    ('200', '9')

    Args:
      gold: as the set gives it.
      mode: as `extract`.
      kind: as `extract`.

    Raises:
      ValueError: as `extract`.
    """
    _check(mode, kind)
    if mode in harness_rules.RULES:
        return harness_rules.reference(gold, harness_rules.RULES[mode])
    return gold or None if mode in _HOLDING else extract(gold, mode, kind=kind)


def equal(a: str | None, b: str | None, *, mode: str = "corrected", kind: str = "number") -> bool:
    """Returns whether two answers are the same.

    Under `corrected` and `fu2023` either side may be an extracted answer or any text that `extract`
    reads. Numbers are compared as exact rationals, with `TOLERANCE` where either side is not an
    integer; "fu2023" compares floats, in which large integers that differ may be equal. Nothing
    equals None, nor a text without an answer.

    The other modes compare strings: `a` is what `extract` gave and `b` what `reference` gave. For
    the two of BIG-Bench Hard it is enough that `a` holds `b`.

    Args:
      a: an answer.
      b: another, or the gold one.
      mode: one of `MODES`.
      kind: one of `KINDS`.

    Raises:
      ValueError: as `extract`.
    """
    _check(mode, kind)
    if a is None or b is None:
        return False
    if mode in harness_rules.RULES:
        return harness_rules.equal(a, b, harness_rules.RULES[mode])
    if mode in _HOLDING:
        return b in a
    a, b = extract(a, mode, kind=kind), extract(b, mode, kind=kind)
    if a is None or b is None:
        return False
    if mode == "fu2023":
        return float(a) == float(b)
    return numbers.equal(a, b) if kind == "number" else words.fold(a) == words.fold(b)


def modes_of(*kinds: str, harness: str | None = None) -> tuple[str, ...]:
    """Returns the modes to report for a set whose answers are of these kinds.

    >>> modes_of("number", harness="gsm8k_cot")
    ('corrected', 'fu2023', 'gsm8k_cot:strict-match', 'gsm8k_cot:flexible-extract')
    >>> modes_of("option", harness="bbh_cot_fewshot")
    ('corrected', 'fu2023_bbh', 'bbh_cot_fewshot:get-answer')

    Args:
      kinds: of `KINDS`.
      harness: lm-evaluation-harness's name of the task that the set is, or of the nearest one; None
        where there is none. Sub-tasks ("bbh_cot_fewshot_navigate") have the rules of their group.

    Raises:
      ValueError: unknown task, or its filters do not read these kinds.
    """
    of_task = harness_rules.modes_of(harness) if harness else ()
    papers = "fu2023"
    if harness and harness.startswith("bbh_"):
        papers = "fu2023_bbh" if harness.startswith("bbh_cot_") else "fu2023_bbh_direct"
    modes = ("corrected", *((papers,) if set(kinds) <= set(_kinds_of(papers)) else ()), *of_task)
    for mode in modes:
        for kind in kinds:
            _check(mode, kind)
    return modes


def _kinds_of(mode: str) -> tuple[str, ...]:
    if mode in harness_rules.RULES:
        return harness_rules.RULES[mode].kinds
    return ("number",) if mode == "fu2023" else KINDS


def _check(mode: str, kind: str) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown extraction mode '{mode}'; choices: {', '.join(MODES)}")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of answer '{kind}'; choices: {', '.join(KINDS)}")
    if kind not in _kinds_of(mode):
        kinds = "', '".join(_kinds_of(mode))
        raise ValueError(f"mode '{mode}' reads only kind '{kinds}', got '{kind}'; use 'corrected'")
