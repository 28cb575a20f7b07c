"""From rows of `sources.AlignedSource` to the features of a seqio task.

| feature                                                              | shape     |
|----------------------------------------------------------------------|-----------|
| `inputs`, `targets`                                                  | [n], [m]  |
| `targets_soft_ids`, `targets_soft_logprobs`                          | [m, K]    |
| `targets_soft_tail_logprob`, `targets_soft_kind`, `targets_format`   | [m]       |

`targets` and what describes them are never cut or changed here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from specialize_jax.data import formats, packing
from specialize_jax.data.corpus import Corpus
from specialize_jax.schemas import Format, Kind, Reason, SparseTargets

Encode = Callable[[str], list[int]]
Preprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]


def build_example(
    row: Mapping[str, Any],
    fmt: Format,
    *,
    corpus: Corpus,
    encode: Encode,
    eos_id: int,
    seed: tuple[int, ...],
) -> packing.Example:
    """Builds one example of a format from an aligned row: plain Python.

    Args:
      row: of `sources.AlignedSource`, strings as str.
      fmt: the format.
      corpus: gives the exemplars and K.
      encode: text -> ids, without end of sequence.
      eos_id: appended to the inputs, as T5 does, and to answer-only targets.
      seed: of the exemplars.
    """
    exemplars = []
    if fmt.is_in_context:
        drawn = formats.draw_exemplars(
            len(corpus.pool), seed=seed, exclude=row["pool_index"], count=corpus.num_exemplars
        )
        exemplars = [corpus.pool[index] for index in drawn]
    inputs = encode(formats.render_inputs(fmt, row["question"], exemplars)) + [eos_id]
    if fmt.is_chain_of_thought:
        targets = np.asarray(row["targets"], np.int32)
        soft = SparseTargets(*(row[f"soft_{name}"] for name in SparseTargets._fields))
    else:
        text = formats.render_target(fmt, row["chain"], row["answer"])
        targets = np.asarray([*encode(text), eos_id], np.int32)
        soft = packing.one_hot(targets, corpus.k, Kind.ANSWER_ONLY, Reason.ANSWER_ONLY)
    return packing.Example(np.asarray(inputs, np.int32), targets, soft, fmt)


def format_rows(
    fmt: Format, *, corpus: Callable[[], Corpus], vocabulary: Callable[[], seqio.Vocabulary]
) -> Preprocessor:
    """Returns a preprocessor that turns aligned rows into examples of one format.

    Exemplars depend on seqio's seed for the row alone, which is a function of the run's seed and
    the row's place in the epoch.
    """

    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        words = vocabulary()
        if fmt.is_in_context:  # said here and not by a thread of TensorFlow's
            formats.draw_exemplars(
                len(corpus().pool), seed=(0,), exclude=0, count=corpus().num_exemplars
            )
        names = list(dataset.element_spec)

        def build(seed: np.ndarray, *values: Any) -> tuple[np.ndarray, ...]:
            row = {
                name: value.decode() if isinstance(value, bytes) else value
                for name, value in zip(names, values, strict=True)
            }
            example = build_example(
                row,
                fmt,
                corpus=corpus(),
                encode=words.encode,
                eos_id=words.eos_id,
                seed=tuple(int(part) & 0xFFFFFFFF for part in seed),
            )
            whole = np.full(len(example.targets), fmt, np.int32)
            soft = example.soft
            return (
                example.inputs,
                example.targets,
                soft.ids.astype(np.int32),
                soft.logprobs.astype(np.float32),
                soft.tail_logprob.astype(np.float32),
                soft.kind.astype(np.int32),
                whole,
            )

        features: dict[str, tuple[tf.DType, list[int | None]]] = {
            "inputs": (tf.int32, [None]),
            "targets": (tf.int32, [None]),
            "targets_soft_ids": (tf.int32, [None, corpus().k]),
            "targets_soft_logprobs": (tf.float32, [None, corpus().k]),
            "targets_soft_tail_logprob": (tf.float32, [None]),
            "targets_soft_kind": (tf.int32, [None]),
            "targets_format": (tf.int32, [None]),
        }

        @seqio.map_over_dataset(num_seeds=1)
        def convert(row: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
            values = tf.numpy_function(
                build, [seed, *row.values()], [dtype for dtype, _ in features.values()]
            )
            return {
                name: tf.ensure_shape(value, shape)
                for value, (name, (_, shape)) in zip(values, features.items(), strict=True)
            } | {"example_id": row["example_id"]}

        return convert(dataset)

    return preprocess
