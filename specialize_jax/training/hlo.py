"""What a compiled program moves between chips, read from its text.

XLA's own cost analysis counts the body of a loop once. Here a loop's body counts as often as its
condition says, so that a scan over 24 layers moves 24 times what a layer moves.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>[\w.\-]+) \(")
_OPERATION = re.compile(rf" = (?P<shape>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_CHANNEL = re.compile(r"channel_id=(?P<id>\d+)")
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
    # A TPU runs a long collective in steps, beside other work: instructions of one channel, some of
    # them in a loop of their own. The first and the last step run as often as the collective.
    channels: dict[tuple[str, str], Traffic] = {}
    for name, times in _runs(computations, entry).items():
        for place, line in enumerate(computations.get(name, ())):
            if (own := _own(line, name)) is None:
                continue
            kind, size = own
            found = _CHANNEL.search(line)
            key = kind, found["id"] if found else f"{name}/{place}"
            before = channels.get(key, Traffic(times, 0))
            channels[key] = Traffic(min(before.times, times), max(before.bytes, size))
    totals: dict[str, Traffic] = {}
    for (kind, _), one in sorted(channels.items()):
        before = totals.get(kind, Traffic(0, 0))
        totals[kind] = Traffic(before.times + one.times, before.bytes + one.times * one.bytes)
    return totals


def _runs(computations: dict[str, list[str]], entry: str) -> dict[str, int]:
    """Returns how often each computation runs in one run of the entry."""
    found = {entry: 1}
    # In a program's text a computation stands before those that call it.
    for name in reversed(computations):
        for line in computations[name] if name in found else ():
            for other, times in _callees(line, computations):
                found[other] = found.get(other, 0) + found[name] * times
    return found


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


def _own(line: str, computation: str) -> tuple[str, int] | None:
    """Returns the kind of a line's collective and the bytes of its array; None if it has none."""
    if (found := _OPERATION.search(line)) is None:
        return None
    kind = found["kind"]
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"
    # An asynchronous one names its operand and its result; the whole array is the larger.
    sizes = [_size(array) for array in _ARRAY.finditer(found["shape"])]
    return kind, max(sizes) if found["start"] else sum(sizes)


def _size(array: re.Match[str]) -> int:
    digits = re.search(r"\d+", array["dtype"])
    bits = _BITS.get(array["dtype"]) or int(digits[0] if digits else 0)
    return math.prod(map(int, filter(None, array["dims"].split(",")))) * bits // 8


def _callees(line: str, computations: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, int]]:
    if loop := _WHILE.search(line):
        yield loop["body"], _trips(loop["condition"], computations[loop["condition"]])
    elif branches := _BRANCHES.search(line):
        yield from ((name.strip(" %"), 1) for name in branches["names"].split(","))
    elif call := _CALLS.search(line):
        yield call["name"], 1


def _trips(name: str, lines: Sequence[str]) -> int:
    """Returns the limit that a loop's counter, which starts at 0, is compared with."""
    limits = [int(found["limit"]) for line in lines if (found := _LIMIT.search(line))]
    if len(limits) != 1 or not any("direction=LT" in line for line in lines):
        raise ValueError(f"expected one limit and a comparison LT in the loop condition {name}")
    return limits[0]
