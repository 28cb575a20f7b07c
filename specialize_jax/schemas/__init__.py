"""The contracts between the stages, executable: what every file and every batch holds.

| module    | contract                                                                       |
|-----------|--------------------------------------------------------------------------------|
| `targets` | `SparseTargets`, and the enums that say what each student position is          |
| `folders` | sharded folders with an info file: atomic writing, resume by shard, hashes     |
| `faults`  | what a bad row does: ends the work, or is left out and listed                  |
| `records` | teacher records: one sampled answer a row                                      |
| `aligned` | aligned examples: the same answer in student tokens with sparse soft targets   |
| `batches` | the fields of a training batch, and packed rows on disk                        |
| `results` | results of an evaluation in lm-evaluation-harness form                         |
| `samples` | its lines: what the model wrote, read and scored                               |

Numpy and pyarrow only: this room knows no JAX, TensorFlow, model or tokenizer.
"""

from specialize_jax.schemas.targets import (
    MAX_EXCESS_MASS,
    NO_LOGPROB,
    UNUSED_LOGPROB,
    Format,
    Kind,
    Reason,
    SchemaError,
    SparseTargets,
)

__all__ = [
    "MAX_EXCESS_MASS",
    "NO_LOGPROB",
    "UNUSED_LOGPROB",
    "Format",
    "Kind",
    "Reason",
    "SchemaError",
    "SparseTargets",
]
