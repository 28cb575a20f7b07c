"""Options, booleans and texts: found and compared."""

import re
import unicodedata

from specialize_jax.answers import cues

_BRACKETED_OPTION = re.compile(r"[(\[]\s?([A-Za-z])\s?[)\]]")
_BARE_OPTION = re.compile(r"(?<![\w'])(?:([A-HJ-Z])(?![\w'])|([A-Za-z])(?=\s*(?:[.):,}*]|$)))")
_LISTED_OPTION = re.compile(r"(?<![\w'])([A-HJ-Z])(?=[).:]|\s*$)")


def option(text: str) -> str | None:
    """Reads "(b)", "B", "B.", "B) 12"; after a cue a bare letter is enough ("a dog" is none)."""
    for segment in cues.segments(text):
        segment = cues.sentence(segment.lstrip(), 0)
        found = _BRACKETED_OPTION.search(segment) or _BARE_OPTION.search(segment)
        if found:
            return (found[1] or found[2]).upper()
    if len(text.strip(" \t\r\n.()[]*")) == 1 and text.strip(" \t\r\n.()[]*").isalpha():
        return text.strip(" \t\r\n.()[]*").upper()
    listed = _BRACKETED_OPTION.findall(text) or _LISTED_OPTION.findall(text)
    return listed[-1].upper() if listed else None


_BOOLEAN = re.compile(r"\b(?:(yes|true)|(no|false))\b", re.IGNORECASE)


def boolean(text: str) -> str | None:
    """Reads yes/true and no/false after the last cue, else as the first word, else as the last.

    One in the middle is no answer: a text that breaks off ("... and False and") gave none.
    """
    for segment in cues.segments(text):
        found = _BOOLEAN.search(cues.sentence(segment.lstrip(), 0))
        if found:
            return "yes" if found[1] else "no"
    last = text.rstrip(" \t\r\n*\"').!}").rpartition(" ")[2].rpartition("\n")[2]
    for words in (text, last):
        if found := _BOOLEAN.match(words.lstrip(" \t\r\n*\"'(")):
            return "yes" if found[1] else "no"
    return None


_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


def text(text: str) -> str | None:
    """Reads the rest of the line after the last cue, else the last line, without punctuation."""
    segments = (
        line for segment in cues.segments(text) for line in segment.strip().splitlines()[:1]
    )
    for line in (*segments, *reversed(text.strip().splitlines())):
        line = _WRAPPED.sub(r"\1", line).strip(" \t*_`\"'$").rstrip(".!").strip(" \t*_`\"'$")
        if line:
            return " ".join(line.split())
    return None


def fold(answer: str) -> str:
    """Returns an answer without case and without the forms of one character."""
    return unicodedata.normalize("NFKC", answer).casefold()
