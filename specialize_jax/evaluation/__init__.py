"""Evaluation on public sets: read questions, ask a model, score, write results.

| module    | does                                                                             |
|-----------|----------------------------------------------------------------------------------|
| `readers` | files of GSM8K, SVAMP, ASDiv and MultiArith -> `Question` rows                   |
| `splits`  | validation and test rows of the sets that models are chosen by                   |
| `scoring` | right or wrong under each extraction mode of `answers`; mean, error and interval |
| `journal` | the file that keeps answers as they come                                         |
| `scored`  | what each checkpoint of a run got right, from its files                          |
| `selection` | which checkpoint is best, and how sure that is; `selected`: the file that says it |
| `runner`  | questions and `stream` -> predictions; resumes; writes results and samples       |

It is given functions (`prompt_fn`, `stream`) and knows no model and no tokenizer.
"""

from specialize_jax.evaluation import readers, runner, scoring, splits
from specialize_jax.evaluation.readers import Question
from specialize_jax.evaluation.runner import Prediction, Task
from specialize_jax.evaluation.scoring import Score, Summary

__all__ = [
    "Prediction",
    "Question",
    "Score",
    "Summary",
    "Task",
    "readers",
    "runner",
    "scoring",
    "splits",
]
