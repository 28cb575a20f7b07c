"""From a path and the teacher's candidates to sparse targets in the student's vocabulary.

Letters: `B` batch, `T` teacher tokens, `S` student tokens, `K` teacher candidates kept per step,
`M` distinct teacher byte strings.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specialize_jax.alignment import checks
from specialize_jax.alignment.types import Candidates, Path, VocabularyMap, Votes
from specialize_jax.schemas import NO_LOGPROB, UNUSED_LOGPROB, Kind, Reason, SparseTargets

MODES = ("one_to_one", "marginal")

# Leftover mass below this is float32 rounding, not a tail.
_SMALLEST_TAIL = 1e-7
# Votes are made in float64; more than this is no rounding.
_MASS_TOLERANCE = 1e-6


def transfer(
    path: Path | None,
    candidates: Candidates | Votes,
    vocabulary_map: VocabularyMap | None,
    student_ids: jax.Array,
    *,
    mode: str = "one_to_one",
    k_out: int = 8,
    student_lengths: jax.Array | None = None,
    eos_id: int = 1,
) -> SparseTargets:
    """Gives every student token the teacher's distribution, or a one-hot with the reason.

    Mode `one_to_one` is the rule of https://arxiv.org/abs/2301.12726, its losses included: a
    student token gets its teacher token's candidates if and only if the path links it to exactly
    one teacher token and both are the same string. Several candidates never meet one student id,
    as the strings must be equal; where a candidate is listed twice (the sampled token, which stands
    first, and again among the top-k) its first log-probability counts. Candidates that are no
    student piece are dropped. Nothing is renormalised: what is dropped, what the teacher did not
    list, and what exceeds `k_out` (the least probable) is the tail, so a transferred position
    retains `1 - exp(tail_logprob)`. Entries stand in order of descending log-probability.

    A worked example. Teacher tokens ` $`, `12`, ` every`, `thing`, `.`, newline; at ` every` the
    teacher recorded ` every` 0.5 (sampled, and again among the top-k), ` a` 0.3, ` ev3ry` 0.1;
    `▁ev3ry` is no piece:

    | student  | linked teacher tokens | target                                        |
    |----------|-----------------------|-----------------------------------------------|
    | `▁$12`   | ` $` `12`             | one-hot, MANY_TEACHER_TOKENS                  |
    | `▁every` | ` every`              | `▁every` 0.5, `▁a` 0.3, tail 0.2; transferred |
    | `th`     | `thing`               | one-hot, SHARED_TEACHER_TOKEN                 |
    | `ing`    | `thing`               | one-hot, SHARED_TEACHER_TOKEN                 |
    | `.`      | `.` newline           | one-hot, MANY_TEACHER_TOKENS                  |
    | `</s>`   |                       | one-hot, END_OF_SEQUENCE                      |

    Mode `marginal` is ours: what the teacher's candidates imply for the next *student* token, as
    `tokenizers.expand` found it with the student's own tokenizer; its votes stand where the
    candidates stand, and no path or map is needed. Votes that meet one id are summed. Mass of
    strings that contradict the student's tokens so far (`dropped`) is divided away, as it belongs
    to other texts; no other mass is. What exceeds `k_out` joins the tail. A position whose votes
    carry a reason is a one-hot with that reason.

    A worked example. Teacher tokens `In`, ` total`, ` 12`, `.`, two newlines; it recorded `In` 0.6
    (sampled), `He` 0.3; then ` total` 0.8 (sampled), `deed` 0.1, then ` 12` 1.0, then `.` 0.5
    (sampled), `0` 0.5, then two newlines 1.0. The student knows `▁In`, `▁Indeed`, `▁He`, `▁total`,
    `▁1`, `2`, `20`, `.`:

    | student  | votes                                 | target                                |
    |----------|---------------------------------------|---------------------------------------|
    | `▁In`    | `▁In` 0.54, `▁He` 0.3, `▁Indeed` 0.06 | as voted, tail 0.1                    |
    | `▁total` | `▁total` 0.8; `Indeed` is dropped 0.1 | `▁total` 0.89, tail 0.11              |
    | `▁1`     | `▁1` 1.0                              | `▁1` 1.0, no tail                     |
    | `2`      | `2` 0.5, `20` 0.5                     | as voted, no tail                     |
    | `.`      | `.` 1.0; `120` is dropped 0.5         | `.` 1.0, no tail                      |
    | `</s>`   | `</s>` 1.0                            | `</s>` 1.0, no tail                   |

    Args:
      path: `S` wide; of the student tokens *without* the end-of-sequence token, padded to `S`.
        None for `marginal`.
      candidates: [B, T] and [B, T, K]; what the teacher recorded. For `marginal` the `Votes`, [B,
        S, M] and [B, S]; positions behind the lengths are not read.
      vocabulary_map: [M]; the student id that each teacher string is. None for `marginal`.
      student_ids: [B, S] int32; the target, with the end-of-sequence token where it has one.
      mode: one of `MODES`.
      k_out: entries kept per student token, >= 1.
      student_lengths: [B] int32; target tokens of each example, the end-of-sequence token included.
        None: every row is full.
      eos_id: an example's last token gets reason END_OF_SEQUENCE where it has this id.

    Returns:
      `SparseTargets` of [B, S, k_out] and [B, S]; positions behind the lengths are `Kind.PAD`.

    Raises:
      ValueError: an unknown mode, `k_out` below 1, shapes that do not fit; in numpy arrays what
        cannot be (`checks.py`), as a log-probability above 0, or votes whose mass does not sum
        to 1. Arrays on a device or under `jit` are not looked at.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if k_out < 1:
        raise ValueError(f"k_out must be at least 1, got {k_out}")
    student_ids = jnp.asarray(student_ids)
    checks.student_lengths(student_lengths, student_ids.shape)
    checks.votes(candidates, student_ids.shape, student_lengths)
    if mode == "marginal":
        return _check_and_marginal(candidates, student_ids, student_lengths, k_out)
    if path is None or vocabulary_map is None or isinstance(candidates, Votes):
        raise ValueError(f"mode {mode!r} needs a path, candidates and a vocabulary map")
    if student_ids.ndim != 2 or path.teacher_start.shape != student_ids.shape:
        raise ValueError(
            "student_ids must be [B, S] and as wide as the path (pad the path for the "
            f"end-of-sequence token), got {student_ids.shape} and {path.teacher_start.shape}"
        )
    token, topk = jnp.shape(candidates.token), jnp.shape(candidates.topk)
    if topk[:2] != token or token[:1] != student_ids.shape[:1]:
        raise ValueError(
            f"candidates must be [B, T] and [B, T, K] with B = {student_ids.shape[0]}, "
            f"got token {token} and topk {topk}"
        )
    checks.candidates(candidates, path, vocabulary_map)
    if student_lengths is None:
        student_lengths = jnp.full(student_ids.shape[:1], student_ids.shape[1])
    return _one_to_one(
        path, candidates, vocabulary_map, student_ids, student_lengths, eos_id, k_out=k_out
    )


