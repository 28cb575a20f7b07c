"""Distillation inside t5x (https://github.com/google-research/t5x), where a user has it installed.

The one file that imports t5x, which nothing else here needs. `gin/t5x/distill.gin` sets it up:

    MODEL = @t5x_adapter.DistillationModel()

t5x adds up the gradients of microbatches, and hands what the loss returns to the optimizer as it
is. So the loss is a sum over tokens divided by a constant, as t5x's own is: with
`LOSS_NORMALIZING_FACTOR` None or a number, microbatches change nothing. The named factors of t5x
('NUM_REAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE', ...) divide by a count of the microbatch at hand,
which multiplies the gradient by the number of microbatches, there as here.

Left out: z-loss and label smoothing, which our losses do not have, and packing, which seqio's
packer cannot do with soft targets.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import clu.metrics
import jax
import t5x.losses
import t5x.models

from specialize_jax import losses
from specialize_jax.data.feature_converters import DistillationEncDecConverter
from specialize_jax.losses.divergences import check_choice
from specialize_jax.schemas import SparseTargets

Batch = Mapping[str, jax.Array]
Metrics = dict[str, clu.metrics.Metric]


class DistillationModel(t5x.models.EncoderDecoderModel):
    """t5x's encoder-decoder, trained on a teacher's distributions or samples.

    Decoding and scoring are t5x's own. Batches have `decoder_soft_*`, see `schemas.batches`; the
    tasks of `tasks/distill.py` make them.

    Metrics beside those of t5x, in nats per token or shares, over all microbatches of a summary:

    - `ce_loss`: tokens scored by cross-entropy.
    - `kl_loss`: tokens scored by the divergence.
    - `coverage`: share of chain-of-thought tokens that have a teacher's distribution.

    The last two belong to `match_distribution`. A mean over no token is NaN. Under
    'AVERAGE_PER_SEQUENCE' they are weighted as the loss is.
    """

    FEATURE_CONVERTER_CLS = DistillationEncDecConverter

    def __init__(
        self,
        *args: Any,
        objective: str = "match_distribution",
        divergence: str = "forward_kl",
        tail: str = "bucket",
        temperature: float = 1.0,
        beta: float = 0.5,
        **kwargs: Any,
    ):
        """Creates the model.

        Args:
          *args: of `t5x.models.EncoderDecoderModel`.
          objective: of `losses.OBJECTIVES`.
          divergence: of `losses.DIVERGENCES`; see `losses.Rule` for these four, which
            `match_sample` does not use.
          tail: of `losses.TAILS`.
          temperature: > 0; other than 1 with tail `renormalize` alone.
          beta: in (0, 1).
          **kwargs: of `t5x.models.EncoderDecoderModel`.

        Raises:
          ValueError: an unknown name, a divergence not defined with its tail or temperature, or
            `z_loss` or `label_smoothing` other than 0.
        """
        for name in ("z_loss", "label_smoothing"):
            if kwargs.get(name):
                raise ValueError(
                    f"expected {name} 0, got {kwargs[name]}: the distillation losses have none"
                )
        check_choice("objective", objective, losses.OBJECTIVES)
        self.objective = objective
        self.rule = losses.Rule(divergence, tail, temperature, beta)
        super().__init__(*args, **kwargs)

    def loss_fn(
        self, params: Any, batch: Batch, dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        """Computes the loss of a (micro)batch, as `t5x.models.BaseModel.loss_fn`.

        Args:
          params: of the network.
          batch: with `decoder_soft_*` if the objective is `match_distribution`.
          dropout_rng: None for no dropout.

        Returns:
          loss: weighted sum of token losses over `loss_normalizing_factor`. metrics: those of t5x,
          and those of the class.
        """
        logits = self._compute_logits(params, batch, dropout_rng)
        normalizer, weights = t5x.losses.get_loss_normalizing_factor_and_weights(
            self._loss_normalizing_factor, batch
        )
        mean, sums = self._score(logits, batch, weights)
        loss = mean * sums["tokens"]
        if normalizer is not None:
            loss = loss / normalizer
        metrics = self._compute_metrics(
            logits=logits,
            targets=batch["decoder_target_tokens"],
            mask=weights,
            loss=loss,
            segment_ids=_segments(batch),
        )
        return loss, metrics | self._distillation_metrics(sums)

    def _score(
        self, logits: jax.Array, batch: Batch, weights: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the weighted mean of the token losses, and the sums of `losses.METRICS`."""
        if self.objective == "match_sample":
            return losses.match_sample(logits, batch["decoder_target_tokens"], weights)
        kind = batch["decoder_soft_kind"]
        soft = SparseTargets(
            batch["decoder_soft_ids"],
            batch["decoder_soft_logprobs"],
            batch["decoder_soft_tail_logprob"],
            kind,
            reason=kind,  # of no interest to the loss, and not in a batch
        )
        return losses.match_distribution(logits, soft, weights, **dataclasses.asdict(self.rule))

    def _distillation_metrics(self, sums: Mapping[str, jax.Array]) -> Metrics:
        parts = {"ce_loss": ("ce_sum", "ce_tokens")}
        if self.objective == "match_distribution":
            parts["kl_loss"] = ("kl_sum", "kl_tokens")
            parts["coverage"] = ("transferred_tokens", "cot_tokens")
        return {
            name: clu.metrics.Average(total=sums[total], count=sums[count])
            for name, (total, count) in parts.items()
        }


def _segments(batch: Batch) -> dict[str, jax.Array]:
    """Returns what t5x counts real tokens by: nothing is packed, so 0 is padding."""
    return {name: batch[name] != 0 for name in ("encoder_input_tokens", "decoder_target_tokens")}
