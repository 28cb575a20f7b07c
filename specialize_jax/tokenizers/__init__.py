"""Tokenizers from files alone, and what a teacher's candidates say in a student's tokens.

| name             | what it does                                                                 |
|------------------|------------------------------------------------------------------------------|
| `load`           | a tokenizer from one file                                                    |
| `train`          | learns a SentencePiece model                                                 |
| `vocabulary_map` | the student token, if any, that is exactly each teacher string               |
| `Segmenter`      | which student token a string leads to, cached                                |
| `expand`         | the votes of a teacher's candidates for every student token (`marginal`)     |
| `Expander`       | the same for many texts at once, from arrays                                 |
"""

from specialize_jax.tokenizers.base import Tokenizer, vocabulary_map
from specialize_jax.tokenizers.expansion import (
    END_TOKENS,
    Recorded,
    Segmenter,
    Votes,
    expand,
    prefix_share,
)
from specialize_jax.tokenizers.expansion_arrays import Steps, Student, VoteColumns
from specialize_jax.tokenizers.expansion_columns import Expander, expand_in_process
from specialize_jax.tokenizers.files import load
from specialize_jax.tokenizers.hugging_face import HuggingFaceTokenizer
from specialize_jax.tokenizers.sentencepiece_model import (
    MODEL_TYPES,
    SentencePieceTokenizer,
    train,
)
from specialize_jax.tokenizers.tiktoken_ranks import TiktokenTokenizer

__all__ = [
    "END_TOKENS",
    "MODEL_TYPES",
    "Expander",
    "HuggingFaceTokenizer",
    "Recorded",
    "Segmenter",
    "SentencePieceTokenizer",
    "Steps",
    "Student",
    "TiktokenTokenizer",
    "Tokenizer",
    "VoteColumns",
    "Votes",
    "expand",
    "expand_in_process",
    "load",
    "prefix_share",
    "train",
    "vocabulary_map",
]
