"""The losses written out densely in float64, one token at a time: the oracle."""

import numpy as np

from specialize_jax.schemas import UNUSED_LOGPROB, Kind, SparseTargets


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def token_loss(logits: np.ndarray, target: int, soft: SparseTargets, row: int, tail: str) -> float:
    """Nats for one token; the teacher's distribution is a plain dict."""
    log_q = log_softmax(logits)
    if soft.kind[row] != Kind.TRANSFERRED:
        return float(-log_q[target])
    listed = {
        int(token): float(np.exp(np.float64(logprob)))
        for token, logprob in zip(soft.ids[row], soft.logprobs[row], strict=True)
        if logprob > -9e3
    }
    if tail == "drop":
        return sum(p * np.log(p / (np.exp(log_q[v]) + 1e-10) + 1e-10) for v, p in listed.items())
    if tail == "renormalize":
        mass = sum(listed.values())
        return sum(p / mass * (np.log(p / mass) - log_q[v]) for v, p in listed.items())
    loss = sum(p * (np.log(p) - log_q[v]) for v, p in listed.items())
    others = [v for v in range(len(logits)) if v not in listed]
    if soft.tail_logprob[row] > -9e3 and others:
        log_t = float(soft.tail_logprob[row])
        highest = max(log_q[v] for v in others)
        log_r = highest + np.log(sum(np.exp(log_q[v] - highest) for v in others))
        loss += np.exp(log_t) * (log_t - log_r)
    return float(loss)


def mean_loss(
    logits: np.ndarray, targets: np.ndarray, soft: SparseTargets, weights: np.ndarray, tail: str
) -> float:
    weights = np.where(soft.kind == Kind.PAD, 0.0, weights)
    losses = [token_loss(logits[n], targets[n], soft, n, tail) for n in range(len(logits))]
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
