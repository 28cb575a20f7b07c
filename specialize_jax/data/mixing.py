"""A seqio mixture as a stream of examples, and the stream as a packed folder."""

import collections
import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from specialize_jax.data import packed, packing
from specialize_jax.data.packing import Example, Lengths
from specialize_jax.schemas import Format, SparseTargets, batches, folders

# TensorFlow serves the text pipeline alone; an accelerator is JAX's.
tf.config.set_visible_devices([], "GPU")

_ID = "example_id"
_FEATURES = (
    *("inputs", "targets", "targets_soft_ids", "targets_soft_logprobs"),
    *("targets_soft_tail_logprob", "targets_soft_kind", "targets_format"),
)
OnTooLong = Literal["drop", "truncate", "error"]
Progress = Callable[[int], None]


def find(name: str) -> seqio.Mixture | seqio.Task:
    """Returns a registered mixture or task.

    Raises:
      ValueError: nothing of that name is registered.
    """
    try:
        return seqio.get_mixture_or_task(name)
    except ValueError as error:
        names = sorted({*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()})
        raise ValueError(
            f"unknown mixture or task '{name}'; choices: {', '.join(names) or 'none registered'}"
        ) from error


def epoch_size(provider: seqio.Mixture | seqio.Task, split: str) -> int:
    """Returns the number of examples in which the largest task is seen about once."""
    if isinstance(provider, seqio.Task):
        return provider.num_input_examples(split)
    sizes = [(task.num_input_examples(split), provider.get_rate(task)) for task in provider.tasks]
    size, rate = max(sizes)
    return math.ceil(size * sum(rate for _, rate in sizes) / rate)


def examples(
    provider: seqio.Mixture | seqio.Task, split: str, *, seed: int, count: int, shuffle: bool
) -> Generator[Example]:
    """Yields `count` examples, a pure function of the arguments; nothing is cut."""
    dataset = _dataset(
        provider,
        split=split,
        shuffle=shuffle,
        seed=seed,
        num_epochs=None,
        trim_output_features=False,
        try_in_mem_cache=False,
    )
    options = tf.data.Options()
    options.deterministic = True
    try:
        for row in dataset.with_options(options).take(count).as_numpy_iterator():
            yield _example(row)
    except tf.errors.OpError as error:
        raise ValueError(f"mixture '{provider.name}': {error.message}") from None


def _dataset(provider: seqio.Mixture | seqio.Task, **options: Any) -> tf.data.Dataset:
    """Returns a provider's dataset; one of a mixture keeps its tasks' example ids if all have them.

    A mixture drops what is no output feature unless told, and cannot mix tasks that keep others.
    """
    if isinstance(provider, seqio.Mixture):
        with contextlib.suppress(TypeError):
            return provider.get_dataset(None, passthrough_features=[_ID], **options)
    return provider.get_dataset(None, **options)


def _id(row: dict[str, Any]) -> str | None:
    value = row.get(_ID)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


def _example(row: dict[str, np.ndarray]) -> Example:
    soft = SparseTargets(
        row["targets_soft_ids"],
        row["targets_soft_logprobs"],
        row["targets_soft_tail_logprob"],
        row["targets_soft_kind"],
        np.zeros(len(row["targets"]), np.int32),
    )
    fmt = Format(int(row["targets_format"][0]))
    return Example(row["inputs"], row["targets"], soft, fmt, _id(row))


