"""Aligned folders as a seqio data source.

A row of the source: `example_id`, `question`, `answer`, `chain` (strings), `pool_index` (place of
the question among the exemplars, -1 if it is not there), `targets` [S] int32, `soft_ids`,
`soft_logprobs` [S, K], `soft_tail_logprob`, `soft_kind`, `soft_reason` [S].
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from specialize_jax.data.corpus import SPLITS, Corpus


class AlignedSource(seqio.DataSource):
    """Rows of a corpus, read when first used (so that a task can be registered before).

    Shuffling is a permutation of all rows, a function of the seed; no buffer is needed after it.
    """

    def __init__(self, corpus: Callable[[], Corpus], *, first_sample_only: bool = False):
        """Creates the source.

        Args:
          corpus: gives the corpus.
          first_sample_only: one row per question, as the answer-only formats have it.
        """
        self._corpus = corpus
        self._first_sample_only = first_sample_only
        super().__init__(SPLITS, caching_permitted=False, performs_internal_shuffling=True)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Shards are taken row by row, by seqio."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns one shard: the corpus is in memory."""
        return [split]

    def select(self, split: str) -> list[dict[str, Any]]:
        """Returns the rows of a split that this source gives."""
        rows = self._corpus().rows[split]
        if self._first_sample_only:
            # Without a gold answer there is nothing that an answer-only target could say.
            known = (row for row in reversed(rows) if row["gold_answer"] is not None)
            rows = list({row["example_id"]: row for row in known}.values())[::-1]
        return rows

    def num_input_examples(self, split: str) -> int:
        """Returns the number of rows of a split."""
        return len(self.select(split))

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        """Returns the rows of a split as a dataset; see `seqio.DataSource`."""
        if shard_info is not None and shard_info.num_shards > 1:
            raise ValueError(f"AlignedSource has one shard, got {shard_info}")
        corpus, rows = self._corpus(), self.select(split)
        order = np.arange(len(rows))
        if shuffle:
            np.random.Generator(np.random.Philox(seed)).shuffle(order)

        # By index and not from a generator: at a generator's end TensorFlow formats a traceback on
        # a thread of its own, which Python 3.11 can mistake for work of the main thread.
        columns: dict[str, tuple[tf.DType, list[int | None]]] = {
            "example_id": (tf.string, []),
            "question": (tf.string, []),
            "chain": (tf.string, []),
            "answer": (tf.string, []),
            "pool_index": (tf.int32, []),
            "targets": (tf.int32, [None]),
            "soft_ids": (tf.int32, [None, corpus.k]),
            "soft_logprobs": (tf.float32, [None, corpus.k]),
            "soft_tail_logprob": (tf.float32, [None]),
            "soft_kind": (tf.int32, [None]),
            "soft_reason": (tf.int32, [None]),
        }

        def look_up(index: np.ndarray) -> list[Any]:
            row = rows[int(index)]
            return [
                row["example_id"],
                row["question"],
                row["targets_pretokenized"],
                row["gold_answer"] or "",
                np.int32(corpus.pool_index.get(row["question"], -1)),
                row["targets"],
                *row["soft"],
            ]

        def fetch(index: tf.Tensor) -> dict[str, tf.Tensor]:
            values = tf.numpy_function(look_up, [index], [dtype for dtype, _ in columns.values()])
            return {
                name: tf.ensure_shape(value, shape)
                for value, (name, (_, shape)) in zip(values, columns.items(), strict=True)
            }

        return tf.data.Dataset.from_tensor_slices(order).map(
            fetch, num_parallel_calls=tf.data.AUTOTUNE
        )
