"""Chains that others wrote, a row each, become rows of teacher records; text alone.

All chains of a question are brought together, so that one that stands twice is found and samples
are numbered; a file is read into memory for that.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from specialize_jax.schemas import SchemaError
from specialize_jax.schemas.faults import Faults
from specialize_jax.teacher import filtering, wire
from specialize_jax.teacher.importers import fields as fields_of
from specialize_jax.teacher.importers import files, gold
from specialize_jax.teacher.importers.fields import Fields


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file is read.

    Attributes:
      fields: which field is what.
      kind: of the answers, where no field says it.
      mark: before the final answer of a worked solution or a gold answer.
      stem: before the ids of questions; None for none, and for the file's name before the numbers
        that questions without an id get.
    """

    fields: Fields
    kind: str = "number"
    mark: str = gold.MARK
    stem: str | None = None


@dataclasses.dataclass
class _Group:
    """A question and all chains that answer it."""

    question: gold.Asked
    prompt: str
    chains: list[str]


def rows(
    path: epath.PathLike,
    layout: Layout,
    rules: filtering.Rules,
    *,
    questions: Sequence[gold.Asked] | None = None,
    faults: Faults | None = None,
) -> Iterator[dict[str, Any] | str]:
    """Yields a row, or the reason of a drop, for every chain of a file.

    Args:
      path: as `files.read`.
      layout: how it is read.
      rules: what is kept.
      questions: where questions and gold answers come from, found by their id (where the layout
        names a field) or by their text; None for the file's own.
      faults: what a bad row does, which counts as "bad_line"; None ends the work.

    Raises:
      SchemaError: a row is bad, unless `faults` skips it; or the file as a whole.
    """
    found = _Groups(layout, questions, str(layout.stem or epath.Path(path).stem))
    bad = Faults() if faults is None else faults
    for number, (where, row) in enumerate(files.read(path)):
        try:
            if isinstance(row, SchemaError):
                raise row
            found.add(row, where, number)
        except SchemaError as error:
            bad.add(error)
            yield "bad_line"
    for group in found.groups.values():
        choices = (wire.Choice(chain, "stop", None) for chain in group.chains)
        yield from filtering.rows(
            group.question, group.prompt, enumerate(choices), rules, top_logprobs=0
        )


class _Groups:
    """Questions in the order in which they first come, with their chains."""

    def __init__(self, layout: Layout, questions: Sequence[gold.Asked] | None, stem: str):
        self._layout, self._stem = layout, stem
        self._given: dict[str, gold.Asked] | None = None
        if questions is not None:
            by_id = layout.fields.id is not None
            self._given = {
                (asked.id if by_id else asked.question): asked._replace(id=self._id(asked.id))
                for asked in questions
            }
        self.groups: dict[str, _Group] = {}

    def add(self, row: dict[str, Any], where: str, number: int) -> None:
        """Adds the chains of a row; nothing of it where it is bad."""
        layout = self._layout
        chains = fields_of.chains(row, layout.fields, where, mark=layout.mark)
        asked, system = self._asked(row, where, number)
        key = asked.id if layout.fields.id is not None else asked.question
        group = self.groups.setdefault(key, _Group(asked, system, []))
        same = asked._replace(id=group.question.id, row=group.question.row)
        for name, here, there in zip(asked._fields, same, group.question, strict=True):
            if here != there:
                raise SchemaError(
                    f"{where}: '{group.question.id}' stood before with {name} {there!r:.80}, here "
                    f"with {here!r:.80}"
                )
        group.chains += chains

    def _id(self, id_: str | int) -> str:
        return str(id_) if self._layout.stem is None else f"{self._layout.stem}/{id_}"

    def _asked(self, row: dict[str, Any], where: str, number: int) -> tuple[gold.Asked, str]:
        """Returns the question of a row and the system's message before it."""
        fields = self._layout.fields
        id_ = None if fields.id is None else fields_of.get(row, fields.id)
        if fields.id is not None and not isinstance(id_, str | int):
            raise SchemaError(
                f"{where}: expected a text or a number '{fields.id}', got {id_!r:.80}"
            )
        if self._given is None:
            text, system = fields_of.question(row, fields, where)
            kind = fields_of.kind(row, fields, self._layout.kind, where)
            value = None if fields.gold is None else fields_of.get(row, fields.gold)
            answer = gold.read_gold(value, kind, f"{where}: '{fields.gold}'", self._layout.mark)
            name = f"{self._stem}/{number}" if id_ is None else self._id(id_)
            return gold.Asked(name, text, answer, kind, number), system
        key, system = (str(id_), "") if id_ is not None else fields_of.question(row, fields, where)
        if key not in self._given:
            raise SchemaError(
                f"{where}: expected one of the {len(self._given)} questions of --questions, got "
                f"{key!r:.80}"
            )
        return self._given[key], system