def epoch_seed(seed: int, epoch: int) -> int:
    """Returns the seed of an epoch: seqio takes one integer."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]) & 0x7FFFFFFF


class TooLong:
    """What fits no row, counted by format and feature, and the lengths that would do.

    Attributes:
      counts: what -> examples.
      seen: examples in all.
      holds_all: the given lengths, raised to the longest example.
    """

    def __init__(self, lengths: Lengths) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.seen = 0
        self.lengths = self.holds_all = lengths

    def fits(self, example: Example) -> bool:
        """Counts an example and returns whether it fits."""
        self.seen += 1
        own = Lengths(len(example.inputs), len(example.targets))
        self.holds_all = Lengths(*map(max, self.holds_all, own))
        feature = packing.too_long(example, self.lengths)
        if feature is not None:
            self.counts[f"{example.format.label}: {feature} too long"] += 1
        return feature is None

    def error(self) -> ValueError:
        """Returns what to raise where an example must not be too long."""
        parts = ", ".join(f"{number} x {what}" for what, number in sorted(self.counts.items()))
        return ValueError(
            f"{self.counts.total()} of {self.seen} examples fit no row of TASK_FEATURE_LENGTHS = "
            f"{self.lengths._asdict()} ({parts}); {self.holds_all._asdict()} holds all of them"
        )


def fit(stream: Iterator[Example], on_too_long: OnTooLong, too_long: TooLong) -> Iterator[Example]:
    """Lets examples through that fit a row, and counts the others.

    Raises:
      ValueError: an example is too long and `on_too_long` is "error"; all of them are counted
        before.
    """
    for example in stream:
        if too_long.fits(example):
            # Where there will be an error, the rest is only measured.
            if on_too_long != "error" or not too_long.counts:
                yield example
        elif on_too_long == "truncate":
            yield packing.truncate(example, too_long.lengths)
    if on_too_long == "error" and too_long.counts:
        raise too_long.error()


def _check_features(provider: seqio.Mixture | seqio.Task) -> None:
    """Raises ValueError unless a provider says of its targets what the teacher says of them."""
    found = provider.output_features
    if missing := [name for name in _FEATURES if name not in found]:
        raise ValueError(
            f"'{provider.name}' has no output feature {', '.join(missing)}; it has "
            f"{', '.join(found)}. `data.preprocessors.format_rows` makes all of "
            f"{', '.join(_FEATURES)}; `tasks.distill.OUTPUT_FEATURES` declares them"
        )


def write_folder(
    out: epath.PathLike,
    provider: seqio.Mixture | seqio.Task,
    *,
    lengths: Lengths,
    k: int,
    vocab_size: int,
    seed: int,
    epochs: int,
    examples_per_epoch: int | None,
    on_too_long: OnTooLong,
    splits: Sequence[str] = ("train", "validation"),
    progress: Callable[[str, int], Progress] = lambda title, total: lambda n: None,
    saw: Callable[[str, Example], None] = lambda split, example: None,
    at_end: Callable[[], Mapping[str, Any]] = dict,
    **content: Any,
) -> dict[str, Any]:
    """Packs a mixture into a folder. The info file comes last: without it the folder is unfinished.

    Args:
      out: the folder.
      provider: the mixture or task.
      lengths: of a row.
      k: entries per target token.
      vocab_size: of the student.
      seed: order and exemplars are pure functions of (seed, epoch, index).
      epochs: packed epochs of the training split; the validation split has one.
      examples_per_epoch: None for `epoch_size`.
      on_too_long: what becomes of an example that fits no row: counted and dropped, counted and
        cut, or an error.
      splits: the splits to pack; empty ones are left out.
      progress: (title, number of examples) -> function to call with examples done.
      saw: called with the split and each of its examples that goes into a row.
      at_end: more for the info file, once all rows are written.
      **content: more for the info file.

    Returns:
      The info file's content.

    Raises:
      ValueError: unknown `on_too_long`, an example too long, not one that fits, or a mixture
        without soft targets.
      SchemaError: the folder cannot be written.
    """
    if on_too_long not in ("drop", "truncate", "error"):
        raise ValueError(f"unknown ON_TOO_LONG '{on_too_long}'; choices: drop, truncate, error")
    for name, number in (("PACKED_EPOCHS", epochs), ("EXAMPLES_PER_EPOCH", examples_per_epoch)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    _check_features(provider)
    folder = folders.make_folder(out)
    layout = batches.fields(lengths.inputs, lengths.targets, k, vocab_size)
    shards: list[dict[str, Any]] = []
    summaries = {}
    too_long = TooLong(lengths)
    for split in splits:
        counts = packed.Counts()
        for epoch in range(epochs if split == "train" else 1):
            total = epoch_size(provider, split)
            if split == "train" and examples_per_epoch is not None:
                total = examples_per_epoch
            if not total:
                continue
            path = folder / f"{split}-{epoch:05d}.array_record"
            stream = examples(
                provider,
                split,
                seed=epoch_seed(seed, epoch),
                count=total,
                shuffle=split == "train",
            )
            done = progress(f"{split} epoch {epoch}", total)
            # Closed here also when something fails: TensorFlow's threads, which call Python, must
            # have ended before the interpreter does.
            with contextlib.closing(stream):
                fitting = fit(_counted(stream, done), on_too_long, too_long)
                rows = packing.pack(_shown(fitting, split, saw), lengths, k)
                entry = packed.write_part(path, rows, layout, counts)
            if not entry["rows"]:
                raise ValueError(f"no example of split '{split}' fits: {too_long.error()}")
            shards.append({**entry, "split": split, "epoch": epoch})
        if counts.rows:
            summaries[split] = counts.summary(lengths)
    return packed.write_info(
        folder,
        mixture=provider.name,
        lengths=lengths._asdict(),
        k=k,
        vocab_size=vocab_size,
        seed=seed,
        epochs=epochs,
        on_too_long=on_too_long,
        too_long=dict(too_long.counts),
        lengths_that_hold_all=too_long.holds_all._asdict(),
        splits=summaries,
        **content,
        **at_end(),
        shards=shards,
    )


def _counted(stream: Iterator[Example], done: Progress) -> Iterator[Example]:
    for example in stream:
        yield example
        done(1)


def _shown(
    stream: Iterator[Example], split: str, saw: Callable[[str, Example], None]
) -> Iterator[Example]:
    for example in stream:
        saw(split, example)
        yield example