@functools.partial(jax.jit, static_argnames="k_out")
def _one_to_one(
    path: Path,
    candidates: Candidates,
    vocabulary_map: VocabularyMap,
    student_ids: jax.Array,
    student_lengths: jax.Array,
    eos_id: int,
    *,
    k_out: int,
) -> SparseTargets:
    """Computes the candidates of every teacher token once, then hands them to student tokens."""
    start, end = jnp.asarray(path.teacher_start), jnp.asarray(path.teacher_end)
    ids, logprobs = _student_candidates(candidates, vocabulary_map)
    sampled = _to_student(vocabulary_map, jnp.asarray(candidates.token))
    recorded = _is_recorded(candidates)
    ids, logprobs, tail = _largest(ids, logprobs, k_out)

    # One teacher token more, for student tokens without a link.
    at = jnp.where(end > start, start, sampled.shape[1])
    pick = functools.partial(_pick, at=at)
    same_string = pick(sampled, fill=-1) == student_ids
    survives = pick(logprobs[..., 0], fill=UNUSED_LOGPROB) > NO_LOGPROB
    copied = (end - start == 1) & same_string & survives

    position = jnp.arange(student_ids.shape[1])[None, :]
    inside = position < student_lengths[:, None]
    is_eos = (position == student_lengths[:, None] - 1) & (student_ids == eos_id)
    reason = jnp.select(
        [~inside, is_eos, copied, ~_any_recorded(recorded, start, end), end - start > 1],
        [Reason.NONE, Reason.END_OF_SEQUENCE, Reason.NONE, Reason.NO_LOGPROBS]
        + [Reason.MANY_TEACHER_TOKENS],
        jnp.where(_is_shared(start, end), Reason.SHARED_TEACHER_TOKEN, Reason.DIFFERENT_STRING),
    )
    # The same string, but the teacher's record of it leads to no student piece.
    reason = jnp.where(
        (reason == Reason.DIFFERENT_STRING) & same_string, Reason.NO_LOGPROBS, reason
    )
    copied &= inside & ~is_eos
    kind = jnp.where(inside, jnp.where(copied, Kind.TRANSFERRED, Kind.ONE_HOT), Kind.PAD)
    one_hot_ids, one_hot_logprobs = _one_hot(student_ids, inside, k_out)
    return SparseTargets(
        ids=jnp.where(copied[..., None], pick(ids, fill=0), one_hot_ids),
        logprobs=jnp.where(
            copied[..., None], pick(logprobs, fill=UNUSED_LOGPROB), one_hot_logprobs
        ),
        tail_logprob=jnp.where(copied, pick(tail, fill=UNUSED_LOGPROB), UNUSED_LOGPROB),
        kind=kind.astype(jnp.int32),
        reason=reason.astype(jnp.int32),
    )


