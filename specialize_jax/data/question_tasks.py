"""Questions as seqio tasks: functions in, a registered task out. Knows no set and no scorer.

Features of a row: `inputs` and `targets` (ids, ended), the texts they are from as
`inputs_pretokenized` and `targets_pretokenized`, and the strings of `Gold`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import seqio
import tensorflow as tf


class Gold(NamedTuple):
    """What a prediction is compared with.

    Attributes:
      question_id: of the question.
      answer: as the set gives it.
      kind: of `answers.KINDS`.
    """

    question_id: str
    answer: str
    kind: str


Metrics = Callable[[Sequence[Gold], Sequence[str]], Mapping[str, float]]
"""(gold answers, predictions) -> name -> value."""


class Row(NamedTuple):
    """A question as a task gives it.

    Attributes:
      inputs: the prompt.
      targets: what a right answer looks like.
      gold: what predictions are compared with.
    """

    inputs: str
    targets: str
    gold: Gold


def add(
    name: str,
    rows: Callable[[str], Sequence[Row]],
    metrics: Metrics,
    *,
    splits: Sequence[str],
    vocabulary: seqio.Vocabulary,
) -> None:
    """Registers a task; nothing is read before it is used.

    Args:
      name: of the task.
      rows: split -> its rows, in their order.
      metrics: scores predictions.
      splits: those that `rows` takes.
      vocabulary: of inputs and targets.
    """

    def metric(targets: Sequence[Gold], predictions: Sequence[str]) -> dict[str, float]:
        return dict(metrics(targets, predictions))

    feature = seqio.Feature(vocabulary, add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: _dataset(rows(split)), splits=splits
        ),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": feature, "targets": feature},
        postprocess_fn=_postprocess,
        metric_fns=[metric],
    )


def _dataset(rows: Sequence[Row]) -> tf.data.Dataset:
    columns = {
        "inputs": [row.inputs for row in rows],
        "targets": [row.targets for row in rows],
        **{name: [getattr(row.gold, name) for row in rows] for name in Gold._fields},
    }
    return tf.data.Dataset.from_tensor_slices(
        {name: tf.constant(values, tf.string) for name, values in columns.items()}
    )


def _postprocess(text: str, *, example: Mapping[str, Any], is_target: bool = False) -> str | Gold:
    """Returns a prediction as it is; for a target, whose text says too little, its gold answer."""
    return Gold(*(example[name].decode() for name in Gold._fields)) if is_target else text
