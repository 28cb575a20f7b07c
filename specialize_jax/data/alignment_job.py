"""From teacher records to aligned examples: the per-part function of `specialize-jax align`.

Text and tokenizers on the host, batches by length bucket, the alignment op on the device. A part is
the unit of work: it depends on nothing but its rows and the settings, so parts can be resumed, and
be spread over machines.

Letters: `S` student tokens of an example, `K_out` entries kept per student token.
"""

import bisect
import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from specialize_jax import alignment, tokenizers
from specialize_jax.data.packing import one_hot
from specialize_jax.schemas import (
    NO_LOGPROB,
    UNUSED_LOGPROB,
    Kind,
    Reason,
    SchemaError,
    SparseTargets,
)
from specialize_jax.schemas.records import has_logprobs, target_text

_LENGTH_STEP = 32
_BATCH_ROWS = 256
# Candidates shown per token in the report's viewer.
_SHOWN = 6


class Aligned(NamedTuple):
    """One aligned record.

    Attributes:
      text: the string columns of `schemas.aligned`.
      targets: [S] int32.
      soft: [S, K_out].
      ranges: [S, 2] int32; teacher tokens linked to each student token, counted from the start of
        the target; empty ranges without log-probabilities.
      record: the teacher record.
    """

    text: dict[str, Any]
    targets: np.ndarray
    soft: SparseTargets
    ranges: np.ndarray
    record: dict[str, Any]

    @property
    def retained(self) -> np.ndarray:
        """[transferred tokens] share of the teacher's mass that reached the student."""
        return 1 - np.exp(self.soft.tail_logprob[self.soft.kind == Kind.TRANSFERRED])


@dataclasses.dataclass
class Totals:
    """Sums over aligned examples; they add."""

    rows: int = 0
    rows_with_logprobs: int = 0
    cot_tokens: int = 0
    transferred: int = 0
    retained_mass: float = 0.0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, example: Aligned) -> None:
        """Counts one example."""
        kinds = example.soft.kind
        self.rows += 1
        self.rows_with_logprobs += has_logprobs(example.record)
        self.cot_tokens += len(kinds)
        self.transferred += int((kinds == Kind.TRANSFERRED).sum())
        self.retained_mass += float(example.retained.sum())
        for reason in example.soft.reason[kinds != Kind.TRANSFERRED]:
            self.reasons[Reason(int(reason)).name.lower()] += 1

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


def align_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: tokenizers.Tokenizer,
    *,
    mode: str,
    k_out: int,
) -> list[Aligned]:
    """Aligns teacher records, in their order.

    Args:
      rows: of `schemas.records`.
      tokenizer: the student's.
      mode: of `alignment.transfer`.
      k_out: entries kept per student token.

    Raises:
      ValueError: unknown mode.
    """
    done: list[Aligned | None] = [None] * len(rows)
    pending = []
    for index, row in enumerate(rows):
        text = target_text(row)
        # Cut by length, the teacher did not end here: nothing teaches the student to.
        end = [] if row["finish_reason"] == "length" else [tokenizer.eos_id]
        targets = np.asarray([*tokenizer.encode(text), *end], np.int32)
        strings = {
            "example_id": row["example_id"],
            "sample_id": row["sample_id"],
            "question": row["question"],
            "gold_answer": row["gold_answer"],
            "targets_pretokenized": text,
        }
        ranges = np.zeros((len(targets), 2), np.int32)
        soft = one_hot(targets, k_out, Kind.ONE_HOT, Reason.NO_LOGPROBS)
        done[index] = Aligned(strings, targets, soft, ranges, row)
        if has_logprobs(row):
            pending.append(index)
    examples = [example for example in done if example is not None]
    for bucket in _buckets([examples[index] for index in pending], pending):
        for index, soft, ranges in _align_bucket(
            [(index, examples[index]) for index in bucket], tokenizer, mode=mode, k_out=k_out
        ):
            examples[index] = examples[index]._replace(soft=soft, ranges=ranges)
    return examples


def _round_up(length: int) -> int:
    return max(math.ceil(length / _LENGTH_STEP), 1) * _LENGTH_STEP


