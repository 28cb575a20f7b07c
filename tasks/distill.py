"""The four formats of 2301.12726 as seqio tasks, and their mixtures.

Names: `distill_<format>`, where `<format>` is one of

    {zero_shot, in_context} x {chain_of_thought, answer_only}

Mixtures and their rates (IC in_context, ZS zero_shot, CoT chain_of_thought, AO answer_only):

| mixture                            | IC CoT | ZS CoT | IC AO | ZS AO |
|------------------------------------|-------:|-------:|------:|------:|
| `distill_four_formats`             |   0.40 |   0.40 |  0.10 |  0.10 |
| `distill_four_formats_fu2023_250m` |  0.600 |  0.375 | 0.016 | 0.009 |
| `distill_four_formats_fu2023_780m` |  0.677 |  0.301 | 0.016 | 0.006 |
| `distill_four_formats_fu2023`      |  0.794 |  0.198 | 0.005 | 0.003 |
| `distill_four_formats_fu2023_11b`  |  0.653 |  0.327 | 0.012 | 0.008 |
| `distill_in_context`               |   0.80 |      - |  0.20 |     - |
| `distill_zero_shot`                |      - |   0.80 |     - |  0.20 |

The rates of `distill_four_formats` are ours. Those of `_fu2023` are the shares of micro-batches in
the paper's runs of a size (3B without a suffix), computed from its configuration, and so
the shares of its gradient between the chain-of-thought formats, because every micro-batch weighs
the same there. Every token does here: answer-only examples, of some five tokens, weigh less.

`distill_settings` says which aligned folders they read; nothing is read before a task is used.
"""

import seqio
import tensorflow as tf

from specialize_jax.data import preprocessors, sources, vocabulary
from specialize_jax.schemas import Format
from specialize_jax.tasks import distill_settings

TASK_PREFIX = "distill"
RATES = {
    "distill_four_formats": {
        Format.IN_CONTEXT_CHAIN_OF_THOUGHT: 0.4,
        Format.ZERO_SHOT_CHAIN_OF_THOUGHT: 0.4,
        Format.IN_CONTEXT_ANSWER_ONLY: 0.1,
        Format.ZERO_SHOT_ANSWER_ONLY: 0.1,
    },
    "distill_four_formats_fu2023": {
        Format.IN_CONTEXT_CHAIN_OF_THOUGHT: 0.794,
        Format.ZERO_SHOT_CHAIN_OF_THOUGHT: 0.198,
        Format.IN_CONTEXT_ANSWER_ONLY: 0.005,
        Format.ZERO_SHOT_ANSWER_ONLY: 0.003,
    },
    "distill_four_formats_fu2023_250m": {
        Format.IN_CONTEXT_CHAIN_OF_THOUGHT: 0.6,
        Format.ZERO_SHOT_CHAIN_OF_THOUGHT: 0.375,
        Format.IN_CONTEXT_ANSWER_ONLY: 0.016,
        Format.ZERO_SHOT_ANSWER_ONLY: 0.009,
    },
    "distill_four_formats_fu2023_780m": {
        Format.IN_CONTEXT_CHAIN_OF_THOUGHT: 0.677,
        Format.ZERO_SHOT_CHAIN_OF_THOUGHT: 0.301,
        Format.IN_CONTEXT_ANSWER_ONLY: 0.016,
        Format.ZERO_SHOT_ANSWER_ONLY: 0.006,
    },
    "distill_four_formats_fu2023_11b": {
        Format.IN_CONTEXT_CHAIN_OF_THOUGHT: 0.653,
        Format.ZERO_SHOT_CHAIN_OF_THOUGHT: 0.327,
        Format.IN_CONTEXT_ANSWER_ONLY: 0.012,
        Format.ZERO_SHOT_ANSWER_ONLY: 0.008,
    },
    "distill_in_context": {
        Format.IN_CONTEXT_CHAIN_OF_THOUGHT: 0.8,
        Format.IN_CONTEXT_ANSWER_ONLY: 0.2,
    },
    "distill_zero_shot": {
        Format.ZERO_SHOT_CHAIN_OF_THOUGHT: 0.8,
        Format.ZERO_SHOT_ANSWER_ONLY: 0.2,
    },
}


def _tokenizer_file() -> str:
    """Returns the student tokenizer that lies in the aligned folder."""
    return distill_settings.corpus().tokenizer_file


VOCABULARY = vocabulary.LazyVocabulary(_tokenizer_file)
_PLAIN = seqio.PassThroughVocabulary(size=0)
OUTPUT_FEATURES = {
    "inputs": seqio.Feature(VOCABULARY),
    "targets": seqio.Feature(VOCABULARY),
    "targets_soft_ids": seqio.Feature(_PLAIN, add_eos=False, rank=2),
    "targets_soft_logprobs": seqio.Feature(_PLAIN, add_eos=False, rank=2, dtype=tf.float32),
    "targets_soft_tail_logprob": seqio.Feature(_PLAIN, add_eos=False, dtype=tf.float32),
    "targets_soft_kind": seqio.Feature(_PLAIN, add_eos=False),
    "targets_format": seqio.Feature(_PLAIN, add_eos=False),
}


def task_name(fmt: Format) -> str:
    """Returns the name of the task of a format."""
    return f"{TASK_PREFIX}_{fmt.label}"


for _format in Format:
    seqio.TaskRegistry.add(
        task_name(_format),
        source=sources.AlignedSource(
            distill_settings.corpus, first_sample_only=not _format.is_chain_of_thought
        ),
        preprocessors=[
            preprocessors.format_rows(
                _format, corpus=distill_settings.corpus, vocabulary=lambda: VOCABULARY
            )
        ],
        output_features=OUTPUT_FEATURES,
        shuffle_buffer_size=None,
    )
for _mixture, _rates in RATES.items():
    seqio.MixtureRegistry.add(
        _mixture, [(task_name(_format), _rate) for _format, _rate in _rates.items()]
    )
