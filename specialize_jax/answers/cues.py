"""Where in a text the answer stands: behind a cue, up to the end of its sentence or box."""

import re
from collections.abc import Iterator


def _cue(after_hashes: str) -> re.Pattern[str]:
    return re.compile(
        rf"""\banswers?[\s*_]{{0,4}}(?:\bis\b|\bare\b|:|=)[ \t*_:]{{0,4}}
          | (?<!\#)\#{{4}}(?={after_hashes})
          | \\(?:boxed|fbox)\s?(?P<box>\{{)""",
        re.IGNORECASE | re.VERBOSE,
    )


_CUE = _cue(r"\s")
NUMBER_CUE = _cue(r"\s{0,2}[^\s\w\#]|\s{0,2}\d")  # "#### Step 2" is a heading, no answer


def segments(text: str, cue: re.Pattern[str] = _CUE) -> Iterator[str]:
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


def sentence(segment: str, inside: int) -> str:
    """Returns the segment cut at the end of the sentence in which position `inside` lies."""
    end = _SENTENCE_END.search(segment, inside)
    return segment[: end.start()] if end else segment