def _buckets(examples: Sequence[Aligned], indices: Sequence[int]) -> Iterator[list[int]]:
    """Yields groups of row indices whose lengths round to the same shape."""
    groups = collections.defaultdict(list)
    for example, index in zip(examples, indices, strict=True):
        teacher = _target_steps(example.record, "token_bytes")
        groups[_round_up(len(teacher)), _round_up(len(example.targets))].append(index)
    for _, group in sorted(groups.items()):
        for start in range(0, len(group), _BATCH_ROWS):
            yield group[start : start + _BATCH_ROWS]


def _align_bucket(
    members: Sequence[tuple[int, Aligned]],
    tokenizer: tokenizers.Tokenizer,
    *,
    mode: str,
    k_out: int,
) -> Iterator[tuple[int, SparseTargets, np.ndarray]]:
    """Aligns rows of one length bucket and yields index, soft targets and ranges."""
    if mode == "marginal":
        yield from _marginal_bucket(members, tokenizer, k_out=k_out)
        return
    examples = [example for _, example in members]
    teacher = [_target_steps(example.record, "token_bytes") for example in examples]
    # End of sequence has no counterpart among the teacher's tokens.
    bodies = [example.targets[example.targets != tokenizer.eos_id] for example in examples]
    exact = alignment.align_batch(teacher, [tokenizer.pieces(body) for body in bodies])

    # Shapes are rounded up, so that few are compiled.
    rows = 1 << (len(members) - 1).bit_length()
    t = _round_up(max(map(len, teacher)))
    s = _round_up(max(len(example.targets) for example in examples))
    path = alignment.Path(
        total_cost=_pad_to(exact.total_cost, (rows,)),
        teacher_start=_pad_to(exact.teacher_start, (rows, s)),
        teacher_end=_pad_to(exact.teacher_end, (rows, s)),
        certified=_pad_to(exact.certified, (rows,)),
    )
    candidates, table = _candidates([example.record for example in examples], rows, t)
    student_ids = np.zeros((rows, s), np.int32)
    student_lengths = np.zeros(rows, np.int32)
    for number, example in enumerate(examples):
        student_ids[number, : len(example.targets)] = example.targets
        student_lengths[number] = len(example.targets)
    soft = alignment.transfer(
        path,
        candidates,
        _vocabulary_map(table, tokenizer, mode),
        jnp.asarray(student_ids),
        mode=mode,
        k_out=k_out,
        student_lengths=jnp.asarray(student_lengths),
        eos_id=tokenizer.eos_id,
    )
    soft = SparseTargets(*(np.asarray(value) for value in soft))
    for number, (index, example) in enumerate(members):
        length, body = len(example.targets), len(bodies[number])
        ranges = np.full((length, 2), len(teacher[number]), np.int32)
        ranges[:body, 0] = exact.teacher_start[number, :body]
        ranges[:body, 1] = exact.teacher_end[number, :body]
        yield index, SparseTargets(*(value[number, :length] for value in soft)), ranges


def _vocabulary_map(
    table: Sequence[bytes], tokenizer: tokenizers.Tokenizer, mode: str
) -> alignment.VocabularyMap:
    """Returns what each string is taken for; behind them come rows that nothing refers to."""
    if mode == "soft":
        student_id, first_id = _soft_map(tokenizer)(table)
    else:
        student_id, first_id = tokenizers.vocabulary_map(table, tokenizer), None
    spare = (0, (1 << (len(table) - 1).bit_length()) - len(table))
    student_id = np.pad(student_id, spare, constant_values=-1)
    if first_id is not None:
        first_id = np.pad(first_id, [spare, (0, 0)], constant_values=-1)
    return alignment.VocabularyMap(student_id, first_id)


@functools.lru_cache(maxsize=1)
def _soft_map(tokenizer: tokenizers.Tokenizer) -> alignment.SoftMap:
    return alignment.SoftMap(tokenizer.pieces(range(tokenizer.vocab_size)))


