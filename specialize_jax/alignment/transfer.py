"""From a path and the teacher's candidates to sparse targets in the student's vocabulary.

Letters: `B` batch, `T` teacher tokens, `S` student tokens, `K` teacher candidates kept per step,
`M` distinct teacher byte strings.
"""

import functools

import jax
import jax.numpy as jnp

from specialize_jax.alignment.types import Candidates, Path, VocabularyMap
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, Reason, SparseTargets

MODES = ("one_to_one",)

# Importers treat log-probabilities at or below -9999 as "not recorded".
_SMALLEST_LOGPROB = -9999.0
# Leftover mass below this is float32 rounding, not a tail.
_SMALLEST_TAIL = 1e-7


def transfer(
    path: Path,
    candidates: Candidates,
    vocabulary_map: VocabularyMap,
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

    Args:
      path: `S` wide; of the student tokens *without* the end-of-sequence token, padded to `S`.
      candidates: [B, T] and [B, T, K]; what the teacher recorded.
      vocabulary_map: [M]; the student id that each teacher string is.
      student_ids: [B, S] int32; the target, with the end-of-sequence token where it has one.
      mode: one of `MODES`.
      k_out: entries kept per student token, >= 1.
      student_lengths: [B] int32; target tokens of each example, the end-of-sequence token included.
        None: every row is full.
      eos_id: an example's last token gets reason END_OF_SEQUENCE where it has this id.

    Returns:
      `SparseTargets` of [B, S, k_out] and [B, S]; positions behind the lengths are `Kind.PAD`.

    Raises:
      ValueError: an unknown mode, `k_out` below 1, or shapes that do not fit.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if k_out < 1:
        raise ValueError(f"k_out must be at least 1, got {k_out}")
    student_ids = jnp.asarray(student_ids)
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
    survives = pick(logprobs[..., 0], fill=UNUSED_LOGPROB) > _SMALLEST_LOGPROB
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
    usable = (ids >= 0) & (logprobs > _SMALLEST_LOGPROB)
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
    return ((strings >= 0) & (logprobs > _SMALLEST_LOGPROB)).any(-1)


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
