"""Numbers: found in a text, written in one form, compared by value."""

import re
from fractions import Fraction

from specialize_jax.answers import characters, cues

# Fractions and decimals this close count as equal ("0.333333" for "1/3", 17.9999999 for 18);
# two integers are equal only when they are the same.
TOLERANCE = Fraction(1, 10**6)

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


def extract(text: str) -> str | None:
    """Returns the number behind the last cue that has one, else the last of the text."""
    text = characters.normalize(text)
    for segment in cues.segments(text, cues.NUMBER_CUE):
        first = _NUMBER.search(segment)
        if first:
            return _last_number(cues.sentence(segment, first.end()))
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


def equal(a: str, b: str) -> bool:
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