def _marginal_bucket(
    members: Sequence[tuple[int, Aligned]], tokenizer: tokenizers.Tokenizer, *, k_out: int
) -> Iterator[tuple[int, SparseTargets, np.ndarray]]:
    """Like `_align_bucket`, from votes that the student's own tokenizer leads to."""
    examples = [example for _, example in members]
    segmenter = _segmenter(tokenizer)
    found, ranges = [], []
    for example in examples:
        ids, spans = tokenizer.encode_with_spans(example.text["targets_pretokenized"])
        targets = example.targets.tolist()
        if targets[: len(ids)] != ids:
            raise ValueError(f"{example.text['example_id']}: expected targets {ids}, got {targets}")
        found.append(tokenizers.expand(recorded(example.record), targets, spans, segmenter))
        ranges.append(_ranges(_target_steps(example.record, "token_bytes"), spans, len(targets)))
    rows = 1 << (len(members) - 1).bit_length()
    s = _round_up(max(len(example.targets) for example in examples))
    width = _round_up(max(votes.ids.shape[1] for votes in found))

    def batch(name: str, *more: int) -> np.ndarray:
        shape = (s, *more)
        values = [_pad_to(getattr(votes, name), shape) for votes in found]
        return _pad_to(np.stack(values), (rows, *shape))

    student_ids = np.stack([_pad_to(example.targets, (s,)) for example in examples])
    student_lengths = np.array([len(example.targets) for example in examples], np.int32)
    soft = alignment.transfer(
        None,
        alignment.Votes(
            batch("ids", width),
            batch("mass", width),
            batch("tail"),
            batch("dropped"),
            batch("reason"),
        ),
        None,
        jnp.asarray(_pad_to(student_ids, (rows, s))),
        mode="marginal",
        k_out=k_out,
        student_lengths=jnp.asarray(_pad_to(student_lengths, (rows,))),
    )
    soft = SparseTargets(*(np.asarray(value) for value in soft))
    for number, (index, example) in enumerate(members):
        length = len(example.targets)
        one = SparseTargets(*(value[number, :length] for value in soft))
        yield index, one, ranges[number]


@functools.lru_cache(maxsize=1)
def _segmenter(tokenizer: tokenizers.Tokenizer) -> tokenizers.Segmenter:
    if not isinstance(tokenizer, tokenizers.SentencePieceTokenizer):
        raise ValueError(
            f"mode 'marginal' needs a SentencePiece student, got '{tokenizer.name}' "
            f"({type(tokenizer).__name__})"
        )
    return tokenizers.Segmenter(tokenizer)


def recorded(row: dict[str, Any]) -> tokenizers.Recorded:
    """Returns what `tokenizers.expand` reads of a record: the target's tokens and what ended it.

    White space behind the target that the target itself never holds, as two newlines, is taken for
    what ends this teacher's texts.
    """
    start, end = row["target_token_start"], row["target_token_end"]
    columns = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")
    candidates = []
    for token, logprob, names, logprobs in zip(
        *(row[name][start:] for name in columns), strict=True
    ):
        listed = dict(zip(names, map(math.exp, logprobs), strict=True))
        if token not in listed and logprob > NO_LOGPROB:
            listed[token] = math.exp(min(logprob, 0.0))
        candidates.append(listed)
    tokens = row["token_bytes"][start:]
    after = b"".join(row["token_bytes"][end:])
    is_stop = after.isspace() and after not in b"".join(row["token_bytes"][start:end])
    terminal = None
    if not after and row["terminal_bytes"]:
        terminal = dict(
            zip(row["terminal_bytes"], map(math.exp, row["terminal_logprobs"]), strict=True)
        )
    return tokenizers.Recorded(
        tokens,
        candidates,
        terminal,
        stop=after if is_stop else None,
        ended=row["finish_reason"] != "length",
    )


def _ranges(tokens: Sequence[bytes], spans: np.ndarray, length: int) -> np.ndarray:
    """Returns [length, 2] ranges of the teacher tokens that share bytes with each student token."""
    starts = [0, *itertools.accumulate(map(len, tokens))]
    ranges = np.full((length, 2), len(tokens), np.int32)
    for j, (begin, end) in enumerate(spans.tolist()):
        ranges[j] = bisect.bisect_right(starts, begin) - 1, bisect.bisect_left(starts, end)
    ranges[:, 1] = np.maximum(ranges[:, 1], ranges[:, 0])
    return ranges


