"""What a compiled program moves between chips, read from its text.

XLA's own cost analysis counts the body of a loop once. Here a loop's body counts as often as its
counter, which starts at 0, can be raised before it meets the condition's limit: a scan over 24
layers moves 24 times what a layer moves, and a loop that was unrolled counts by twos.

Fully sharded parameters are rarely seen as "all-gather": where a product can begin with a part of
a matrix, the compiler passes the parts around a ring beside the product, and says
"collective-permute". Their bytes are those of the gather they stand for.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BETWEEN_SLICES = "between-slices"
"""What comes from other slices over the data centre's network; on TPUs a host passes it on."""

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>[\w.\-]+) \(")
_OPERATION = re.compile(rf" = (?P<shape>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_INSTRUCTION = re.compile(
    r"^\s*(?P<root>ROOT )?%(?P<name>[\w.\-]+) = .*? "
    r"(?P<operation>[a-z][\w\-]*)\((?P<operands>[^)]*)\)"
)
_FROM_SLICES = re.compile(r" = (?P<shape>.*?) recv\(.*xla_megascale")
# A TPU runs a long collective in steps, beside other work: each step names the whole collective.
# The first is called async-collective-start; these are the others.
_LATER_STEP = re.compile(r"^\s*%async-collective-done|calls=%async_collective_fusion")
_WHILE = re.compile(r" while\(.*condition=%(?P<condition>[\w.\-]+), body=%(?P<body>[\w.\-]+)")
_CALLS = re.compile(r"(?:calls|to_apply)=%(?P<name>[\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{(?P<names>[^}]*)\}")
_PLACE = re.compile(r" get-tuple-element\([^)]*\), index=(?P<index>\d+)")
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


def collectives(text: str, *, open_ended: int | None = None) -> dict[str, Traffic]:
    """Sums the collectives of a compiled program, loops by their trip counts.

    An all-reduce whose result is cut at once into each chip's part (TPU's fused
    all-reduce-scatter) counts as a reduce-scatter.

    Args:
      text: `compiled.as_text()`.
      open_ended: runs of the body of a loop that may end before its counter meets the limit, as
        decoding does when all rows have ended; None for the limit.

    Returns:
      Kind -> traffic, of `KINDS` and `BETWEEN_SLICES`; kinds that do not occur are left out.

    Raises:
      ValueError: the text has no entry computation, or a loop whose trip count it does not tell.
    """
    computations, entry = _computations(text)
    if entry is None:
        raise ValueError("expected the text of a compiled program, got one without an ENTRY")
    totals: dict[str, Traffic] = {}
    for name, times in _runs(computations, entry, open_ended).items():
        for line in computations.get(name, ()):
            if (own := _own(line, name)) is not None:
                kind, size = own
                before = totals.get(kind, Traffic(0, 0))
                totals[kind] = Traffic(before.times + times, before.bytes + times * size)
    return dict(sorted(totals.items()))


def _runs(computations: dict[str, list[str]], entry: str, open_ended: int | None) -> dict[str, int]:
    """Returns how often each computation runs in one run of the entry."""
    found = {entry: 1}
    # In a program's text a computation stands before those that call it.
    for name in reversed(computations):
        for line in computations[name] if name in found else ():
            for other, times in _callees(line, computations, open_ended):
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
    if received := _FROM_SLICES.search(line):
        return BETWEEN_SLICES, max(_size(array) for array in _ARRAY.finditer(received["shape"]))
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


def _callees(
    line: str, computations: Mapping[str, Sequence[str]], open_ended: int | None
) -> Iterator[tuple[str, int]]:
    if loop := _WHILE.search(line):
        times, can_end_early = _trips(
            loop["condition"], computations[loop["condition"]], computations[loop["body"]]
        )
        times = open_ended if can_end_early and open_ended is not None else times
        yield loop["body"], times
        yield loop["condition"], times + 1
    elif branches := _BRANCHES.search(line):
        yield from ((name.strip(" %"), 1) for name in branches["names"].split(","))
    elif (call := _CALLS.search(line)) and not _LATER_STEP.search(line):
        yield call["name"], 1


class _Instruction(NamedTuple):
    operation: str
    operands: tuple[str, ...]
    line: str


def _trips(name: str, condition: Sequence[str], body: Sequence[str]) -> tuple[int, bool]:
    """Returns how often a loop runs at most, and whether it may end before.

    Raises:
      ValueError: the counter, its limit or its step cannot be told.
    """
    tests, steps = _instructions(condition), _instructions(body)
    compared = [one for name, one in tests.items() if "direction=LT" in one.line and name != "ROOT"]
    try:
        (test,) = compared
        counter, limit = (_origin(tests, operand) for operand in test.operands)
        place = _place(counter)
        step = _step(steps, steps["ROOT"].operands[place], place)
        trips = -(-int(limit.operands[0]) // step)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"expected a counter, one limit, a comparison LT and a constant step in the loop of "
            f"condition {name}, got {[one.line.strip()[:200] for one in compared]}"
        ) from error
    return trips, tests["ROOT"] is not test


def _instructions(lines: Sequence[str]) -> dict[str, _Instruction]:
    """Returns a computation's instructions by name, the last one also as "ROOT"."""
    found = {}
    for line in lines:
        if one := _INSTRUCTION.match(line):
            # A constant's operand is its value.
            operands = re.findall(r"%?([\w.\-]+)", re.sub(r"/\*.*?\*/", "", one["operands"]))
            found[one["name"]] = _Instruction(one["operation"], tuple(operands), line)
            if one["root"]:
                found["ROOT"] = found[one["name"]]
    return found


def _origin(instructions: Mapping[str, _Instruction], name: str) -> _Instruction:
    while (one := instructions[name]).operation in ("copy", "bitcast"):
        name = one.operands[0]
    return one


def _step(instructions: Mapping[str, _Instruction], name: str, place: int) -> int:
    """Returns what is added, in one run of the body, to entry `place` of what it carries."""
    one = _origin(instructions, name)
    if one.operation == "add":
        parts = sorted(one.operands, key=lambda part: instructions[part].operation == "constant")
        rest, constant = parts
        return _step(instructions, rest, place) + int(instructions[constant].operands[0])
    if _place(one) != place:
        raise ValueError(f"expected the counter itself, got {one.line.strip()[:200]}")
    return 0


def _place(one: _Instruction) -> int:
    """Returns which entry of what a loop carries an instruction takes."""
    if (found := _PLACE.search(one.line)) is None:
        raise ValueError(f"expected an entry of what the loop carries, got {one.operation}")
    return int(found["index"])
