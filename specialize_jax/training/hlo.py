"""What a compiled program moves between chips, read from its text.

XLA's own cost analysis counts the body of a loop once. Here a loop's body counts as often as its
condition says, so that a scan over 24 layers moves 24 times what a layer moves.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>[\w.\-]+) \(")
_OPERATION = re.compile(rf" = (?P<shape>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_WHILE = re.compile(r" while\(.*condition=%(?P<condition>[\w.\-]+), body=%(?P<body>[\w.\-]+)")
_CALLS = re.compile(r"(?:calls|to_apply)=%(?P<name>[\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{(?P<names>[^}]*)\}")
_LIMIT = re.compile(r"[su](?:32|64)\[\]\S* constant\((?P<limit>\d+)\)")
_ARRAY = re.compile(r"(?P<dtype>pred|bf16|[suf]\d+|f8\w+)\[(?P<dims>[\d,]*)\]")
_BITS = {"pred": 8, "bf16": 16}


class Traffic(NamedTuple):
    """What the collectives of one kind do in one run of a program.

    Attributes:
      times: how often they run.
      bytes: of the whole arrays that are gathered, reduced, exchanged or passed on, per chip.
    """

    times: int
    bytes: int


def collectives(text: str) -> dict[str, Traffic]:
    """Sums the collectives of a compiled program, loops by their trip counts.

    An all-reduce whose result is cut at once into each chip's part (TPU's fused
    all-reduce-scatter) counts as a reduce-scatter.

    Args:
      text: `compiled.as_text()`.

    Returns:
      Kind -> traffic; kinds that do not occur are left out.

    Raises:
      ValueError: the text has no entry computation, or a loop whose trip count it does not tell.
    """
    computations, entry = _computations(text)
    if entry is None:
        raise ValueError("expected the text of a compiled program, got one without an ENTRY")
    known: dict[str, dict[str, Traffic]] = {}

    def totals(name: str) -> dict[str, Traffic]:
        if name not in known:
            found: dict[str, Traffic] = {}
            for line in computations.get(name, ()):
                for kind, one in _own(line, name):
                    _add(found, kind, one, 1)
                for other, times in _callees(line, computations):
                    for kind, one in totals(other).items():
                        _add(found, kind, one, times)
            known[name] = found
        return known[name]

    return dict(sorted(totals(entry).items()))


def _computations(text: str) -> tuple[dict[str, list[str]], str | None]:
    """Returns each computation's lines by name, and the name of the entry."""
    found: dict[str, list[str]] = {}
    entry, lines = None, None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            lines = found.setdefault(header["name"], [])
            entry = header["name"] if line.startswith("ENTRY") else entry
        elif lines is not None:
            lines.append(line)
    return found, entry


def _own(line: str, computation: str) -> Iterator[tuple[str, Traffic]]:
    if found := _OPERATION.search(line):
        kind = found["kind"]
        if kind == "all-reduce" and "all-reduce-scatter" in computation:
            kind = "reduce-scatter"
        # An asynchronous one names its operand and its result; the whole array is the larger.
        sizes = [_size(array) for array in _ARRAY.finditer(found["shape"])]
        yield kind, Traffic(1, max(sizes) if found["start"] else sum(sizes))


def _size(array: re.Match[str]) -> int:
    digits = re.search(r"\d+", array["dtype"])
    bits = _BITS.get(array["dtype"]) or int(digits[0] if digits else 0)
    return math.prod(map(int, filter(None, array["dims"].split(",")))) * bits // 8


def _callees(line: str, computations: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    if loop := _WHILE.search(line):
        yield loop["body"], _trips(loop["condition"], computations[loop["condition"]])
    elif branches := _BRANCHES.search(line):
        yield from ((name.strip(" %"), 1) for name in branches["names"].split(","))
    elif call := _CALLS.search(line):
        yield call["name"], 1


def _trips(name: str, lines: list[str]) -> int:
    """Returns the limit that a loop's counter, which starts at 0, is compared with."""
    limits = [int(found["limit"]) for line in lines if (found := _LIMIT.search(line))]
    if len(limits) != 1 or not any("direction=LT" in line for line in lines):
        raise ValueError(f"expected one limit and a comparison LT in the loop condition {name}")
    return limits[0]


def _add(found: dict[str, Traffic], kind: str, one: Traffic, times: int) -> None:
    before = found.get(kind, Traffic(0, 0))
    found[kind] = Traffic(before.times + times * one.times, before.bytes + times * one.bytes)
