"""What `transfer` refuses: values that no teacher can have recorded.

Only numpy arrays are looked at. What is on a device, or traced by `jit`, cannot be read without
waiting for it or at all: there NaN stays NaN, and indices beyond an array are clamped.

Letters: `B` batch, `T` teacher tokens, `S` student tokens, `K` teacher candidates kept per step,
`M` distinct teacher byte strings.
"""

from typing import Any

import jax
import numpy as np

from specialize_jax.alignment.types import Candidates, Path, VocabularyMap, Votes
from specialize_jax.schemas import MAX_EXCESS_MASS, NO_LOGPROB

# A log-probability above 0 by no more than this is rounding.
_ROUNDING = 1e-6


def student_lengths(lengths: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless lengths, where given, are [B] and in [0, S] for a shape [B, S]."""
    if lengths is None:
        return
    if np.shape(lengths) != shape[:1]:
        raise ValueError(f"student_lengths must be [B] = {shape[:1]}, got {np.shape(lengths)}")
    if not isinstance(lengths, jax.Array):
        lengths = np.asarray(lengths)
        wrong = (lengths < 0) | (lengths > shape[1])
        _refuse(wrong, lengths, f"student_lengths must be in [0, {shape[1]}]", "[b]")


def candidates(recorded: Candidates, path: Path, vocabulary_map: VocabularyMap) -> None:
    """Checks what the teacher recorded, shapes [B, T] and [B, T, K] being known to fit together.

    Raises:
      ValueError: log-probabilities of another shape than their tokens; a string that the map lacks;
        a link to a teacher token that is not there; a log-probability that is NaN or above 0;
        candidates of a step, each counted once, of a mass above 1.
    """
    shapes = [np.shape(value) for value in recorded]
    if shapes[0] != shapes[1] or shapes[2] != shapes[3]:
        raise ValueError(f"log-probabilities must have the shape of their tokens, got {shapes}")
    size = np.shape(vocabulary_map.student_id)[0]
    for name, of_it, axes in (
        ("token", "token_logprob", "[b, t]"),
        ("topk", "topk_logprobs", "[b, t, k]"),
    ):
        strings, logprobs = getattr(recorded, name), getattr(recorded, of_it)
        if isinstance(strings, np.ndarray):
            must = f"candidates.{name} must be below {size}, the strings of the vocabulary map"
            _refuse(strings >= size, strings, must, axes)
        if isinstance(logprobs, np.ndarray):
            must = f"candidates.{of_it} must be at most 0 and not NaN"
            _refuse(~(logprobs <= _ROUNDING), logprobs, must, axes)
    if isinstance(path.teacher_end, np.ndarray):
        must = f"path.teacher_end must be at most {shapes[0][1]}, the candidates' teacher tokens"
        _refuse(path.teacher_end > shapes[0][1], path.teacher_end, must, "[b, s]")
    if all(isinstance(value, np.ndarray) for value in recorded):
        mass = _mass(recorded)
        must = "the candidates of a teacher token must have a mass of at most 1"
        _refuse(mass > 1 + MAX_EXCESS_MASS, mass, must, "[b, t]")


def votes(found: Any, shape: tuple[int, ...], lengths: Any) -> None:
    """Raises ValueError for a negative mass of votes within the lengths; their sum is not checked.

    Args:
      found: `Votes`; anything else, and arrays of other shapes, are left to the caller.
      shape: [B, S].
      lengths: [B] student tokens, or None for all of them.
    """
    if not isinstance(found, Votes) or isinstance(lengths, jax.core.Tracer):
        return
    inside = np.ones(shape, bool)
    if lengths is not None:
        inside = np.arange(shape[1])[None, :] < np.asarray(lengths)[:, None]
    for name, axes in (("mass", "[b, s, m]"), ("tail", "[b, s]"), ("dropped", "[b, s]")):
        mass = getattr(found, name)
        if isinstance(mass, np.ndarray) and mass.shape[:2] == shape:
            within = inside.reshape(shape + (1,) * (mass.ndim - 2))
            _refuse(within & (mass < -_ROUNDING), mass, f"votes.{name} must be at least 0", axes)


def _mass(recorded: Candidates) -> np.ndarray:
    """Returns [B, T], the mass of each step; a string that is listed twice counts once."""
    probability, topk_probability = (
        np.where((strings >= 0) & (logprobs > NO_LOGPROB), np.exp(np.minimum(logprobs, 0.0)), 0.0)
        for strings, logprobs in (recorded[:2], recorded[2:])
    )
    # The sampled token usually stands again among the most probable ones.
    again = (recorded.topk == recorded.token[..., None]) & (topk_probability > 0)
    mass = topk_probability.sum(-1) + np.where(again.any(-1), 0.0, probability)
    for b, t in np.argwhere(mass > 1 + MAX_EXCESS_MASS).tolist():
        first = {recorded.token[b, t]: probability[b, t]} if probability[b, t] > 0 else {}
        for string, value in zip(recorded.topk[b, t], topk_probability[b, t], strict=True):
            if value > 0:
                first.setdefault(string, value)
        mass[b, t] = sum(first.values())
    return mass


def _refuse(wrong: np.ndarray, values: np.ndarray, must: str, axes: str) -> None:
    """Raises ValueError for the first value that is wrong, with its place."""
    for place in np.argwhere(wrong)[:1].tolist():
        raise ValueError(f"{must}, got {values[tuple(place)]} at {axes} = {place}")