def _check_and_marginal(
    votes: Any, student_ids: jax.Array, student_lengths: jax.Array | None, k_out: int
) -> SparseTargets:
    if not isinstance(votes, Votes):
        raise ValueError(f"mode 'marginal' needs Votes for candidates, got {type(votes).__name__}")
    shapes = [np.shape(votes.ids)[:-1], *(np.shape(value) for value in votes[2:])]
    if {*shapes} != {student_ids.shape} or np.shape(votes.mass) != np.shape(votes.ids):
        raise ValueError(
            f"expected votes of [B, S, M] and [B, S] with [B, S] = {student_ids.shape}, got "
            f"{[np.shape(value) for value in votes]}"
        )
    if student_lengths is None:
        student_lengths = jnp.full(student_ids.shape[:1], student_ids.shape[1])
    if isinstance(votes.mass, np.ndarray) and not isinstance(student_lengths, jax.core.Tracer):
        inside = np.arange(student_ids.shape[1])[None] < np.asarray(student_lengths)[:, None]
        total = votes.mass.sum(-1) + votes.tail + votes.dropped
        bad = np.argwhere(inside & (votes.reason == Reason.NONE) & ~_is_one(total))
        if bad.size:
            row, position = bad[0].tolist()
            raise ValueError(
                f"row {row}, position {position}: expected votes, tail and dropped mass that sum "
                f"to 1, got {total[row, position]:.7f}"
            )
    return _marginal(
        Votes(*map(jnp.asarray, votes)), student_ids, jnp.asarray(student_lengths), k_out=k_out
    )


def _is_one(total: np.ndarray) -> np.ndarray:
    return np.abs(total - 1.0) < _MASS_TOLERANCE  # NaN is not


@functools.partial(jax.jit, static_argnames="k_out")
def _marginal(
    votes: Votes, student_ids: jax.Array, student_lengths: jax.Array, *, k_out: int
) -> SparseTargets:
    """Sums votes per id, divides the dropped mass away and keeps the largest."""
    inside = jnp.arange(student_ids.shape[1])[None, :] < student_lengths[:, None]
    voted = inside & (votes.reason == Reason.NONE)
    mass = jnp.where(voted[..., None], votes.mass, 0.0)
    same = votes.ids[..., :, None] == votes.ids[..., None, :]
    summed = jnp.where(same, mass[..., None, :], 0.0).sum(-1)
    # An id keeps its sum in its first slot with mass; the others are emptied.
    before = jnp.tri(mass.shape[-1], k=-1, dtype=bool)[None, None]
    earlier = before & same & (mass > 0)[..., None, :]
    is_first = (mass > 0) & ~earlier.any(-1)
    # What was not dropped, without the rounding of `1 - dropped`.
    kept = jnp.where(voted, mass.sum(-1) + votes.tail, 1.0)
    share = summed / kept[..., None]
    is_used = is_first & (share > 0)
    logprobs = jnp.where(is_used, jnp.log(jnp.where(is_used, share, 1.0)), UNUSED_LOGPROB)
    ids, logprobs, tail = _largest(
        jnp.where(is_used, votes.ids, 0), jnp.minimum(logprobs, 0.0), k_out
    )
    one_hot_ids, one_hot_logprobs = _one_hot(student_ids, inside, k_out)
    kind = jnp.where(inside, jnp.where(voted, Kind.TRANSFERRED, Kind.ONE_HOT), Kind.PAD)
    return SparseTargets(
        ids=jnp.where(voted[..., None], ids, one_hot_ids),
        logprobs=jnp.where(voted[..., None], logprobs, one_hot_logprobs),
        tail_logprob=jnp.where(voted, tail, UNUSED_LOGPROB),
        kind=kind.astype(jnp.int32),
        reason=jnp.where(inside & ~voted, votes.reason, Reason.NONE).astype(jnp.int32),
    )


