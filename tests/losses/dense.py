"""The losses written out densely in float64, one token at a time: the oracle."""

import numpy as np

from specialize_jax.losses import Rule
from specialize_jax.schemas import UNUSED_LOGPROB, Kind, SparseTargets


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def token_loss(logits: np.ndarray, target: int, soft: SparseTargets, row: int, rule: Rule) -> float:
    """Nats for one token; the teacher's distribution is a plain dict, "rest" what is not listed."""
    if soft.kind[row] != Kind.TRANSFERRED:
        return float(-log_softmax(logits)[target])
    log_q = log_softmax(logits.astype(np.float64) / rule.temperature)
    p = {
        int(token): float(np.exp(np.float64(logprob)))
        for token, logprob in zip(soft.ids[row], soft.logprobs[row], strict=True)
        if logprob > -9e3
    }
    if rule.tail == "drop":
        return sum(p[v] * np.log(p[v] / (np.exp(log_q[v]) + 1e-10) + 1e-10) for v in p)
    log_of_q = {v: log_q[v] for v in p}
    if rule.tail == "renormalize":
        mass = sum(value ** (1 / rule.temperature) for value in p.values())
        p = {v: value ** (1 / rule.temperature) / mass for v, value in p.items()}
    others = [v for v in range(len(logits)) if v not in p]
    if others:
        highest = max(log_q[v] for v in others)
        log_of_q["rest"] = highest + np.log(sum(np.exp(log_q[v] - highest) for v in others))
        tail = np.exp(np.float64(soft.tail_logprob[row])) if soft.tail_logprob[row] > -9e3 else 0.0
        p["rest"] = 0.0 if rule.tail == "renormalize" else tail
    return rule.temperature**2 * float(_between(p, log_of_q, rule))


def _between(p: dict, log_q: dict, rule: Rule) -> float:
    q = {v: np.exp(value) for v, value in log_q.items()}
    if rule.divergence == "forward_kl":
        return sum(p[v] * (np.log(p[v]) - log_q[v]) for v in p if p[v] > 0)
    if rule.divergence == "reverse_kl":
        return sum(q[v] * (log_q[v] - np.log(max(p[v], 1e-7) if v == "rest" else p[v])) for v in p)
    m = {v: rule.beta * p[v] + (1 - rule.beta) * q[v] for v in p}
    of_p = sum(p[v] * np.log(p[v] / m[v]) for v in p if p[v] > 0)
    return rule.beta * of_p + (1 - rule.beta) * sum(q[v] * np.log(q[v] / m[v]) for v in p)


def mean_loss(
    logits: np.ndarray, targets: np.ndarray, soft: SparseTargets, weights: np.ndarray, rule: Rule
) -> float:
    weights = np.where(soft.kind == Kind.PAD, 0.0, weights)
    losses = [token_loss(logits[n], targets[n], soft, n, rule) for n in range(len(logits))]
    return float(np.sum(weights * losses) / np.sum(weights))


def random_targets(
    rng: np.random.Generator, count: int, vocabulary: int, entries: int, *, tail_mass: float = 0.1
) -> tuple[np.ndarray, SparseTargets]:
    """Target ids and soft targets of all kinds; some slots unused, some lists holding id 0."""
    targets = rng.integers(0, vocabulary, count).astype(np.int32)
    ids = np.zeros((count, entries), np.int32)
    logprobs = np.full((count, entries), UNUSED_LOGPROB, np.float32)
    tail = np.full(count, UNUSED_LOGPROB, np.float32)
    kind = (np.arange(count) % 4).astype(np.int32)
    for n in range(count):
        if kind[n] == Kind.TRANSFERRED:
            used = 1 + n // 4 % entries
            ids[n, :used] = rng.permutation(vocabulary)[:used]
            if n % 8 == 1 and 0 not in ids[n, :used]:
                ids[n, 0] = 0
            logprobs[n, :used] = np.log(rng.dirichlet(np.ones(used)) * (1 - tail_mass))
            tail[n] = np.log(tail_mass) if tail_mass else UNUSED_LOGPROB
        elif kind[n] != Kind.PAD:
            ids[n, 0], logprobs[n, 0] = targets[n], 0.0
    return targets, SparseTargets(ids, logprobs, tail, kind, np.zeros(count, np.int32))
