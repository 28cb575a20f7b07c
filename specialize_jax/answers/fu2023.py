r"""The rules of 2301.12726's code, faults and all.

Read in [its repository](https://github.com/FranxYao/FlanT5-CoT-Specialization) at a8ffd51:
`test_answer` for numbers and `parse_ans_general` of test_bbh.py. On GSM8K the first reads 82 gold
answers of 7,473 wrongly; the second calls "12" right where 2 is asked for, and a text that says
"The answer is" with a capital T wrong, whatever follows.
"""

import re

_NUMBER = re.compile(r"\d*\.?\d+")
_PHRASE = "the answer is"


def number(text: str) -> str | None:
    """Returns the last match of the pattern, as it stands."""
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def after_phrase(text: str) -> str | None:
    """Returns what lies between the first and the second "the answer is"."""
    _, phrase, rest = text.partition(_PHRASE)
    return rest.partition(_PHRASE)[0] if phrase else None
