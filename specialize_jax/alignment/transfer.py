"""From a path and the teacher's candidates to sparse targets in the student's vocabulary.

Letters: `B` batch, `T` teacher tokens, `S` student tokens, `K` teacher candidates kept per step,
`M` distinct teacher byte strings.
"""

import jax
import jax.numpy as jnp

from specialize_jax.alignment.links import carry
from specialize_jax.alignment.types import Candidates, Path, VocabularyMap, Votes
from specialize_jax.alignment.votes import marginal
from specialize_jax.schemas import SparseTargets

MODES = ("one_to_one", "soft", "marginal")


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

    Mode `soft` is the rule of FuseLLM (https://arxiv.org/abs/2401.10491; `transform_step_logits`
    and `find_best_mapping` in the authors' github.com/fanqiwan/FuseAI), its faults included. It
    differs from `one_to_one` in this:

    - A teacher string is taken for the student piece of least edit distance (`SoftMap`), so none
      is without: neither the linked teacher token, which need only be *taken for* the student
      token, nor a candidate. A newline is taken for some piece of one character, a shared teacher
      token can be taken for one of its sharers, and a candidate even for a control piece.
    - Where several candidates meet one student id, the most probable counts; the others' mass joins
      the tail.
    - At the first student token a teacher token without a space is read as if it had one, if the
      student token has a marker: `If` is `▁If`. Its candidates are not: `▁If` is taught `If`.

    The authors' training divides the tail away; here the loss does (`tail="renormalize"`). What is
    not theirs: their recorded step `j` predicts the token *behind* token `j`, ours token `j`
    itself; their candidates are the top-k alone, ours also a sampled token outside it; their
    byte-level strings are compared as they are stored (`Ã©`), ours as text (`é`).

    A worked example. Teacher tokens `If`, ` every`, `thing`, `.`, newline; it recorded `If` 0.6
    (sampled), `In` 0.3; then ` every` 0.5 (sampled), ` a` 0.3, ` ev3ry` 0.1; then `thing` 0.9
    (sampled), `day` 0.05; then `.` 1.0. The student knows, in this order, `▁If`, `▁In`, `▁every`,
    `▁a`, `th`, `ing`, `If`, `.`:

    | student  | linked teacher tokens | target                                        |
    |----------|-----------------------|-----------------------------------------------|
    | `▁If`    | `If`                  | `If` 0.6, `▁In` 0.3, tail 0.1; transferred    |
    | `▁every` | ` every`              | `▁every` 0.5, `▁a` 0.3, tail 0.2; transferred |
    | `th`     | `thing`               | one-hot, SHARED_TEACHER_TOKEN                 |
    | `ing`    | `thing`               | `ing` 0.9, `▁a` 0.05, tail 0.05; transferred  |
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
      vocabulary_map: [M]; the student id that each teacher string is taken for: exact for
        `one_to_one`, `SoftMap`'s for `soft`. None for `marginal`.
      student_ids: [B, S] int32; the target, with the end-of-sequence token where it has one.
      mode: one of `MODES`.
      k_out: entries kept per student token, >= 1.
      student_lengths: [B] int32; target tokens of each example, the end-of-sequence token included.
        None: every row is full.
      eos_id: an example's last token gets reason END_OF_SEQUENCE where it has this id.

    Returns:
      `SparseTargets` of [B, S, k_out] and [B, S]; positions behind the lengths are `Kind.PAD`.

    Raises:
      ValueError: an unknown mode, `k_out` below 1, shapes or a map that do not fit, or votes
        (checked where they are numpy arrays) whose mass does not sum to 1.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if k_out < 1:
        raise ValueError(f"k_out must be at least 1, got {k_out}")
    student_ids = jnp.asarray(student_ids)
    if mode == "marginal":
        return marginal(candidates, student_ids, student_lengths, k_out)
    if path is None or vocabulary_map is None or isinstance(candidates, Votes):
        raise ValueError(f"mode {mode!r} needs a path, candidates and a vocabulary map")
    if mode == "soft" and vocabulary_map.first_id is None:
        raise ValueError("mode 'soft' needs a vocabulary map with first_id, as SoftMap makes it")
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
    return carry(
        path,
        candidates,
        vocabulary_map,
        student_ids,
        student_lengths,
        eos_id,
        k_out=k_out,
        is_soft=mode == "soft",
    )
