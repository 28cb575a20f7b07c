"""The modes of `transfer` that follow a path: `one_to_one` and `soft`."""

import functools

import jax
import jax.numpy as jnp

from specialize_jax.alignment.sparse import largest, one_hot
from specialize_jax.alignment.types import Candidates, Path, VocabularyMap
from specialize_jax.schemas import NO_LOGPROB, UNUSED_LOGPROB, Kind, Reason, SparseTargets


@functools.partial(jax.jit, static_argnames=("k_out", "is_soft"))
def carry(
    path: Path,
    candidates: Candidates,
    vocabulary_map: VocabularyMap,
    student_ids: jax.Array,
    student_lengths: jax.Array,
    eos_id: int,
    *,
    k_out: int,
    is_soft: bool,
) -> SparseTargets:
    """Computes the candidates of every teacher token once, then hands them to student tokens.

    See `transfer` for the rules, arguments and result.
    """
    start, end = jnp.asarray(path.teacher_start), jnp.asarray(path.teacher_end)
    ids, logprobs = _student_candidates(candidates, vocabulary_map, is_soft=is_soft)
    sampled = _look_up(vocabulary_map.student_id, jnp.asarray(candidates.token))
    recorded = _is_recorded(candidates)
    ids, logprobs, tail = largest(ids, logprobs, k_out)

    # One teacher token more, for student tokens without a link.
    at = jnp.where(end > start, start, sampled.shape[1])
    pick = functools.partial(_pick, at=at)
    same_string = pick(sampled, fill=-1) == student_ids
    if is_soft:
        first = _look_up(vocabulary_map.first_id, jnp.asarray(candidates.token))
        first = _pick(first, at=at[:, :1], fill=-1)
        same_string = same_string.at[:, :1].set((first == student_ids[:, :1, None]).any(-1))
    survives = pick(logprobs[..., 0], fill=UNUSED_LOGPROB) > NO_LOGPROB
    copied = (end - start == 1) & same_string & survives

    position = jnp.arange(student_ids.shape[1])[None, :]
    inside = position < student_lengths[:, None]
    is_eos = (position == student_lengths[:, None] - 1) & (student_ids == eos_id)
    reason = _reasons(start, end, recorded, copied=copied, same_string=same_string)
    reason = jnp.select([~inside, is_eos], [Reason.NONE, Reason.END_OF_SEQUENCE], reason)
    copied &= inside & ~is_eos
    kind = jnp.where(inside, jnp.where(copied, Kind.TRANSFERRED, Kind.ONE_HOT), Kind.PAD)
    one_hot_ids, one_hot_logprobs = one_hot(student_ids, inside, k_out)
    return SparseTargets(
        ids=jnp.where(copied[..., None], pick(ids, fill=0), one_hot_ids),
        logprobs=jnp.where(
            copied[..., None], pick(logprobs, fill=UNUSED_LOGPROB), one_hot_logprobs
        ),
        tail_logprob=jnp.where(copied, pick(tail, fill=UNUSED_LOGPROB), UNUSED_LOGPROB),
        kind=kind.astype(jnp.int32),
        reason=reason.astype(jnp.int32),
    )


def _reasons(
    start: jax.Array,
    end: jax.Array,
    recorded: jax.Array,
    *,
    copied: jax.Array,
    same_string: jax.Array,
) -> jax.Array:
    """[B, S] int; why a student token with these links is a one-hot, `Reason.NONE` if it is not."""
    # The same string, but the teacher's record of it leads to no student piece.
    different = jnp.where(same_string, Reason.NO_LOGPROBS, Reason.DIFFERENT_STRING)
    return jnp.select(
        [copied, ~_any_recorded(recorded, start, end), end - start > 1, _is_shared(start, end)],
        [Reason.NONE, Reason.NO_LOGPROBS, Reason.MANY_TEACHER_TOKENS, Reason.SHARED_TEACHER_TOKEN],
        different,
    )


def _look_up(student_id: jax.Array, strings: jax.Array) -> jax.Array:
    """Returns student ids, -1 for none, of rows of the table of strings, -1 for none."""
    student_id = jnp.asarray(student_id)
    padded = jnp.concatenate([student_id, jnp.full_like(student_id[:1], -1)])
    return padded[jnp.where(strings < 0, len(student_id), strings)]


def _student_candidates(
    candidates: Candidates, vocabulary_map: VocabularyMap, *, is_soft: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns [B, T, K + 1] ids, unique within a token, and log-probabilities of what is kept."""
    ids = _look_up(vocabulary_map.student_id, _sampled_first(candidates.token, candidates.topk))
    logprobs = _sampled_first(candidates.token_logprob, candidates.topk_logprobs)
    if is_soft:
        order = jnp.argsort(-logprobs, axis=-1, stable=True)
        ids, logprobs = (jnp.take_along_axis(x, order, -1) for x in (ids, logprobs))
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


def _pick(values: jax.Array, *, at: jax.Array, fill: float) -> jax.Array:
    """Returns `values[b, at[b, s]]`, and `fill` where `at` is one past the last teacher token."""
    spare = jnp.full_like(values[:, :1], fill)
    padded = jnp.concatenate([values, spare], axis=1)
    return jax.vmap(lambda row, places: row[places])(padded, at)
