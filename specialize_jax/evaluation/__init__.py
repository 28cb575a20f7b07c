"""Evaluation on public sets: read questions, ask a model, score, write results.

| module      | does                                                                             |
|-------------|----------------------------------------------------------------------------------|
| `readers`   | test sets by name -> `Question` rows; what belongs to a set                      |
| `bbh`       | prompts of BIG-Bench Hard: as they should be, and as 2301.12726's code has them  |
| `prompts`   | how the questions of a set are put in a format                                   |
| `splits`    | validation and test rows of the sets that models are chosen by                   |
| `scoring`   | right or wrong under each extraction mode of `answers`; mean, error and interval |
| `journal`   | the file that keeps answers as they come                                         |
| `runner`    | questions and `stream` -> predictions; resumes                                   |
| `saving`    | predictions -> results and samples in lm-evaluation-harness form                 |
| `scored`    | what each checkpoint of a run got right, from these files                        |
| `selection` | which checkpoint is best, and how sure that is                                   |
| `selected`  | the file that says which checkpoint was chosen, and why                          |

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
