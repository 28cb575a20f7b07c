r"""Final answers: find one in a text, write it in one form, compare two.

The teacher's correctness filter and every evaluation share this file, so that a sample kept for
training and an answer counted as right mean the same.

| mode        | kinds                         | rule                                               |
|-------------|-------------------------------|----------------------------------------------------|
| `corrected` | number, option, boolean, text | below; the default                                 |
| `fu2023`    | number                        | last match of `\d*\.?\d+`, compared as floats, as  |
|             |                               | the code of 2301.12726 does: "1,200" reads as 200, |
|             |                               | "-5" as 5 and "3/4" as 4                           |

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

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

MODES = ("corrected", "fu2023")
KINDS = ("number", "option", "boolean", "text")

# Fractions and decimals this close count as equal ("0.333333" for "1/3", 17.9999999 for 18);
# two integers are equal only when they are the same.
TOLERANCE = Fraction(1, 10**6)


def extract(text: str, mode: str = "corrected", *, kind: str = "number") -> str | None:
    r"""Returns the final answer that a text gives.

    >>> extract("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 1,200"), extract("no idea")
    ('1200', None)

    Args:
      text: a worked solution, a model's output, or a gold answer.
      mode: one of `MODES`; the module docstring defines them.
      kind: one of `KINDS`: "number" gives a canonical number, "option" a capital letter, "boolean"
        "yes" or "no", "text" the rest of the line after the last cue (the last line without one).

    Returns:
      The answer, or None when there is none. For mode "fu2023" the characters matched.

    Raises:
      ValueError: unknown mode or kind, or a kind that the mode does not know; lists the choices.
    """
    _check(mode, kind)
    if mode == "fu2023":
        numbers = _FU2023.findall(text)
        return numbers[-1] if numbers else None
    return _EXTRACTORS[kind](text)


def equal(a: str | None, b: str | None, *, mode: str = "corrected", kind: str = "number") -> bool:
    """Returns whether two answers are the same.

    Either side may be an extracted answer or any text that `extract` reads. Numbers are compared
    as exact rationals, with `TOLERANCE` where either side is not an integer; "fu2023" compares
    floats, in which large integers that differ may be equal. Nothing equals None, nor a text
    without an answer.

    Args:
      a: an answer.
      b: another.
      mode: one of `MODES`.
      kind: one of `KINDS`.

    Raises:
      ValueError: as `extract`.
    """
    _check(mode, kind)
    if a is None or b is None:
        return False
    a, b = extract(a, mode, kind=kind), extract(b, mode, kind=kind)
    if a is None or b is None:
        return False
    if mode == "fu2023":
        return float(a) == float(b)
    if kind == "number":
        return _equal_numbers(a, b)
    return _fold(a) == _fold(b)


def modes_of(*kinds: str) -> tuple[str, ...]:
    """Returns the modes that read answers of every one of these kinds."""
    return tuple(mode for mode in MODES if mode != "fu2023" or set(kinds) <= {"number"})


def _check(mode: str, kind: str) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown extraction mode '{mode}'; choices: {', '.join(MODES)}")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of answer '{kind}'; choices: {', '.join(KINDS)}")
    if mode not in modes_of(kind):
        raise ValueError(f"mode '{mode}' reads only kind 'number', got '{kind}'; use 'corrected'")


# ---- characters ----

_FU2023 = re.compile(r"\d*\.?\d+")
_REPLACED: dict[str, str | None] = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),  # an em dash is no minus
    **dict.fromkeys("\u2044\u2215\uff0f", "/"),
    **dict.fromkeys("\uff0c\u066c", ","),
    **dict.fromkeys("\uff0e\u066b", "."),
    **dict.fromkeys("\uff1a\u2236", ":"),
    **dict.fromkeys("\u00a0\u2007\u202f", "\u2009"),  # spaces that group digits
    **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufeff", None),  # invisible
    **{"\uff1d": "=", "\uff08": "(", "\uff09": ")", "\uff05": "%", "\uff0b": "+", "\u3002": ". "},
}
# Stands before a fraction that was one character or one LaTeX command: a space after a digit (a
# mixed number), nothing elsewhere.
_FRACTION_MARK = "\x1f"


def _ascii_form(char: str) -> str | None:
    """Returns what stands for a character in number syntax; None removes it."""
    if char in _REPLACED:
        return _REPLACED[char]
    if unicodedata.decimal(char, None) is not None:
        return str(unicodedata.decimal(char))
    if unicodedata.category(char) == "Sc":
        return "$"
    if unicodedata.category(char) == "No":
        over, bar, under = unicodedata.normalize("NFKC", char).partition("\u2044")
        if bar and over.isascii() and over.isdigit() and under.isascii() and under.isdigit():
            return f"{_FRACTION_MARK}{over}/{under}"
    return char


_LATEX = {"\\,": "\u2009", "\\!": "", "\\$": "$", "\\%": "%", "\\left": "", "\\right": ""}
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac ?\{ ?(-?) ?(\d{1,400}) ?\} ?\{ ?(\d{1,400}) ?\}")
_GROUPING_SPACE = re.compile(r"(?<=\d)\u2009(?=\d{3}(?!\d))")
# An ordinary space groups digits only where the second group could not stand alone ("118 000").
_PLAIN_GROUPING_SPACE = re.compile(r"(?<=\d)(?<!\d{4}) (?=0\d\d(?!\d))")


def _normalize(text: str) -> str:
    """Returns the text with every digit, sign, separator and fraction in one ASCII form."""
    if not text.isascii():
        table = {ord(char): _ascii_form(char) for char in set(text) if not char.isascii()}
        text = text.translate(table)
    if "\\" in text:
        for command, replacement in _LATEX.items():
            text = text.replace(command, replacement)
        text = _LATEX_FRACTION.sub(rf"\1{_FRACTION_MARK}\2/\3", text)
    text = text.replace("{,}", ",")
    text = _GROUPING_SPACE.sub("", text).replace("\u2009", " ")
    text = _PLAIN_GROUPING_SPACE.sub("", text)
    text = re.sub(rf"(?<=\d){_FRACTION_MARK}", " ", text)
    return text.replace(_FRACTION_MARK, "")


# ---- where the answer stands ----


def _cue(after_hashes: str) -> re.Pattern[str]:
    return re.compile(
        rf"""\banswers?[\s*_]{{0,4}}(?:\bis\b|\bare\b|:|=)[ \t*_:]{{0,4}}
          | (?<!\#)\#{{4}}(?={after_hashes})
          | \\(?:boxed|fbox)\s?(?P<box>\{{)""",
        re.IGNORECASE | re.VERBOSE,
    )


_CUE = _cue(r"\s")
_NUMBER_CUE = _cue(r"\s{0,2}[^\s\w\#]|\s{0,2}\d")  # "#### Step 2" is a heading, no answer


def _segments(text: str, cue: re.Pattern[str] = _CUE) -> Iterator[str]:
    """Yields what follows each cue, the last cue first, each up to the next cue or its box's end.

    Segments do not overlap, so that reading all of them is linear.
    """
    end = len(text)
    for found in reversed(list(cue.finditer(text))):
        segment = text[found.end() : end]
        yield _until_closed(segment) if found["box"] else segment
        end = found.start()


def _until_closed(segment: str) -> str:
    """Returns the part before the brace that closes one opened just before the segment."""
    depth = 1
    for brace in re.finditer(r"[{}]", segment):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return segment[: brace.start()]
    return segment


_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


def _sentence(segment: str, inside: int) -> str:
    """Returns the segment cut at the end of the sentence in which position `inside` lies."""
    end = _SENTENCE_END.search(segment, inside)
    return segment[: end.start()] if end else segment


# ---- numbers ----

# Commas are taken with their digits and judged afterwards (`_ungroup`): a pattern that tried to
# group at every comma would be quadratic.
_INTEGER = r"\d++(?:,\d++)*"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d++)?|(?<![\w.)\]%])\.\d++)"
# Runs of digits are possessive, and something matches at every digit: linear time. Groups are not:
# what may follow one never lets a shorter match succeed, and up to Python 3.11.3 possessive groups
# match wrongly.
_NUMBER = re.compile(
    rf"""(?P<date>\d++(?:/\d++){{2,}})
      | (?P<ratio>\d++(?:\.\d++)?(?::\d++(?:\.\d++)?)+)
      | (?P<whole>{_INTEGER})(?:\ (?:and\ )?|\ ?&\ ?)
        (?P<part>\d++)\ ?/\ ?(?P<parts>\d++)(?![/\d]|\.\d)
      | (?P<over>{_DECIMAL})\ ?/\ ?(?P<under>{_INTEGER}(?:\.\d++)?)
      | (?P<plain>{_DECIMAL})(?:[eE](?P<power>[+-]?\d{{1,3}})(?!\w))?""",
    re.VERBOSE,
)
_CURRENCY_CODE = re.compile(r"(?:USD|EUR|GBP|CAD|AUD|INR|RM|Rs\.?)$")
_NOT_A_QUANTITY = re.compile(r"(?:[^\W\d]|\^\{?|_\{)$")  # a letter, "^", "^{", "_", "_{"


def _extract_number(text: str) -> str | None:
    text = _normalize(text)
    for segment in _segments(text, _NUMBER_CUE):
        first = _NUMBER.search(segment)
        if first:
            return _last_number(_sentence(segment, first.end()))
    return _last_number(text)


def _last_number(text: str) -> str | None:
    quantity = any_number = None
    for match in _NUMBER.finditer(text):
        any_number = match
        before = text[max(0, match.start() - 4) : match.start()]
        if not _NOT_A_QUANTITY.search(before) or _CURRENCY_CODE.search(before):
            quantity = match
    chosen = quantity or any_number
    return None if chosen is None else _canonical(chosen, _is_negative(chosen))


_SUBTRACTED_FROM = re.compile(r"[\w)\]}%.]")


def _is_negative(match: re.Match[str]) -> bool:
    """Returns whether a minus before the number is its sign and not a subtraction or a dash."""
    text, at = match.string, match.start()
    before = text[max(0, at - 12) : at]
    # "-(1/3)": a bracket around nothing but the number may stand between.
    opening = r"\(?" if text[match.end() : match.end() + 1] == ")" else ""
    found = re.search(rf"-(?P<gap>[ ]?)[$]?[ ]?{opening}[$]?$", before)
    if not found:
        return False
    left = before[: found.start()]
    attached = left.rstrip(" $") if left.rstrip(" ").endswith("$") else left.rstrip(" ")
    if not attached:
        return True
    previous = attached[-1]
    if previous == "\n":  # "- 5 apples" at the head of a line is a list
        return not found["gap"]
    if previous == "-":  # "10 - -5" and "10--5", but "so --5" is a dash
        return bool(re.search(r"[\d)\]%] ?-$", attached))
    if previous.isalpha() or previous == ".":  # "is -3", but "x-3", "x - 3", "Apollo-11"
        return left != attached and not found["gap"]
    return not _SUBTRACTED_FROM.match(previous)


_GROUPED = re.compile(
    r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d++)?"  # 1,200
    r"|[1-9]\d?(?:,\d\d(?!\d))+,\d{3}(?:\.\d++)?"  # 1,20,000
)


def _ungroup(digits: str) -> tuple[str, bool]:
    """Returns the number without separators, and whether the commas stood between several numbers.

    Of several ("5,10,15") it is the last.
    """
    if "," not in digits or _GROUPED.fullmatch(digits):
        return digits.replace(",", ""), False
    return digits.rpartition(",")[2], True


_LONG = 1000  # digits; beyond, numbers are kept as text (and Python's int() has a limit)


def _canonical(match: re.Match[str], negative: bool) -> str:
    """Returns the one string for the number that `_NUMBER` matched."""
    sign = "-" if negative else ""
    if match["date"]:
        return _write(match["date"].rpartition("/")[2])
    if match["ratio"]:
        return sign + _leading_zeros_off(match["ratio"])
    if match["whole"]:
        return _write_mixed(match, sign)
    digits, several = _ungroup(match["over"] or match["plain"])
    sign = "" if several else sign
    if match["over"]:
        return _write(digits, sign, under=match["under"])
    return _write(digits, sign, power=match["power"])


def _write_mixed(match: re.Match[str], sign: str) -> str:
    whole, several = _ungroup(match["whole"])
    part, parts = match["part"], match["parts"]
    if max(len(whole), len(part), len(parts)) > _LONG or not int(part) < int(parts):
        return _write(part, under=parts)  # "16 48/2": two numbers, the last of which is 48/2
    total = int(whole) * int(parts) + int(part)
    return _write_fraction(Fraction(total, int(parts)), "" if several else sign)


def _write(digits: str, sign: str = "", *, under: str = "1", power: str | None = None) -> str:
    under, several = _ungroup(under)
    if several or not under.strip("0."):
        return _write(under)  # no fraction: the last number is the answer
    if max(len(digits), len(under)) > _LONG:
        text = _leading_zeros_off(digits)
        if not digits.strip("0."):
            return "0"
        return sign + text if under == "1" else f"{sign}{text}/{under}"
    value = Fraction(digits) / Fraction(under) * Fraction(10) ** int(power or 0)
    return _write_fraction(value, sign)


def _write_fraction(value: Fraction, sign: str) -> str:
    """Returns an integer, a decimal where it is finite, else a reduced fraction."""
    if value == 0:
        return "0"
    rest, places = value.denominator, 0
    while rest % 10 == 0:
        rest, places = rest // 10, places + 1
    for factor in (2, 5):
        while rest % factor == 0:
            rest, places = rest // factor, places + 1
    if rest != 1:
        return f"{sign}{value.numerator}/{value.denominator}"
    if not places:
        return f"{sign}{value.numerator}"
    scaled = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{sign}{scaled[:-places]}.{scaled[-places:]}"


def _leading_zeros_off(digits: str) -> str:
    return re.sub(r"^0+(?=\d)", "", digits)


def _equal_numbers(a: str, b: str) -> bool:
    """Compares two canonical numbers."""
    if a == b or max(len(a), len(b)) > _LONG:
        return a == b
    if ":" in a or ":" in b:
        return _equal_ratios(a, b)
    x, y = Fraction(a), Fraction(b)
    if x.denominator == y.denominator == 1:
        return x == y
    return abs(x - y) <= TOLERANCE


def _equal_ratios(a: str, b: str) -> bool:
    """Compares "12:16" with "3:4" as proportions; a clock time ("10:05") only with itself."""
    found = [re.fullmatch(r"(-?[1-9]\d*):([1-9]\d*)", text) for text in (a, b)]
    if not (found[0] and found[1]):
        return False
    return int(found[0][1]) * int(found[1][2]) == int(found[0][2]) * int(found[1][1])


# ---- the other kinds ----

_BRACKETED_OPTION = re.compile(r"[(\[]\s?([A-Za-z])\s?[)\]]")
_BARE_OPTION = re.compile(r"(?<![\w'])(?:([A-HJ-Z])(?![\w'])|([A-Za-z])(?=\s*(?:[.):,}*]|$)))")
_LISTED_OPTION = re.compile(r"(?<![\w'])([A-HJ-Z])(?=[).:]|\s*$)")


def _extract_option(text: str) -> str | None:
    """Reads "(b)", "B", "B.", "B) 12"; after a cue a bare letter is enough ("a dog" is none)."""
    for segment in _segments(text):
        segment = _sentence(segment.lstrip(), 0)
        found = _BRACKETED_OPTION.search(segment) or _BARE_OPTION.search(segment)
        if found:
            return (found[1] or found[2]).upper()
    if len(text.strip(" \t\r\n.()[]*")) == 1 and text.strip(" \t\r\n.()[]*").isalpha():
        return text.strip(" \t\r\n.()[]*").upper()
    listed = _BRACKETED_OPTION.findall(text) or _LISTED_OPTION.findall(text)
    return listed[-1].upper() if listed else None


_BOOLEAN = re.compile(r"\b(?:(yes|true)|(no|false))\b", re.IGNORECASE)


def _extract_boolean(text: str) -> str | None:
    """Reads yes/true and no/false after the last cue, else at the start, else the last one."""
    for segment in _segments(text):
        found = _BOOLEAN.search(_sentence(segment.lstrip(), 0))
        if found:
            return "yes" if found[1] else "no"
    first = _BOOLEAN.match(text.lstrip(" \t\r\n*\"'("))
    words = [first] if first else list(_BOOLEAN.finditer(text))
    return None if not words else "yes" if words[-1][1] else "no"


_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


def _extract_text(text: str) -> str | None:
    """Reads the rest of the line after the last cue, else the last line, without punctuation."""
    segments = (line for segment in _segments(text) for line in segment.strip().splitlines()[:1])
    for line in (*segments, *reversed(text.strip().splitlines())):
        line = _WRAPPED.sub(r"\1", line).strip(" \t*_`\"'$").rstrip(".!").strip(" \t*_`\"'$")
        if line:
            return " ".join(line.split())
    return None


def _fold(answer: str) -> str:
    return unicodedata.normalize("NFKC", answer).casefold()


_EXTRACTORS = {
    "number": _extract_number,
    "option": _extract_option,
    "boolean": _extract_boolean,
    "text": _extract_text,
}