def _target_steps(record: dict[str, Any], name: str) -> list[Any]:
    """Returns what a column of a record holds for the tokens of the target."""
    return record[name][record["target_token_start"] : record["target_token_end"]]


def _pad_to(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(value, [(0, to - now) for to, now in zip(shape, value.shape, strict=True)])


def _candidates(
    rows: Sequence[dict[str, Any]], padded_rows: int, steps: int
) -> tuple[alignment.Candidates, list[bytes]]:
    """Returns the candidates of some records as arrays, and the table of distinct strings."""
    k = max(len(names) for row in rows for names in row["topk_bytes"])
    shape = (padded_rows, steps)
    candidates = alignment.Candidates(
        token=np.full(shape, -1, np.int32),
        token_logprob=np.full(shape, UNUSED_LOGPROB, np.float32),
        topk=np.full((*shape, k), -1, np.int32),
        topk_logprobs=np.full((*shape, k), UNUSED_LOGPROB, np.float32),
    )
    table: dict[bytes, int] = {}
    columns = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")
    for number, row in enumerate(rows):
        recorded = zip(*(_target_steps(row, name) for name in columns), strict=True)
        for step, (token, logprob, names, logprobs) in enumerate(recorded):
            candidates.token[number, step] = table.setdefault(token, len(table))
            candidates.token_logprob[number, step] = max(logprob, UNUSED_LOGPROB)
            for slot, (name, value) in enumerate(zip(names, logprobs, strict=True)):
                candidates.topk[number, step, slot] = table.setdefault(name, len(table))
                candidates.topk_logprobs[number, step, slot] = value
    return candidates, list(table)


def render(example: Aligned, tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """Returns an example for `alignment_info.json["examples"]`, as the report's viewer reads it."""
    record, soft = example.record, example.soft
    columns = ("token_bytes", "token_logprobs", "topk_bytes", "topk_logprobs")

    def shown(token: bytes) -> str:
        return token.decode(errors="backslashreplace")

    teacher = [
        {
            "text": shown(token),
            "logprob": float(logprob),
            "top": [
                [shown(name), math.exp(p)]
                for name, p in list(zip(names, logprobs, strict=True))[:_SHOWN]
            ],
        }
        for token, logprob, names, logprobs in zip(
            *(_target_steps(record, name) for name in columns), strict=True
        )
    ]
    pieces = tokenizer.pieces(example.targets.tolist())
    student = []
    for position, piece in enumerate(pieces):
        used = soft.logprobs[position] > UNUSED_LOGPROB / 2
        ids = soft.ids[position][used].tolist()
        mass = np.exp(soft.logprobs[position][used]).tolist()
        start, end = example.ranges[position].tolist()
        student.append(
            {
                "piece": piece,
                "id": int(example.targets[position]),
                "teacher_start": start,
                "teacher_end": end,
                "kind": int(soft.kind[position]),
                "reason": int(soft.reason[position]),
                "top": list(zip(tokenizer.pieces(ids), mass, strict=True))[:_SHOWN],
                "tail": float(np.exp(soft.tail_logprob[position])),
            }
        )
    totals = Totals()
    totals.add(example)
    numbers = totals.summary()
    return {
        "example_id": example.text["example_id"],
        "sample_id": example.text["sample_id"],
        "question": example.text["question"],
        "coverage": numbers["coverage"],
        "retained_mass": numbers["retained_mass"],
        "teacher": teacher,
        "student": student,
    }


def check_teacher_tokenizer(
    rows: Sequence[dict[str, Any]], teacher: tokenizers.Tokenizer, where: str
) -> None:
    """Checks that the tokens of records are tokens of this tokenizer.

    Raises:
      SchemaError: one is not; it and its place are named.
    """
    known: set[bytes] = set()
    for row in rows:
        for step, token in enumerate(row["token_bytes"]):
            text = token.decode(errors="replace")
            if token in known:
                continue
            if teacher.bytes_to_id(token) is None and teacher.piece_to_id(text) is None:
                raise SchemaError(
                    f"{where} ({row['example_id']}/{row['sample_id']}): token {step}, {token!r}, "
                    f"is no token of '{teacher.name}': these records were made with another one"
                )
            known.add(token)
