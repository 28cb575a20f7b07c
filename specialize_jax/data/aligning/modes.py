"""From the columns of teacher records to soft targets.

Tokenisation and the expansion of mode `marginal` run on the host, in other processes where an
executor is given; JAX runs in this process alone, on all its local devices.

Letters: `R` records, `S` student tokens of all records, `K_out` entries kept per student token.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from specialize_jax import alignment, tokenizers
from specialize_jax.data.aligning import batches
from specialize_jax.data.aligning.columns import Columns, offsets_of, places
from specialize_jax.data.packing import one_hot
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason, SparseTargets

# Records that a process expands at a time.
_CHUNK_ROWS = 250


@dataclasses.dataclass(frozen=True)
class Targets:
    """Aligned records, one behind the other.

    Attributes:
      ids: [S] int32; the targets.
      offsets: [R + 1] int64; where the tokens of each record start.
      soft: [S, K_out].
      path: of the records that have log-probabilities, in their order; None for `marginal`.
    """

    ids: np.ndarray
    offsets: np.ndarray
    soft: SparseTargets
    path: alignment.Path | None = None

    def put(self, where: np.ndarray, soft: SparseTargets) -> None:
        """Sets what some positions [N] got: [N, K_out]."""
        for mine, theirs in zip(self.soft, soft, strict=True):
            mine[where] = theirs


def align(
    columns: Columns,
    tokenizer: tokenizers.Tokenizer,
    *,
    mode: str,
    k_out: int,
    executor: concurrent.futures.Executor | None = None,
) -> Targets:
    """Aligns the records of a part, in their order.

    Args:
      columns: the records.
      tokenizer: the student's.
      mode: of `alignment.transfer`.
      k_out: entries kept per student token.
      executor: runs the host's work of mode `marginal`, None: this process. The result is the same.

    Raises:
      ValueError: unknown mode, or one that does not work with this tokenizer.
    """
    pending = np.flatnonzero(columns.has_logprobs)
    if mode != "marginal":
        ids, offsets = _encode(columns.targets, tokenizer)
        targets = _one_hots(ids, offsets, columns.ended, tokenizer, k_out)
        if len(pending):
            path = _linked(columns, targets, pending, tokenizer)
            targets = dataclasses.replace(targets, path=path)
            _by_path(columns, targets, path, pending, tokenizer, mode)
        return targets
    if not isinstance(tokenizer, tokenizers.SentencePieceTokenizer):
        raise ValueError(
            f"mode 'marginal' needs a SentencePiece student, got '{tokenizer.name}' "
            f"({type(tokenizer).__name__})"
        )
    ids, spans, offsets = tokenizer.encode_batch_with_spans(columns.targets)
    targets = _one_hots(ids, offsets, columns.ended, tokenizer, k_out)
    if len(pending):
        spans = np.insert(spans, offsets[1:][columns.ended], 0, axis=0)
        student = functools.partial(_student, columns, targets, spans)
        _by_votes(columns, targets, pending, student, tokenizer, executor)
    return targets


def _encode(texts: list[str], tokenizer: tokenizers.Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(tokenizer, tokenizers.SentencePieceTokenizer):
        return tokenizer.encode_batch(texts)
    encoded = [tokenizer.encode(text) for text in texts]
    offsets = offsets_of(np.array([*map(len, encoded)], np.int64))
    return np.concatenate([np.zeros(0, np.int32), *encoded]).astype(np.int32), offsets


def _one_hots(
    ids: np.ndarray,
    offsets: np.ndarray,
    ended: np.ndarray,
    tokenizer: tokenizers.Tokenizer,
    k_out: int,
) -> Targets:
    """Returns what records without log-probabilities get: one-hots, end of sequence included.

    Cut by length, the teacher did not end there: nothing teaches the student to.
    """
    whole = np.insert(ids, offsets[1:][ended], tokenizer.eos_id).astype(np.int32)
    whole_offsets = offsets_of(np.diff(offsets) + ended)
    soft = one_hot(whole, k_out, Kind.ONE_HOT, Reason.NO_LOGPROBS)
    return Targets(whole, whole_offsets, soft)


def _by_path(
    columns: Columns,
    targets: Targets,
    path: alignment.Path,
    pending: np.ndarray,
    tokenizer: tokenizers.Tokenizer,
    mode: str,
) -> None:
    """Fills in records that have log-probabilities, from the path of each."""
    start, lengths = targets.offsets[pending], np.diff(targets.offsets)[pending]
    teacher_start = (columns.token_offsets[:-1] + columns.target_start)[pending]
    teacher_lengths = (columns.target_end - columns.target_start)[pending]
    vocabulary = _vocabulary_map(columns.strings, tokenizer, mode)
    started = []
    for rows, shape in batches.of_lengths(np.maximum(teacher_lengths, lengths)):
        fit = functools.partial(batches.fit, shape=shape)
        steps = batches.numbers(teacher_start[rows], teacher_lengths[rows], shape)
        tokens = batches.numbers(start[rows], lengths[rows], shape)
        soft = alignment.transfer(
            alignment.Path(
                total_cost=fit(path.total_cost[rows]),
                teacher_start=fit(path.teacher_start[rows]),
                teacher_end=fit(path.teacher_end[rows]),
                certified=fit(path.certified[rows]),
            ),
            _candidates(columns, steps),
            vocabulary,
            batches.on_devices(batches.pick(targets.ids, tokens, 0)),
            mode=mode,
            k_out=targets.soft.ids.shape[1],
            student_lengths=fit(lengths[rows].astype(np.int32)),
            eos_id=tokenizer.eos_id,
        )
        started.append((tokens, soft))
    # All batches are started before the first is waited for.
    for tokens, soft in started:
        used = tokens >= 0
        targets.put(tokens[used], SparseTargets(*(np.asarray(value)[used] for value in soft)))


def _linked(
    columns: Columns, targets: Targets, rows: np.ndarray, tokenizer: tokenizers.Tokenizer
) -> alignment.Path:
    """Returns the path [N, ...] of some records; their end-of-sequence tokens have no partner."""
    pieces = _pieces(tokenizer)
    start = targets.offsets[rows]
    end = targets.offsets[rows + 1] - columns.ended[rows]
    student = [
        [pieces[i] for i in targets.ids[slice(*bounds)].tolist()]
        for bounds in zip(start.tolist(), end.tolist(), strict=True)
    ]
    return alignment.align_batch([columns.target_tokens(r) for r in rows.tolist()], student)


def ranges(
    columns: Columns, targets: Targets, rows: np.ndarray, tokenizer: tokenizers.Tokenizer
) -> list[np.ndarray]:
    """Returns for each of some records [S, 2] int32, the teacher tokens linked to each token.

    They are counted from the start of the target: as the path says, or, where the mode needed none,
    those that share bytes with the student's token. Of end-of-sequence, and without
    log-probabilities, the range is empty.
    """
    spans = [tokenizer.encode_with_spans(columns.targets[r])[1] for r in rows.tolist()]
    teacher = [[*map(len, columns.target_tokens(r))] for r in rows.tolist()]
    if targets.path is None:
        ends = [np.cumsum(sizes, dtype=np.int32) for sizes in teacher]
        path = alignment.offsets(
            [np.stack([end - sizes, end], -1) for end, sizes in zip(ends, teacher, strict=True)],
            spans,
        )
    else:
        which = np.searchsorted(np.flatnonzero(columns.has_logprobs), rows)
        path = jax.tree.map(lambda values: values[np.minimum(which, len(values) - 1)], targets.path)
    found = []
    for number, (r, tokens) in enumerate(zip(rows.tolist(), teacher, strict=True)):
        length = int(targets.offsets[r + 1] - targets.offsets[r])
        here = np.zeros((length, 2), np.int32)
        if columns.has_logprobs[r]:
            body = length - int(columns.ended[r])
            here[:] = len(tokens)
            here[:body, 0] = path.teacher_start[number, :body]
            here[:body, 1] = path.teacher_end[number, :body]
        found.append(here)
    return found


@functools.lru_cache(maxsize=2)
def _pieces(tokenizer: tokenizers.Tokenizer) -> list[str]:
    return tokenizer.pieces(range(tokenizer.vocab_size))


def _vocabulary_map(
    strings: list[bytes], tokenizer: tokenizers.Tokenizer, mode: str
) -> alignment.VocabularyMap:
    """Returns what each string of a part is taken for; behind them, rows that nothing refers to."""
    if mode == "soft":
        student_id, first_id = _soft_map(tokenizer)(strings)
    else:
        student_id, first_id = tokenizers.vocabulary_map(strings, tokenizer), None
    spare = (0, batches.power_of_two(len(strings), least=1 << 12) - len(strings))
    student_id = np.pad(student_id, spare, constant_values=-1)
    if first_id is not None:
        first_id = np.pad(first_id, [spare, (0, 0)], constant_values=-1)
    return alignment.VocabularyMap(student_id, first_id)


@functools.lru_cache(maxsize=1)
def _soft_map(tokenizer: tokenizers.Tokenizer) -> alignment.SoftMap:
    return alignment.SoftMap(_pieces(tokenizer))


def _candidates(columns: Columns, steps: np.ndarray) -> alignment.Candidates:
    """Returns the candidates of steps [B, T], -1 for none."""
    topk, logprobs = columns.padded_topk
    values = [
        (columns.tokens, -1),
        (np.maximum(columns.token_logprobs, UNUSED_LOGPROB), UNUSED_LOGPROB),
        (topk, -1),
        (logprobs, UNUSED_LOGPROB),
    ]
    found = (batches.pick(value, steps, unused) for value, unused in values)
    return alignment.Candidates(*map(batches.on_devices, found))


def _student(
    columns: Columns, targets: Targets, spans: np.ndarray, rows: np.ndarray
) -> tokenizers.Student:
    lengths = np.diff(targets.offsets)[rows]
    where = places(targets.offsets[rows], lengths)
    texts = [columns.targets[r].encode() for r in rows.tolist()]
    return tokenizers.Student(texts, targets.ids[where], spans[where], offsets_of(lengths))


def _by_votes(
    columns: Columns,
    targets: Targets,
    pending: np.ndarray,
    student: Callable[[np.ndarray], tokenizers.Student],
    tokenizer: tokenizers.SentencePieceTokenizer,
    executor: concurrent.futures.Executor | None,
) -> None:
    """Fills in records that have log-probabilities, from the votes of their candidates."""
    expand = functools.partial(
        tokenizers.expand_in_process, tokenizer.path, tokenizer.extra_ids, tokenizer.sha256
    )
    chunks = [pending[at : at + _CHUNK_ROWS] for at in range(0, len(pending), _CHUNK_ROWS)]
    run = executor.map if executor else map
    found = list(run(expand, map(columns.steps, chunks), map(student, chunks)))
    where = places(targets.offsets[pending], np.diff(targets.offsets)[pending])
    reason = np.concatenate([votes.reason for votes in found])
    targets.soft.reason[where] = reason
    counts = np.concatenate([np.diff(votes.offsets) for votes in found])
    first = offsets_of(counts)
    ids, mass, tail, dropped = (
        np.concatenate([getattr(votes, name) for votes in found])
        for name in ("ids", "mass", "tail", "dropped")
    )
    started = []
    voted = np.flatnonzero(reason == Reason.NONE)
    for block, width in batches.of_widths(voted, counts[voted]):
        slots = batches.numbers(first[block], np.where(block < 0, 0, counts[block]), width)
        votes = alignment.Votes(
            ids=batches.pick(ids, slots, 0),
            mass=batches.pick(mass, slots, 0.0).astype(np.float32),
            tail=batches.pick(tail, block, 1.0).astype(np.float32),
            dropped=batches.pick(dropped, block, 0.0).astype(np.float32),
            reason=np.where(block < 0, Reason.NO_MASS, Reason.NONE).astype(np.int32),
        )
        soft = alignment.transfer(
            None,
            alignment.Votes(*map(batches.on_devices, votes)),
            None,
            batches.on_devices(batches.pick(targets.ids[where], block, 0)),
            mode="marginal",
            k_out=targets.soft.ids.shape[1],
        )
        started.append((block, soft))
    for block, soft in started:
        used = block >= 0
        targets.put(where[block[used]], SparseTargets(*(np.asarray(value)[used] for value in soft)))
