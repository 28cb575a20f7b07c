"""What a part says of itself: sums that add up, and its worst examples for the report's viewer."""

import collections
import dataclasses
import math
from typing import Any

import numpy as np

from specialize_jax import tokenizers
from specialize_jax.data.aligning import modes
from specialize_jax.data.aligning.columns import Columns
from specialize_jax.data.aligning.modes import Targets
from specialize_jax.schemas import NO_LOGPROB, UNUSED_LOGPROB, Kind, Reason, SparseTargets

# Worst examples that a part keeps, and a folder of all parts.
_EXAMPLES_KEPT = 20
# Candidates shown per token in the report's viewer.
_SHOWN = 6


@dataclasses.dataclass
class Totals:
    """Sums over aligned examples; they add."""

    rows: int = 0
    rows_with_logprobs: int = 0
    cot_tokens: int = 0
    transferred: int = 0
    retained_mass: float = 0.0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @classmethod
    def of(cls, soft: SparseTargets, rows: int, rows_with_logprobs: int) -> "Totals":
        """Returns the sums over some examples, their tokens [S] one behind the other."""
        transferred = soft.kind == Kind.TRANSFERRED
        reasons, counts = np.unique(soft.reason[~transferred], return_counts=True)
        return cls(
            rows,
            rows_with_logprobs,
            len(soft.kind),
            int(transferred.sum()),
            float(_retained(soft)[transferred].sum()),
            collections.Counter(
                {Reason(r).name.lower(): n for r, n in zip(reasons, counts.tolist(), strict=True)}
            ),
        )

    def merge(self, other: "Totals") -> None:
        """Adds other sums to these."""
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, mine + theirs)

    def to_json(self) -> dict[str, Any]:
        """Returns the sums as JSON; `from_json` reads them."""
        return {**dataclasses.asdict(self), "reasons": dict(self.reasons)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Totals":
        """Returns the sums that `to_json` wrote."""
        return cls(**{**value, "reasons": collections.Counter(value["reasons"])})

    def summary(self) -> dict[str, Any]:
        """Returns shares: coverage, retained mass and one-hot rate by reason, all in [0, 1]."""
        tokens = max(self.cot_tokens, 1)
        return {
            "rows": self.rows,
            "rows_with_logprobs": self.rows_with_logprobs,
            "cot_tokens": self.cot_tokens,
            "coverage": self.transferred / tokens,
            "retained_mass": self.retained_mass / self.transferred if self.transferred else None,
            "reasons": dict(sorted(self.reasons.items())),
            "one_hot_rate": {name: n / tokens for name, n in sorted(self.reasons.items())},
        }


def worst(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rendered examples of least coverage, then least retained mass, in order."""
    order = sorted(examples, key=lambda example: (example["coverage"], example["retained_mass"]))
    return order[:_EXAMPLES_KEPT]


def rendered(
    columns: Columns, targets: Targets, tokenizer: tokenizers.Tokenizer
) -> list[dict[str, Any]]:
    """Returns the `worst` examples of a part that have any token transferred.

    They are as `alignment_info.json["examples"]` holds them and the report's viewer reads them.
    """
    lengths = np.diff(targets.offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    is_transferred = targets.soft.kind == Kind.TRANSFERRED
    here = row[is_transferred]
    transferred = np.bincount(here, minlength=len(lengths))
    coverage = transferred / np.maximum(lengths, 1)
    mass = np.bincount(here, _retained(targets.soft)[is_transferred], len(lengths))
    retained = mass / np.maximum(transferred, 1)
    # In mode `marginal` nearly all tokens are covered: then the mass says which is worst.
    order = np.lexsort((retained, coverage))
    rows = order[transferred[order] > 0][:_EXAMPLES_KEPT]
    if not len(rows):
        return []
    records = columns.table.take(rows).to_pylist()
    ranges = modes.ranges(columns, targets, rows, tokenizer)
    return [
        _render(record, targets, r, here, tokenizer)
        for record, r, here in zip(records, rows.tolist(), ranges, strict=True)
    ]


def _render(
    record: dict[str, Any],
    targets: Targets,
    r: int,
    ranges: np.ndarray,
    tokenizer: tokenizers.Tokenizer,
) -> dict[str, Any]:
    here = slice(*targets.offsets[r : r + 2].tolist())
    soft = SparseTargets(*(value[here] for value in targets.soft))
    numbers = Totals.of(soft, 1, 1).summary()
    return {
        "example_id": record["example_id"],
        "sample_id": record["sample_id"],
        "question": record["question"],
        "coverage": numbers["coverage"],
        "retained_mass": numbers["retained_mass"],
        "teacher": _teacher_view(record),
        "student": _student_view(targets.ids[here], soft, ranges, tokenizer),
    }


def _teacher_view(record: dict[str, Any]) -> list[dict[str, Any]]:
    def shown(token: bytes) -> str:
        return token.decode(errors="backslashreplace")

    target = slice(record["target_token_start"], record["target_token_end"])
    columns = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")
    return [
        {
            "text": shown(token),
            "logprob": float(logprob) if logprob > NO_LOGPROB else None,
            "top": [
                [shown(name), math.exp(p)]
                for name, p in list(zip(names, logprobs, strict=True))[:_SHOWN]
            ],
        }
        for token, logprob, names, logprobs in zip(
            *(record[name][target] for name in columns), strict=True
        )
    ]


def _student_view(
    ids: np.ndarray, soft: SparseTargets, ranges: np.ndarray, tokenizer: tokenizers.Tokenizer
) -> list[dict[str, Any]]:
    student = []
    for position, piece in enumerate(tokenizer.pieces(ids.tolist())):
        used = soft.logprobs[position] > UNUSED_LOGPROB / 2
        candidates = tokenizer.pieces(soft.ids[position][used].tolist())
        mass = np.exp(soft.logprobs[position][used]).tolist()
        start, end = ranges[position].tolist()
        student.append(
            {
                "piece": piece,
                "id": int(ids[position]),
                "teacher_start": start,
                "teacher_end": end,
                "kind": int(soft.kind[position]),
                "reason": int(soft.reason[position]),
                "top": list(zip(candidates, mass, strict=True))[:_SHOWN],
                "tail": float(np.exp(soft.tail_logprob[position])),
            }
        )
    return student


def _retained(soft: SparseTargets) -> np.ndarray:
    """[S] float64; the share of the teacher's mass that reached each transferred token."""
    return 1.0 - np.exp(soft.tail_logprob.astype(np.float64))
