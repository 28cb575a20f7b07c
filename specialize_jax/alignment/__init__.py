"""Aligning a teacher's tokens with a student's, and carrying its distributions across.

JAX and numpy only: this room knows no model, trainer, file or tokenizer library.

| name                  | what it does                                                            |
|-----------------------|-------------------------------------------------------------------------|
| `align`               | one example, plain Python in and out                                    |
| `align_batch`         | many token lists at once, costs and path in one: the fast way           |
| `align_band`,         | the two steps of `align_batch(band=w)`, for those who want to know how  |
| `rerun_uncertified`   | many examples the first one certified                                   |
| `edit_distance_costs` | token lists -> costs [B, T, S]                                          |
| `dtw`                 | costs -> `Path`, each student token's range of teacher tokens; jitted   |
| `offsets`             | byte spans -> `Path`, linear in the tokens; jitted                      |
| `SoftMap`             | teacher strings -> `VocabularyMap` of the nearest student tokens        |
| `transfer`            | `Path` and `Candidates` -> `SparseTargets` for the student; jitted      |
"""

from specialize_jax.alignment.batch import align_band, align_batch, rerun_uncertified
from specialize_jax.alignment.costs import edit_distance_costs
from specialize_jax.alignment.dp import dtw
from specialize_jax.alignment.nearest import SoftMap
from specialize_jax.alignment.offsets import offsets
from specialize_jax.alignment.reference import align
from specialize_jax.alignment.transfer import MODES, transfer
from specialize_jax.alignment.types import Candidates, Path, VocabularyMap, Votes
from specialize_jax.schemas import SparseTargets

__all__ = [
    "MODES",
    "Candidates",
    "Path",
    "SoftMap",
    "SparseTargets",
    "VocabularyMap",
    "Votes",
    "align",
    "align_band",
    "align_batch",
    "dtw",
    "edit_distance_costs",
    "offsets",
    "rerun_uncertified",
    "transfer",
]
