r"""The text log of 2301.12726's code (scripts/codex_decode_gsm8k.py), read a line at a time.

    Question 0: Natalia sold clips to 48 of her friends ...
    Answer: Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    #### 72
    Model output 0:  step
    If Natalia sold 48 clips in April, ...
    The answer is 72
    Per-step decode: <<' step'>> 1.0000 <<'!'>> 0.0000 ... ||| <<'\n'>> 0.9862 ... |||
    Model output 1:  step

and four newlines behind the last output of a question. Questions, answers and outputs may have
several lines. An output was cut behind its first line with "answer is"; its steps were not. In the
steps stand Python's `repr` of each token and exp(log-probability) with four decimals: the sampled
token, then the candidates.

An output may hold anything, lines that begin with `Question 7:` among it: it ends with the line of
its steps. (The parser of that code, src/utils.py, took such a line for a question, and says so.)
"""

import ast
import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from specialize_jax.schemas import SchemaError
from specialize_jax.schemas.faults import Faults
from specialize_jax.teacher import filtering
from specialize_jax.teacher.importers import files, gold, top5

_QUESTION = re.compile(r"Question (\d+): ")
_ANSWER = "Answer: "
_OUTPUT = re.compile(r"Model output (\d+): ")
_STEPS = "Per-step decode: "
# The repr of a string, and its probability; then perhaps the end of the step.
_ENTRY = re.compile(
    r"<<('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")>> (\d+\.\d+|nan|inf) ?( ?\|\|\| ?)?"
)


class _Output(NamedTuple):
    """A model output, of which the steps are still to come."""

    lines: list[str]
    where: str


class _Block:
    """What was read of a question so far.

    Attributes:
      outputs: steps of each good output, and where it stands.
      seen: outputs that began, good or bad.
    """

    def __init__(self, index: int, text: str, where: str):
        self.index, self.where = index, where
        self.question, self.answer = [text], list[str]()
        self.outputs: list[tuple[top5.Steps, str]] = []
        self.seen = 0

    def takes(self, line: str) -> bool:
        """Takes a line of the question or its answer; returns whether it is one."""
        if self.seen:
            return not line
        if self.answer:
            self.answer.append(line)
        elif line.startswith(_ANSWER):
            self.answer.append(line.removeprefix(_ANSWER))
        else:
            self.question.append(line)
        return True


def rows(
    path: epath.PathLike, rules: filtering.Rules, *, faults: Faults | None = None
) -> Iterator[dict[str, Any] | str]:
    """Yields a row, or the reason of a drop, for every model output of a log.

    A question may stand in several places, as logs do that were begun again; its samples are
    numbered through. Chains that stand twice are dropped within one place.

    Args:
      path: the log.
      rules: what is kept.
      faults: what a bad output or question does, which counts as "bad_line"; None ends the work.

    Raises:
      SchemaError: the log is not of that form, unless `faults` skips what is bad.
    """
    bad = Faults() if faults is None else faults
    numbers: dict[int, int] = {}
    for block in _blocks(epath.Path(path)):
        try:
            if isinstance(block, SchemaError):
                raise block
            question = _asked(block)
            first = numbers.get(block.index, 0)
            numbers[block.index] = first + len(block.outputs)
            outputs = [
                (first + number, steps, where)
                for number, (steps, where) in enumerate(block.outputs)
            ]
            yield from top5.answer_rows(question, outputs, rules, bad)
        except SchemaError as error:
            bad.add(error)
            yield "bad_line"


def _asked(block: _Block) -> gold.Asked:
    question = "\n".join(block.question).strip()
    answer = "\n".join(block.answer)
    found = gold.read_gold(answer, "number", block.where)
    if not question or not found:
        raise SchemaError(
            f"{block.where}: expected a question with an answer, got {question!r:.60} and "
            f"{answer!r:.60}"
        )
    return gold.Asked(f"gsm8k/train/{block.index}", question, found, "number", block.index)


def _blocks(path: epath.Path) -> Iterator[_Block | SchemaError]:
    """Yields questions with their outputs, and what is wrong between and in them."""
    reader = _Reader()
    for where, line in files.lines(path):
        # What is no UTF-8 becomes U+FFFD, which the filter counts as lost characters.
        yield from reader.take(line.decode(errors="replace"), where)
    yield from reader.end()


class _Reader:
    """Takes lines one after another; gives questions when they are complete, and faults.

    Behind a fault between outputs nobody knows whose the next ones are: they are left out, up to
    the next question.
    """

    def __init__(self) -> None:
        self._block: _Block | None = None
        self._output: _Output | None = None
        self._told = False  # whether it was said that something belongs to no question

    def take(self, line: str, where: str) -> Iterator[_Block | SchemaError]:
        """Takes a line."""
        if self._output is not None:
            yield from self._in_output(self._output, line, where)
        elif asked := _QUESTION.match(line):
            yield from self._end_block()
            self._block, self._told = _Block(int(asked[1]), line[asked.end() :], where), False
        elif told := _OUTPUT.match(line):
            if self._block is None or int(told[1]) != self._block.seen:
                yield from self._lose(line, where)
            else:
                self._block.seen += 1
            self._output = _Output([line[told.end() :]], where)
        elif line if self._block is None else not self._block.takes(line):
            yield from self._lose(line, where)

    def end(self) -> Iterator[_Block | SchemaError]:
        """Gives what is left."""
        yield from self._end_block()
        if self._output is not None:
            yield SchemaError(
                f"{self._output.where}: the log ends within this output: expected '{_STEPS}...' "
                "behind it"
            )

    def _in_output(self, output: _Output, line: str, where: str) -> Iterator[_Block | SchemaError]:
        if not line.startswith(_STEPS):
            output.lines.append(line)
            return
        self._output = None
        if self._block is not None:
            found = _steps(line, output, where)
            if isinstance(found, SchemaError):
                yield found
            else:
                self._block.outputs.append((found, output.where))

    def _lose(self, line: str, where: str) -> Iterator[_Block | SchemaError]:
        expected = "'Question N: ...'"
        if self._block is not None:
            expected += f" or 'Model output {self._block.seen}: ...'"
        yield from self._end_block()
        if not self._told:
            yield SchemaError(f"{where}: expected {expected}, got {line[:80]!r}")
        self._told = True

    def _end_block(self) -> Iterator[_Block]:
        if self._block is not None:
            yield self._block
        self._block = None


def _steps(line: str, output: _Output, where: str) -> top5.Steps | SchemaError:
    """Returns the steps of an output, or what is wrong with them."""
    found: list[list[tuple[str, float]]] = []
    step: list[tuple[str, float]] = []
    at = len(_STEPS)
    while entry := _ENTRY.match(line, at):
        try:
            step.append((_string(entry[1]), float(entry[2])))
        except (SyntaxError, ValueError):  # an escape that Python does not write
            break
        at = entry.end()
        if entry[3]:
            found.append(step)
            step = []
    if line[at:].strip() or step:
        return SchemaError(
            f"{where}: expected \"<<'token'>> 0.1234\" and '|||' behind each step, got "
            f"{line[at : at + 60]!r} in column {at + 1}"
        )
    text = "\n".join(output.lines)
    told = "".join(step[0][0] for step in found)
    # Tokens that are not UTF-8 by themselves are shown as escapes, which the text has not.
    if "bytes:" not in told and not told.startswith(text):
        return SchemaError(
            f"{output.where}: expected the steps to write this output, got {told[:60]!r}"
        )
    return found


@functools.lru_cache(2**17)  # a teacher says few tokens, each again and again
def _string(shown: str) -> str:
    return ast.literal_eval(shown)