def _to_student(vocabulary_map: VocabularyMap, strings: jax.Array) -> jax.Array:
    """Returns student ids, -1 for none, of rows of the table of strings, -1 for none."""
    student_id = jnp.append(jnp.asarray(vocabulary_map.student_id), -1)
    return student_id[jnp.where(strings < 0, len(student_id) - 1, strings)]


def _student_candidates(
    candidates: Candidates, vocabulary_map: VocabularyMap
) -> tuple[jax.Array, jax.Array]:
    """Returns [B, T, K + 1] ids, unique within a token, and log-probabilities of what is kept."""
    ids = _to_student(vocabulary_map, _sampled_first(candidates.token, candidates.topk))
    logprobs = _sampled_first(candidates.token_logprob, candidates.topk_logprobs)
    usable = (ids >= 0) & (logprobs > NO_LOGPROB)
    # `earlier[..., k, l]`: candidate `l` stands before `k`, has its id and counts.
    earlier = (ids[..., :, None] == ids[..., None, :]) & usable[..., None, :]
    earlier &= jnp.tri(ids.shape[-1], k=-1, dtype=bool)[None, None]
    kept = usable & ~earlier.any(-1)
    return jnp.where(kept, ids, 0), jnp.where(kept, logprobs, UNUSED_LOGPROB)


def _sampled_first(sampled: jax.Array, topk: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.asarray(sampled)[..., None], jnp.asarray(topk)], axis=-1)


def _is_recorded(candidates: Candidates) -> jax.Array:
    """[B, T] bool; whether the teacher recorded any log-probability at a token."""
    logprobs = _sampled_first(candidates.token_logprob, candidates.topk_logprobs)
    strings = _sampled_first(candidates.token, candidates.topk)
    return ((strings >= 0) & (logprobs > NO_LOGPROB)).any(-1)


def _any_recorded(recorded: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """[B, S] bool; whether any teacher token in `[start, end)` is recorded."""
    before = jnp.pad(jnp.cumsum(recorded, axis=1), ((0, 0), (1, 0)))
    return jnp.take_along_axis(before, end, 1) > jnp.take_along_axis(before, start, 1)


def _is_shared(start: jax.Array, end: jax.Array) -> jax.Array:
    """[B, S] bool; whether a neighbour's range overlaps. Ranges are in order, so none other can."""
    overlaps_next = (start[:, 1:] < end[:, :-1]) & (end[:, 1:] > start[:, 1:])
    none = jnp.zeros_like(start[:, :1], bool)
    return jnp.concatenate([overlaps_next, none], 1) | jnp.concatenate([none, overlaps_next], 1)


def _largest(
    ids: jax.Array, logprobs: jax.Array, k_out: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the `k_out` most probable entries, in order, and the log of the mass outside them."""
    unused = [(0, 0), (0, 0), (0, max(0, k_out - ids.shape[-1]))]
    ids = jnp.pad(ids, unused)
    logprobs = jnp.pad(logprobs, unused, constant_values=UNUSED_LOGPROB)
    order = jnp.argsort(-logprobs, axis=-1, stable=True)[..., :k_out]
    ids = jnp.take_along_axis(ids, order, -1)
    logprobs = jnp.take_along_axis(logprobs, order, -1)
    outside = 1.0 - jnp.exp(logprobs).sum(-1)
    is_tail = outside > _SMALLEST_TAIL
    tail = jnp.where(is_tail, jnp.log(jnp.where(is_tail, outside, 1.0)), UNUSED_LOGPROB)
    return ids, logprobs, tail


def _pick(values: jax.Array, *, at: jax.Array, fill: float) -> jax.Array:
    """Returns `values[b, at[b, s]]`, and `fill` where `at` is one past the last teacher token."""
    spare = jnp.full_like(values[:, :1], fill)
    padded = jnp.concatenate([values, spare], axis=1)
    return jax.vmap(lambda row, places: row[places])(padded, at)


def _one_hot(student_ids: jax.Array, inside: jax.Array, k_out: int) -> tuple[jax.Array, jax.Array]:
    """Returns [B, S, k_out] ids and log-probabilities with all mass on the token itself."""
    is_first = (jnp.arange(k_out) == 0)[None, None, :] & inside[..., None]
    return (
        jnp.where(is_first, student_ids[..., None], 0),
        jnp.where(is_first, jnp.float32(0.0), jnp.float32(UNUSED_LOGPROB)),
    )
