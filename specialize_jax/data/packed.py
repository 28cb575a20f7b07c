"""Packed rows on disk, read at random by index; no TensorFlow.

A folder holds ArrayRecord parts (https://github.com/google/array_record), one per split and epoch,
and `packed_info.json`: field lengths, `k`, seed, what each split holds, formats and fill rates.
Beside a part whose tasks name their examples lies `<part>.examples.jsonl`: a line for each row, a
list of the ids of its examples. It is for people: training does not read it.

The order in which rows are read is a pure function of (seed, epoch, index): the data state of a run
is those three numbers, whatever the number of hosts. An epoch of training reads one packed epoch;
after the last one the first comes again, in another order.
"""

import collections
import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from array_record.python import array_record_module
from etils import epath
from grain import sources

from specialize_jax.data import local_copies
from specialize_jax.data.packing import EXAMPLE_IDS, Lengths, Row
from specialize_jax.schemas import Kind, SchemaError, batches, folders


class Counts:
    """What a split holds, counted while it is written."""

    def __init__(self) -> None:
        self.rows = 0
        self.examples: collections.Counter[str] = collections.Counter()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.encoder_tokens = 0
        self.decoder_tokens = 0

    def add(self, row: Row) -> None:
        """Counts one row."""
        self.rows += 1
        segments = row["decoder_segment_ids"]
        for fmt in batches.row_formats(row):
            self.examples[fmt.label] += 1
        for kind in (Kind.TRANSFERRED, Kind.ONE_HOT, Kind.ANSWER_ONLY):
            self.kinds[kind.name.lower()] += int((row["decoder_soft_kind"] == kind).sum())
        self.encoder_tokens += int((row["encoder_segment_ids"] > 0).sum())
        self.decoder_tokens += int((segments > 0).sum())

    def summary(self, lengths: Lengths) -> dict[str, Any]:
        """Returns the numbers for the info file; fill rates and coverage are shares in [0, 1]."""
        chain = self.kinds["transferred"] + self.kinds["one_hot"]
        return {
            "rows": self.rows,
            "examples": self.examples.total(),
            "formats": dict(sorted(self.examples.items())),
            "kinds": dict(self.kinds),
            "encoder_tokens": self.encoder_tokens,
            "decoder_tokens": self.decoder_tokens,
            "encoder_fill": self.encoder_tokens / max(self.rows * lengths.inputs, 1),
            "decoder_fill": self.decoder_tokens / max(self.rows * lengths.targets, 1),
            "coverage": self.kinds["transferred"] / max(chain, 1),
        }


