"""seqio's feature converter for encoder-decoder students, carrying the soft targets.

One example a row, padded: the dull form that `packing` is tested against, and the one that other
seqio programs (t5x) can use. Packed rows come from `packing`: seqio's packer cannot carry these
features (it takes lengths from non-zeros, casts to int32 and refuses rank 2).
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf

from specialize_jax.schemas import UNUSED_LOGPROB

_SPEC = seqio.FeatureConverter.FeatureSpec
# task feature -> (model feature, rank)
_SOFT_FEATURES = {
    "targets_soft_ids": ("decoder_soft_ids", tf.int32, 2),
    "targets_soft_logprobs": ("decoder_soft_logprobs", tf.float32, 2),
    "targets_soft_tail_logprob": ("decoder_soft_tail_logprob", tf.float32, 1),
    "targets_soft_kind": ("decoder_soft_kind", tf.int32, 1),
    "targets_format": ("decoder_format", tf.int32, 1),
}


def with_soft_lengths(lengths: Mapping[str, int]) -> dict[str, int]:
    """Returns `task_feature_lengths` of the converter from those of `inputs` and `targets`."""
    return {**lengths, **dict.fromkeys(_SOFT_FEATURES, lengths["targets"])}


class DistillationEncDecConverter(seqio.EncDecFeatureConverter):
    """`EncDecFeatureConverter` with `decoder_soft_*` and `decoder_format`.

    Its `task_feature_lengths` name every feature; `with_soft_lengths` adds those of the soft
    targets, which are as long as the targets.
    """

    TASK_FEATURES = {
        **seqio.EncDecFeatureConverter.TASK_FEATURES,
        **{name: _SPEC(dtype=spec[1], rank=spec[2]) for name, spec in _SOFT_FEATURES.items()},
    }
    MODEL_FEATURES = {
        **seqio.EncDecFeatureConverter.MODEL_FEATURES,
        **{name: _SPEC(dtype=dtype, rank=rank) for name, dtype, rank in _SOFT_FEATURES.values()},
    }

    def __init__(self, pack: bool = False, use_custom_packing_ops: bool = False):
        """Creates the converter.

        Args:
          pack: must be False.
          use_custom_packing_ops: how seqio would pack; t5x gives it always.

        Raises:
          ValueError: packing is asked for.
        """
        if pack:
            raise ValueError(
                "seqio's packer cannot carry soft targets (non-zeros as lengths, int32, rank 1); "
                "use `specialize-jax pack` or `specialize_jax.data.packing`, or pack=False"
            )
        super().__init__(pack=False, use_custom_packing_ops=use_custom_packing_ops)

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        converted = dict(super()._convert_example(features))
        padding = features["targets_soft_kind"] == 0
        for name, (model_name, dtype, rank) in _SOFT_FEATURES.items():
            value = features[name]
            if dtype == tf.float32:
                # seqio pads with 0, which is the logarithm of probability 1.
                mask = padding[:, None] if rank == 2 else padding
                value = tf.where(mask, UNUSED_LOGPROB, value)
            converted[model_name] = value
        return converted

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        """Returns the length of every model feature."""
        lengths = dict(super().get_model_feature_lengths(task_feature_lengths))
        for model_name, _, _ in _SOFT_FEATURES.values():
            lengths[model_name] = task_feature_lengths["targets"]
        return lengths
