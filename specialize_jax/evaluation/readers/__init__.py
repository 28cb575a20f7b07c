"""Test sets by name -> `Question` rows.

Files as their authors published them, under the data folder:

| name                    | file                               | splits            | questions   |
|-------------------------|------------------------------------|-------------------|-------------|
| `gsm8k`                 | `gsm8k/<split>.jsonl`              | test, train       | 1319, 7473  |
| `gsm8k_socratic`        | `gsm8k/<split>_socratic.jsonl`     | test, train       | 1319, 7473  |
| `gsm8k_dev200`          | the rows of `gsm8k/train.jsonl` in | validation        | 200         |
|                         | `cot_prompts/validation_index.npy` |                   |             |
| `gsm_hard`              | `gsm_hard/gsmhardv2.jsonl`         | test              | 1319        |
| `svamp`                 | `svamp/SVAMP.json`                 | test              | 1000        |
| `asdiv`                 | `asdiv/ASDiv.xml`                  | test              | 2305        |
| `multiarith`, `addsub`, | `mawps/mawps<name>.jsonl`          | test              | 600, 395,   |
| `singleeq`, `singleop`  |                                    |                   | 508, 562    |
| `aqua`                  | `aqua/<split>.json`                | test, dev         | 254, 254    |
| `strategyqa`            | `strategyqa/dev.json`, `train.json`| validation, train | 229, 2061   |
| `commonsenseqa`         | `commonsenseqa/dev_rand_split.jsonl` | validation      | 1221        |
| `bbh_<task>`, 27        | `bbh/bbh/<task>.json`              | test              | 6511        |
| `last_letters_<2,3,4>`, | none: made from a seed             | test, train       | 500, 2000   |
| `coin_flip_<2,3,4>`     |                                    |                   | each        |

The first split is the one that is scored. Groups: `math_ood`, `mawps`, `bbh`, `last_letters`,
`coin_flip`. Without a data folder GSM8K comes from where `gsm8k.ELSEWHERE` says.

Every row of a file is kept. 56 ASDiv answers hold no number ("Bryan"); as in the code of 2301.12726
they stay in the denominator, where no prediction can be right; results count them, and `with_gold`
leaves them out. 90 ASDiv answers hold several numbers ("9; 11"): the last one counts, as in that
code. Three BBH answers (one of movie_recommendation, two of ruin_names) name no option. SVAMP
bodies often lack their full stop: one is put in where it is missing, and none where it is there
(that code writes ". " always).

A module of a user's own adds its sets by `register`.
"""

from specialize_jax.evaluation.readers import bbh, choices, gsm8k, symbolic, word_problems
from specialize_jax.evaluation.readers.base import (
    DATA_DIR_VARIABLE,
    GROUPS,
    MATH_PROMPT,
    PROMPT_MODES,
    ROLES,
    SETS,
    Question,
    QuestionSet,
    exemplars,
    expand,
    folder,
    modes,
    read,
    register,
    sample,
    with_gold,
)

for _module in (gsm8k, word_problems, choices, symbolic, bbh):
    for _name, _set in _module.SETS.items():
        register(_name, _set)
GROUPS.update(
    math_ood=("multiarith", "asdiv", "svamp"),
    mawps=word_problems.MAWPS,
    bbh=tuple(bbh.SETS),
    last_letters=tuple(name for name in symbolic.SETS if name.startswith("last_letters")),
    coin_flip=tuple(name for name in symbolic.SETS if name.startswith("coin_flip")),
)

__all__ = [
    "DATA_DIR_VARIABLE",
    "GROUPS",
    "MATH_PROMPT",
    "PROMPT_MODES",
    "ROLES",
    "SETS",
    "Question",
    "QuestionSet",
    "exemplars",
    "expand",
    "folder",
    "gsm8k",
    "modes",
    "read",
    "register",
    "sample",
    "with_gold",
]