def write_part(
    path: epath.PathLike, rows: Iterable[Row], layout: dict[str, batches.Field], counts: Counts
) -> dict[str, Any]:
    """Writes rows as one ArrayRecord file, renamed when whole, and counts them.

    Returns:
      The part's entry for the info file; under "examples" that of the file with the ids, which is
      there where all rows have them.
    """
    path = epath.Path(path)
    before = counts.rows
    ids: list[list[str] | None] = []
    with local_copies.written(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1,zstd:3")
        with contextlib.closing(writer):
            for row in rows:
                writer.write(batches.encode_row(row, layout))
                counts.add(row)
                ids.append(row[EXAMPLE_IDS].tolist() if EXAMPLE_IDS in row else None)
        entry = folders.part_entry(temporary, counts.rows - before)
    entry["file"] = path.name
    if None not in ids:
        beside = path.parent / f"{path.stem}.examples.jsonl"
        text = "".join(json.dumps(names) + "\n" for names in ids)
        folders.write_bytes(beside, text.encode())
        entry["examples"] = folders.part_entry(beside, len(ids))
    return entry


class PackedRows:
    """The rows of one split of a packed folder, by index.

    Attributes:
      info: the parsed `packed_info.json`.
      layout: the fields of a batch.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        split: str,
        *,
        batch_rows: int,
        seed: int = 0,
    ):
        """Opens a split.

        Args:
          folder: a folder that `specialize-jax pack` wrote; what lies in a bucket is copied here,
            see `local_copies`.
          split: "train" or "validation".
          batch_rows: rows of the global batch.
          seed: of the order.

        Raises:
          SchemaError: the folder is unfinished, of another version, or a part is changed or cut;
            or the split is unknown or empty.
        """
        self.info = folders.read_info(folder, batches.NAME)
        self.layout = layout_of(self.info)
        self.seed, self.batch_rows = seed, batch_rows
        splits = sorted({entry["split"] for entry in self.info["shards"]})
        entries = [entry for entry in self.info["shards"] if entry["split"] == split]
        if not entries:
            raise SchemaError(f"'{folder}' has no split '{split}'; choices: {', '.join(splits)}")
        self._names: dict[int, list[list[str]]] = {}
        self._folder, self._entries = epath.Path(folder), entries
        paths = [local_copies.checked(folder, entry) for entry in entries]
        self._epochs = [sources.ArrayRecordDataSource([str(path)]) for path in paths]
        self._sizes = np.array([len(epoch) for epoch in self._epochs])
        if not self._sizes.all():
            raise SchemaError(f"'{folder}': split '{split}' has an empty epoch: {self._sizes}")

    @property
    def digest(self) -> str:
        """Identifies the rows of the folder: a hash of the hashes of its parts."""
        parts = sorted(entry["sha256"] for entry in self.info["shards"])
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """Returns the number of rows of all packed epochs together."""
        return int(self._sizes.sum())

    def locate(self, index: int) -> tuple[int, int]:
        """Returns the epoch of a global row index (0, 1, ... for ever), and the place within it."""
        cycles, rest = divmod(index, len(self))
        within = int(np.searchsorted(np.cumsum(self._sizes), rest, side="right"))
        place = rest - int(self._sizes[:within].sum())
        return cycles * len(self._sizes) + within, place

    def data_state(self, index: int) -> dict[str, int]:
        """Returns the data state before the row with this global index."""
        return {"seed": self.seed, "epoch": self.locate(index)[0], "index": index}

    def batch(self, indices: Iterable[int]) -> dict[str, np.ndarray]:
        """Returns the rows with these global indices as a batch (`schemas.batches`)."""
        places = (self._stored(index) for index in indices)
        return batches.decode_rows([self._epochs[part][row] for part, row in places], self.layout)

    def describe(self, index: int) -> list[str]:
        """Names the examples of the row with this global index to a person.

        Returns:
          For each, its id and format; its place, where the folder has no ids.

        Raises:
          SchemaError: the file of the ids is missing, changed or cut.
        """
        formats = batches.row_formats(batches.row_at(self.batch([index]), 0))
        names = self.example_ids(index)
        if names is None:
            part, row = self._stored(index)
            where = f"of row {row} of {self._entries[part]['file']}"
            names = [f"example {number} {where}" for number in range(len(formats))]
        return [f"{name} ({fmt.label})" for name, fmt in zip(names, formats, strict=True)]

    def example_ids(self, index: int) -> list[str] | None:
        """Returns the ids of the examples of the row with this global index; None without ids.

        Raises:
          SchemaError: the file of the ids is missing, changed or cut.
        """
        part, row = self._stored(index)
        ids = self._ids(part)
        return None if ids is None else ids[row]

    def _stored(self, index: int) -> tuple[int, int]:
        """Returns in which part the row with a global index is stored, and its place there."""
        epoch, place = self.locate(index)
        part = epoch % len(self._epochs)
        return part, int(_order(self.seed, epoch, len(self._epochs[part]))[place])

    def _ids(self, part: int) -> list[list[str]] | None:
        """Returns the ids of each row of a part, checked and read when first asked for."""
        entry = self._entries[part].get("examples")
        if entry is not None and part not in self._names:
            path = self._folder / entry["file"]
            folders.check_hash(path, entry)
            lines = path.read_text().split("\n")[:-1]
            self._names[part] = [json.loads(line) for line in lines]
        return self._names.get(part)

    def batches_from(
        self, start: int, *, rows: Iterable[int] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches for ever, from the row with global index `start`.

        Args:
          start: global index of a batch's first row.
          rows: which rows of each global batch, as its host holds them; None for all.
        """
        rows = range(self.batch_rows) if rows is None else list(rows)
        while True:
            yield self.batch(start + int(row) for row in rows)
            start += self.batch_rows

    def in_order(self, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Yields the first packed epoch once, unshuffled; the last batch is padded with empty rows.

        Args:
          limit: at most this many batches.
        """
        rows = self._epochs[0]
        starts = range(0, len(rows), self.batch_rows)[:limit]
        for start in starts:
            records = [rows[i] for i in range(start, min(start + self.batch_rows, len(rows)))]
            batch = batches.decode_rows(records, self.layout)
            missing = self.batch_rows - len(records)
            yield {name: _pad_rows(value, missing) for name, value in batch.items()}


def _pad_rows(value: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the permutation in which the rows of an epoch are read."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(size)


def layout_of(info: dict[str, Any]) -> dict[str, batches.Field]:
    """Returns the fields of the rows that an info file describes."""
    lengths = info["lengths"]
    return batches.fields(lengths["inputs"], lengths["targets"], info["k"], info["vocab_size"])


def write_info(folder: epath.PathLike, **content: Any) -> dict[str, Any]:
    """Writes `packed_info.json`, which makes the folder a finished one."""
    info = {"schema": batches.NAME, "version": folders.VERSION, **content}
    folders.write_json(epath.Path(folder) / folders.INFO_FILES[batches.NAME], info)
    return info
