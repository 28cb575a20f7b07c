"""One ASCII form for digits, signs, separators and fractions."""

import re
import unicodedata

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


def normalize(text: str) -> str:
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
